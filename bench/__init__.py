"""longtail-bench: recipes in, an honest leaderboard out.

`bench.load_results("results")` gives every run as one row of a pandas table. Nothing here imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.records import load_results

__all__ = ["load_results"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from bench import records

        return getattr(records, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
