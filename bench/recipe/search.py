"""`search:` of a recipe: ranges of hyper-parameters, and the same number of trials for every method.

* `budgets`: k, the number of settings tried for each method; or a list of such numbers.
* `held_out`: the training images that trials are evaluated on: a number of each class, or a share of its
  images (see `DataSet`). `n_max` of a tail that is drawn is lowered by as many.
* `seed`: seeds of the trials, one or several; default: 0. The recipe's own seeds are those of the winners.
* `space`: key -> range, for all methods; a key is `protocol.*` or `params.*`, a range as in
  `bench.search.space`.
* `methods`: label -> ranges of one method, which override `space`; null removes a key.

The first setting of a method is the recipe's, or its card's: a budget of 1 tunes nothing. A label with
`from:` is searched together with its parent: its n-th trial starts from the parent's n-th trial, and its
winner from the parent's cell with the same draw. A trial differs from the cell of a winner in the held-out
images and the seed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.cell import Cell, DataSet
from bench.errors import BenchError
from bench.recipe.axes import MOST_CELLS, Values
from bench.recipe.grid import Expansion
from bench.recipe.schema import each, parse
from bench.recipe.spaces import SearchSection, Setting, Spaces
from bench.recipe.tree import Node, merge, plant
from bench.search.outcome import METRIC
from bench.search.record import MethodRecord, SearchRecord, TrialRecord, WinnerRecord

#: Indices of points of the grid that differ only in their seed.
Group = tuple[int, ...]


@dataclass(frozen=True)
class Trial:
    """A setting of a method and its parents, and the cells that try it, one for each seed."""

    setting: Mapping[str, Any]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Searched:
    """The trials of a label at one group of points.

    Attributes:
        trials: in the order of their draws, the middle first.
        scores: of each trial in percent, None if it failed; empty until all have ended.
        winners: by budget the number of the draw that wins, from 1.
    """

    label: str
    group: Group
    trials: tuple[Trial, ...]
    scores: tuple[float | None, ...] = ()
    winners: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Search:
    """A recipe's search: the trials of each method, and the cells of the winners.

    Attributes:
        draws: for each draw the changes to the cells.
    """

    section: SearchSection
    methods: tuple[Searched, ...]
    expansion: Expansion
    draws: tuple[Mapping[tuple[int, str], Node], ...]

    def trials(self) -> Iterator[tuple[str, Cell, dict[str, str], str, str]]:
        """Yield label, cell, controls (none), searched label and phase of each trial."""
        for one in self.methods:
            for draw, trial in enumerate(one.trials, start=1):
                for cell in trial.cells:
                    yield f"{one.label}-trial{draw}", cell, {}, one.label, "search"

    def finals(self) -> Iterator[tuple[str, Cell, dict[str, str], str, str]]:
        """Yield the same of the winners and their controls; a label has the budgets it won: `ce-k4+16`."""
        for one in self.methods:
            for draw in dict.fromkeys(one.winners.values()):
                budgets = "+".join(str(k) for k, won in one.winners.items() if won == draw)
                for label, cell, controls in self._finals(one, draw):
                    yield f"{label}-k{budgets}", cell, controls, one.label, "final"

    def _finals(self, one: Searched, draw: int) -> Iterator[tuple[str, Cell, dict[str, str]]]:
        expansion = self.expansion.under(self.draws[draw - 1])
        controls = [spec.label for spec in expansion.specs.values() if spec.control_of == one.label]
        for i in one.group:
            cells = {label: expansion.cell(i, label) for label in (one.label, *controls)}
            for label, cell in cells.items():
                yield label, cell, expansion.controls_of(i, label) if label == one.label else {}

    def record(self) -> SearchRecord:
        """Return trials and winners for the grid file."""
        methods = tuple(self._record(one) for one in self.methods)
        return SearchRecord(
            budgets=self.section.ks, held_out=self.section.held_out, score=METRIC, methods=methods
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
            seeds=len(one.group),
            trials=tuple(trials),
            winners=tuple(winners),
        )


def read_search(root: Node) -> Search:
    """Read `search:` of a recipe with valid sections, and draw its trials.

    Raises:
        BenchError: all mistakes in the recipe or the section, one a line.
    """
    node = root.mapping["search"]
    section = parse(SearchSection, node)
    expansion = Expansion(root)
    expansion.cells()
    specs = {label: spec for label, spec in expansion.specs.items() if spec.control_of is None}
    groups, most = _groups(expansion.points), max(section.ks)
    if (size := len(groups) * len(specs) * most * len(section.seeds)) > MOST_CELLS:
        raise node.fault(f"makes {size:,} trials; the most is {MOST_CELLS:,}")
    spaces = Spaces(node, specs)
    pairs = [(group, label) for label in specs for group in groups]
    drawn = each(lambda pair: spaces.draw(pair[1], expansion.made[pair[0][0], pair[1]], most), pairs)
    settings = dict(zip(pairs, drawn, strict=True))
    draws: list[dict[tuple[int, str], Node]] = [{}]  # the middle is the recipe itself
    for draw in range(1, most):
        changes = {pair: spaces.changes(pair[1], of[draw]) for pair, of in settings.items()}
        draws.append({(i, label): change for (group, label), change in changes.items() for i in group})
    points = [_held_out(expansion.points, section.held_out, seed, node) for seed in section.seeds]
    expansions = [[expansion.under(change, some) for some in points] for change in draws]

    def searched(group: Group, label: str) -> Searched:
        cells = [tuple(one.cell(group[0], label) for one in of_draw) for of_draw in expansions]
        whole = [_with_parents(expansion, settings, group, label, draw) for draw in range(most)]
        return Searched(label, group, tuple(Trial(*pair) for pair in zip(whole, cells, strict=True)))

    # a label whose cell does not change along an axis is searched once
    first = dict[str, tuple[Group, str]]()
    for group, label in pairs:
        first.setdefault(expansion.made[group[0], label].id, (group, label))
    try:
        methods = each(lambda pair: searched(*pair), first.values())
    except BenchError as error:
        lines = (f"{line}; a trial has it: narrow the range" for line in str(error).split("\n"))
        raise BenchError("\n".join(lines)) from None
    return Search(section, tuple(methods), expansion, tuple(draws))


def _groups(points: Sequence[Values]) -> list[Group]:
    found = dict[str, list[int]]()
    for i, point in enumerate(points):
        content = {key: node.plain for key, node in point.items() if key != "seed"}
        found.setdefault(json.dumps(content, sort_keys=True), []).append(i)
    return [tuple(indices) for indices in found.values()]


def _with_parents(
    expansion: Expansion,
    settings: Mapping[tuple[Group, str], Sequence[Setting]],
    group: Group,
    label: str,
    draw: int,
) -> Setting:
    """Return a label's setting with those of its parents, their keys with the parents' labels."""
    whole = dict(settings[group, label][draw])
    for parent in expansion.specs[label].parents:
        inherited = _with_parents(expansion, settings, group, parent, draw)
        whole |= {key if ": " in key else f"{parent}: {key}": value for key, value in inherited.items()}
    return whole


def _held_out(points: Sequence[Values], held_out: int | float, seed: int, node: Node) -> list[Values]:
    """Return the grid's points for trials of one seed."""
    at = node.mapping["held_out"]

    def smaller(point: Values) -> Values:
        dataset = DataSet.model_validate_json(json.dumps(point["dataset"].plain))
        if dataset.held_out is not None:
            raise at.fault(f"{dataset.name} is tested on held-out images already; name another one in grid:")
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
