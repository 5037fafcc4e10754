"""What `run`, `rerun` and `plan` share: a recipe's cells, current data and code, GPUs, and summaries."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from bench.cli.common import SOME_FAILED, console, print_line
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.cell import Cell
    from bench.recipe import Recipe as Grid
    from bench.records import Results
    from bench.rundir import State
    from bench.search.record import SearchRecord
    from bench.stale import Now


def read_cells(
    recipe: Path, only: list[str] | None, sets: list[str] | None, runs: Results
) -> tuple[Grid, list[Cell]]:
    """Return a recipe, with the winners of its search so far, and the chosen cells."""
    from bench import load_recipe
    from bench.search.resolve import resolve

    grid = resolve(load_recipe(recipe, sets or ()), runs)
    return grid, [point.cell for point in grid.only(only or ()).points]


def labels_of(grid: Grid) -> dict[str, str]:
    return {point.cell.run_id: point.label for point in grid.points}


def print_search(search: SearchRecord, cells: Iterable[Cell], runs: Results, prefix: str = "") -> None:
    """Print the progress of both phases of a search."""
    from bench.search.outcome import progress

    print_line(prefix + progress(search, cells, runs))


def as_now(data: Path, methods: list[Path] | None = None) -> Now:
    """Return the current data and code, with the given methods files."""
    from bench import registry
    from bench.stale import Now

    registry.load_files(methods or ())
    return Now(data, registry.sources())


@dataclass(frozen=True)
class Todo:
    """What is to be trained.

    Attributes:
        cells: what is trained unless it is done.
        over: ids of runs that are trained once more, whatever their state.
        again: these, and those that an earlier command began to train once more.
        remarks: what the checks found that is no fault.
    """

    cells: list[Cell]
    over: list[str]
    again: set[str]
    remarks: list[str]


def todo(asked: Sequence[Cell], runs: Results, data: Path, *, retrain_stale: bool, force: bool) -> Todo:
    """Find what is to be trained of the asked cells, and check it: one error now, not one in each run.

    Raises:
        BenchError: earlier runs had other images of a data set's name, or a backbone, data set or method of a
            cell that would be trained has a fault.
    """
    from bench.cell import families
    from bench.cli.estimate import check
    from bench.launch.rerun import pending
    from bench.stale import SETTLED, refuse_other_content, to_train

    known = runs.states(families(asked).values())
    if runs.now is not None:
        refuse_other_content(asked, runs, runs.now)
    begun = pending(runs.root, known)
    cells, over = to_train(asked, known, retrain_stale=retrain_stale, force=force, begun=begun)
    again = {*over, *begun}
    checked = [cell for cell in cells if cell.run_id in again or known[cell.run_id].status not in SETTLED]
    return Todo(cells, over, again, check(checked, data))


def gpus_of(chosen: str | None) -> list[str]:
    """Return the GPUs as `CUDA_VISIBLE_DEVICES` names them."""
    if chosen == "none":
        return []
    import torch

    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count)))).split(",")[:count]
    if chosen is None:
        return visible
    wanted = chosen.split(",")
    if not {*wanted} <= {*map(str, range(len(visible)))} or len({*wanted}) < len(wanted):
        raise BenchError(
            f"--gpus {chosen}: there are {count} GPUs here; write each once, 0,1 for example, or none"
        )
    return [visible[int(number)] for number in wanted]


def print_retrained(parents: Sequence[str]) -> None:
    """Print which committed parents are trained again."""
    for parent in parents:
        print_line(f"again   {parent}: its weights are not here, and a run starts from them")


def print_stale(known: Mapping[str, State]) -> None:
    """Print which runs are stale, and why."""
    for run_id, state in known.items():
        if state.status == "stale":
            line = f"[red]stale[/]   {escape(run_id)}: {escape(state.reason or '')}"
            console().print(line, soft_wrap=True, highlight=False)


def sum_up(ends: Mapping[str, State]) -> int:
    """Print how many runs ended in each state, and return the exit code."""
    seen = Counter[str](state.status for state in ends.values())
    words = {"running": "running elsewhere"}
    counts = ", ".join(f"{n} {words.get(status, status)}" for status, n in seen.most_common())
    print_line(f"runs    {counts}", wrap=True)
    print_stale(ends)
    if seen["failed"] or seen["unreadable"]:
        print_line(
            "--retry-failed trains failed runs again; the full error is in each run's log.txt", wrap=True
        )
    bad = ("stale", "failed", "unreadable", "blocked", "interrupted", "missing")
    return SOME_FAILED if any(seen[status] for status in bad) else 0
