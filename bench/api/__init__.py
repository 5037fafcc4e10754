"""The suite from Python: each function is an attribute of `bench`, and imports what it needs when called."""

from bench.api.pieces import build_method, long_tail, methods, score
from bench.api.runs import compare, load_leaderboard, load_model, load_recipe, load_results, run

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
