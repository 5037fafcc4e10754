"""Pages, tables and figures of results, made from records and the literature; never imports torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.report.index_page import render_index
    from bench.report.recipe_page import render_recipe
    from bench.report.run_page import render_runs
    from bench.report.track_page import render_track

__all__ = ["render_index", "render_recipe", "render_runs", "render_track"]

_HOMES = {
    "render_index": "index_page",
    "render_recipe": "recipe_page",
    "render_runs": "run_page",
    "render_track": "track_page",
}


def __getattr__(name: str) -> Any:
    if name in __all__:  # imported when used: it takes a second
        return getattr(import_module(f"bench.report.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
