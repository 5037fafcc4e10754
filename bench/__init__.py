"""longtail-bench: recipes in, an honest leaderboard out.

The functions are described in `bench.api`; `import bench` imports neither torch nor pandas.
"""

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
