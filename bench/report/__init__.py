"""What is shown of measured results: pages and tables made from records; never imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.report.recipe_page import render_recipe

__all__ = ["render_recipe"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # not before it is wanted: drawing takes a second to import
        from bench.report import recipe_page

        return getattr(recipe_page, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
