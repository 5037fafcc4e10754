"""What `run`, `rerun` and `plan` share: a recipe's cells, current data and code, GPUs, and summaries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from bench.cli.common import SOME_FAILED, console, print_line

if TYPE_CHECKING:
    from bench.cell import Cell
    from bench.recipe import Recipe as Grid
    from bench.records import Results
    from bench.rundir import State
    from bench.search.record import SearchRecord


def read_cells(
    recipe: Path, only: list[str] | None, sets: list[str] | None, runs: Results
) -> tuple[Grid, list[Cell]]:
    """Return a recipe, with the winners of its search so far, and the chosen cells."""
    from bench import load_recipe
    from bench.search.resolve import resolve

    grid = resolve(load_recipe(recipe, sets or ()), runs)
    return grid, [point.cell for point in grid.only(only or ()).points]


def print_search(search: SearchRecord, cells: Iterable[Cell], runs: Results, prefix: str = "") -> None:
    """Print the progress of both phases of a search."""
    from bench.search.outcome import progress

    print_line(prefix + progress(search, cells, runs))


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
