"""Resolving a search: the records of its trials choose the winners, whose cells join the recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bench.recipe import Point, Recipe
from bench.recipe.search import Searched
from bench.records import Results
from bench.search.choice import winners
from bench.search.outcome import outcome


def resolve(recipe: Recipe, runs: Results) -> Recipe:
    """Return a recipe with the winners of its search, for each method whose trials have all ended.

    Winners depend only on trials, which are evaluated on held-out training images, never on a test set. The
    same records give the same winners. A recipe without a search is returned unchanged.
    """
    if recipe.search is None:
        return recipe
    budgets = recipe.search.section.ks
    search = replace(
        recipe.search, methods=tuple(_resolved(one, budgets, runs) for one in recipe.search.methods)
    )
    points: dict[str, Point] = {}
    for fields in (*search.trials(), *search.finals()):  # two labels may have the same cell
        point = Point(*fields)
        points.setdefault(point.cell.id, point)
    return replace(recipe, search=search, points=tuple(points.values()))


def _resolved(one: Searched, budgets: Sequence[int], runs: Results) -> Searched:
    outcomes = [outcome(trial.cells, runs) for trial in one.trials]
    if not all(trial.ended for trial in outcomes):
        return one
    scores = tuple(trial.score for trial in outcomes)
    return replace(one, scores=scores, winners=winners(scores, budgets))
