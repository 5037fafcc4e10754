"""Resolving a search: the records of its trials choose the winners, whose cells then are the recipe's too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bench.recipe import Point, Recipe
from bench.recipe.search import Searched
from bench.records import Results
from bench.search.choice import winners
from bench.search.outcome import outcome


def resolve(recipe: Recipe, runs: Results) -> Recipe:
    """Return a recipe with the winners of its search, of each method once all its trials have ended.

    Only trials are looked at, which are scored on held-out training images: never a test set. The same
    records give the same winners. Without a search a recipe is returned as it is.
    """
    if recipe.search is None:
        return recipe
    budgets = recipe.search.section.ks
    search = replace(
        recipe.search, methods=tuple(_resolved(one, budgets, runs) for one in recipe.search.methods)
    )
    trials = [Point(label, cell, {}, of, "search") for label, cell, of in search.trials()]
    finals = [Point(label, cell, controls, of, "final") for label, cell, controls, of in search.finals()]
    points: dict[str, Point] = {}
    for point in (*trials, *finals):  # two labels may come to one cell
        points.setdefault(point.cell.id, point)
    return replace(recipe, search=search, points=tuple(points.values()))


def _resolved(one: Searched, budgets: Sequence[int], runs: Results) -> Searched:
    found = [outcome(trial.cells, runs) for trial in one.trials]
    if not all(trial.ended for trial in found):
        return one
    scores = tuple(trial.score for trial in found)
    return replace(one, scores=scores, winners=winners(scores, budgets))
