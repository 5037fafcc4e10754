"""`search:` of a recipe: ranges of hyper-parameters, and as many trials of every method.

* `budgets`: k, how many settings are tried of each method, the same for all; or a list of such numbers.
* `held_out`: the training images that trials are scored on, so many of each class, or a share of its images
  (see `DataSet`). A tail that is cut starts that much lower.
* `seed`: of the trials, one or several, 0 by default; the recipe's own are those of the winners.
* `space`: key -> range, of all methods; a key is `protocol.*` or `params.*`, a range as of
  `bench.search.space`.
* `methods`: label -> the same of one method, laid over `space`; null takes a key out.

The first setting of a method is what the recipe says, or the card that it takes: a budget of 1 tunes nothing.
A label with `from:` is searched together with what it starts from: its n-th trial starts from the n-th one of
its parent, and so does what wins. A trial differs from the cell that would win by what is held out, and by
its seed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.cell import Cell, DataSet
from bench.errors import BenchError
from bench.recipe.axes import MOST_CELLS, Point
from bench.recipe.grid import Expansion
from bench.recipe.schema import each, parse
from bench.recipe.spaces import SearchSection, Setting, Spaces
from bench.recipe.tree import Node, merge, plant
from bench.search.outcome import SCORE
from bench.search.record import MethodRecord, SearchRecord, TrialRecord, WinnerRecord

#: Points of the grid that differ in nothing but their seed, by their numbers.
Place = tuple[int, ...]


@dataclass(frozen=True)
class Trial:
    """A setting of a method and of what it starts from, and the cells that try it, one of each seed."""

    setting: Mapping[str, Any]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Searched:
    """What is tried of a label at one place.

    Attributes:
        trials: in the order of their draws, the middle first.
        scores: of the trials, in percent, None for one that failed; empty until all have ended.
        winners: by budget the number of the draw that wins, from 1.
    """

    label: str
    place: Place
    trials: tuple[Trial, ...]
    scores: tuple[float | None, ...] = ()
    winners: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Search:
    """A recipe's search: what is tried of each method, and the cells of what wins.

    Attributes:
        draws: by the number of a draw, what is laid over the cells.
    """

    section: SearchSection
    methods: tuple[Searched, ...]
    expansion: Expansion
    draws: tuple[Mapping[tuple[int, str], Node], ...]

    def trials(self) -> Iterator[tuple[str, Cell, str]]:
        """Yield label, cell and searched label of each trial."""
        for one in self.methods:
            for draw, trial in enumerate(one.trials, start=1):
                yield from ((f"{one.label}-trial{draw}", cell, one.label) for cell in trial.cells)

    def finals(self) -> Iterator[tuple[str, Cell, dict[str, str], str]]:
        """Yield label, cell, controls and searched label of what won, and of its controls.

        A label says which budgets it won: `ce-k4+16`.
        """
        for one in self.methods:
            for draw in dict.fromkeys(one.winners.values()):
                budgets = "+".join(str(k) for k, won in one.winners.items() if won == draw)
                for label, cell, controls in self._finals(one, draw):
                    yield f"{label}-k{budgets}", cell, controls, one.label

    def _finals(self, one: Searched, draw: int) -> Iterator[tuple[str, Cell, dict[str, str]]]:
        expansion = self.expansion.under(self.draws[draw - 1])
        controls = [stage.label for stage in expansion.stages.values() if stage.control_of == one.label]
        for number in one.place:
            cells = {label: expansion.cell(number, label) for label in (one.label, *controls)}
            for label, cell in cells.items():
                yield label, cell, expansion.controls_of(number, label) if label == one.label else {}

    def record(self) -> SearchRecord:
        """Return what was tried and what won, for the grid file."""
        methods = tuple(self._record(one) for one in self.methods)
        return SearchRecord(
            budgets=self.section.ks, held_out=self.section.held_out, score=SCORE, methods=methods
        )

    def _record(self, one: Searched) -> MethodRecord:
        scores = one.scores or (None,) * len(one.trials)
        trials = [
            TrialRecord(setting=dict(trial.setting), runs=tuple(c.run_id for c in trial.cells), score=score)
            for trial, score in zip(one.trials, scores, strict=True)
        ]
        winners = []
        for budget, draw in one.winners.items():
            runs = tuple(cell.run_id for label, cell, _ in self._finals(one, draw) if label == one.label)
            winners.append(WinnerRecord(budget=budget, draw=draw, runs=runs))
        first = one.trials[0].cells[0]
        return MethodRecord(
            label=one.label,
            dataset=first.dataset.name,
            imbalance_factor=first.imbalance_factor,
            backbone=first.backbone.name,
            seeds=len(one.place),
            trials=tuple(trials),
            winners=tuple(winners),
        )


def read_search(root: Node) -> Search:
    """Read `search:` of a recipe whose sections are sound, and draw its trials.

    Raises:
        BenchError: the recipe or the section is wrong, each mistake in a line of its own.
    """
    node = root.mapping["search"]
    section = parse(SearchSection, node)
    expansion = Expansion(root)
    expansion.cells()
    stages = {label: stage for label, stage in expansion.stages.items() if stage.control_of is None}
    places, most = _places(expansion.points), max(section.ks)
    if (size := len(places) * len(stages) * most * len(section.seeds)) > MOST_CELLS:
        raise node.fault(f"makes {size:,} trials; the most is {MOST_CELLS:,}")
    spaces = Spaces(node, stages)
    pairs = [(place, label) for label in stages for place in places]
    drawn = each(lambda pair: spaces.draw(pair[1], expansion.made[pair[0][0], pair[1]], most), pairs)
    settings = dict(zip(pairs, drawn, strict=True))
    laid: list[dict[tuple[int, str], Node]] = [{}]  # the middle is what the recipe says
    for draw in range(1, most):
        changes = {pair: spaces.changes(pair[1], of[draw]) for pair, of in settings.items()}
        laid.append({(n, label): over for (place, label), over in changes.items() for n in place})
    points = [_held_out(expansion.points, section.held_out, seed, node) for seed in section.seeds]
    tries = [[expansion.under(over, some) for some in points] for over in laid]

    def searched(place: Place, label: str) -> Searched:
        cells = [tuple(one.cell(place[0], label) for one in of_draw) for of_draw in tries]
        whole = [_with_parents(expansion, settings, place, label, draw) for draw in range(most)]
        return Searched(label, place, tuple(Trial(*pair) for pair in zip(whole, cells, strict=True)))

    seen, kept = set[str](), []
    for place, label in pairs:  # a label whose cell does not change along an axis is searched once
        if (cell := expansion.made[place[0], label]).id not in seen:
            seen.add(cell.id)
            kept.append((place, label))
    try:
        methods = each(lambda pair: searched(*pair), kept)
    except BenchError as error:
        told = (f"{line}; a trial has it: narrow the range" for line in str(error).split("\n"))
        raise BenchError("\n".join(told)) from None
    return Search(section, tuple(methods), expansion, tuple(laid))


def _places(points: Sequence[Point]) -> list[Place]:
    found = dict[str, list[int]]()
    for number, point in enumerate(points):
        content = {key: node.plain for key, node in point.items() if key != "seed"}
        found.setdefault(json.dumps(content, sort_keys=True), []).append(number)
    return [tuple(numbers) for numbers in found.values()]


def _with_parents(
    expansion: Expansion,
    settings: Mapping[tuple[Place, str], Sequence[Setting]],
    place: Place,
    label: str,
    draw: int,
) -> Setting:
    """Return a label's setting with those of what it starts from, under their labels."""
    whole = dict(settings[place, label][draw])
    for parent in expansion.stages[label].parents:
        theirs = _with_parents(expansion, settings, place, parent, draw)
        whole |= {key if ": " in key else f"{parent}: {key}": value for key, value in theirs.items()}
    return whole


def _held_out(points: Sequence[Point], held_out: int | float, seed: int, node: Node) -> list[Point]:
    """Return the grid's points as trials of one seed have them."""
    at = node.mapping["held_out"]

    def smaller(point: Point) -> Point:
        dataset = DataSet.model_validate_json(json.dumps(point["dataset"].plain))
        if dataset.held_out is not None:
            raise at.fault(f"{dataset.name} is scored on held-out images already; name another one in grid:")
        changes: dict[str, Any] = {"held_out": held_out}
        if dataset.n_max is not None:
            share = held_out if isinstance(held_out, float) else held_out / dataset.n_max
            changes["n_max"] = round(dataset.n_max * (1 - share))
            if changes["n_max"] < 1:
                raise at.fault(
                    f"takes all {dataset.n_max} images of the largest class of {dataset.name}; lower it"
                )
        tree = merge(point["dataset"], plant(changes, at))
        return {**point, "dataset": tree, "seed": plant(seed, node)}

    return each(smaller, points)
