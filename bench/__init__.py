"""longtail-bench: recipes in, an honest leaderboard out.

From Python, what `bench.api` lists; `import bench` alone imports neither torch nor pandas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.api import (
        build_method,
        compare,
        load_leaderboard,
        load_model,
        load_recipe,
        load_results,
        long_tail,
        methods,
        run,
        score,
    )

__all__ = [
    "build_method",
    "compare",
    "load_leaderboard",
    "load_model",
    "load_recipe",
    "load_results",
    "long_tail",
    "methods",
    "run",
    "score",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from bench import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
