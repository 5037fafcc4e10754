"""The `plan` command: what a recipe would train, and how long it would take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from bench.cli.common import (
    DATA,
    RESULTS,
    USER_MISTAKE,
    Data,
    Gpus,
    Jobs,
    Methods,
    Only,
    Recipe,
    Results,
    Set,
    coloured,
    console,
    print_line,
    table,
)
from bench.cli.grids import print_search, print_stale, read_cells
from bench.errors import BenchError
from bench.launch.todo import as_now, gpus_of

if TYPE_CHECKING:
    from bench.cell import Cell


def plan(
    recipe: Recipe,
    only: Only = None,
    set_: Set = None,
    methods: Methods = None,
    jobs: Jobs = None,
    gpus: Gpus = None,
    results: Results = RESULTS,
    data: Data = DATA,
) -> None:
    """Show what `run` would train, and how long it would take at the speed of past runs.

    [bold]Examples[/]

    \b
    python run_bench.py plan quick
    python run_bench.py plan quick --only method=ldam --jobs 1
    """
    from bench import records
    from bench.cell import families
    from bench.cli import horizon
    from bench.cli.estimate import Pace
    from bench.launch.local import slots_for
    from bench.launch.rerun import pending
    from bench.report.text import duration
    from bench.stale import refuse_other_content

    slots = slots_for(jobs, gpus_of(gpus))
    now = as_now(data, methods or ())
    runs = records.Results(results, now)
    grid, cells = read_cells(recipe, only, set_, runs)
    labels = grid.labels
    family = families(cells)
    begun = pending(results, family)
    known, retrained = runs.states(family.values()), runs.needed(cells, forced=begun)
    refuse_other_content(cells, runs, now)
    on_gpu = slots[0].gpu is not None
    pace = Pace(results, data, on_gpu)
    several_splits = len({cell.dataset.split_seed for cell in family.values()}) > 1
    split = ("split",) if several_splits else ()
    shown = table(grid.name, "state", "time", "run", "label", *split, numbers=("time", *split))
    times: dict[str, float | None] = {}
    for run_id, cell in family.items():
        state, time = known[run_id], ""
        if state.status in records.AGAIN or run_id in begun or run_id in retrained:
            times[run_id] = pace.seconds(cell)
            time = duration(times[run_id]) + _why(run_id in retrained, run_id in begun)
        label = labels.get(run_id, cell.method.name)
        split_seed = (str(cell.dataset.split_seed),) if several_splits else ()
        shown.add_row(coloured(state.status), time, run_id, escape(label), *split_seed)
    console().print(shown)
    faults, remarks = _found([family[run_id] for run_id in times], data)
    warnings = horizon.warnings(family.values(), labels, data)
    for problem in dict.fromkeys([*pace.problems, *faults, *remarks, *warnings]):
        print_line(problem, "yellow")
    where = f"on {len(slots)} GPUs" if on_gpu else f"{len(slots)} at once"
    summary = f"{len(times)} of {len(family)} runs to train"
    if times and not faults:
        summary += f", {where}: {_time(times, family, len(slots))}"
    print_line(summary, wrap=True)
    if grid.search:
        print_search(grid.search.record(), [point.cell for point in grid.points], runs)
    print_stale(known)
    if faults:
        raise typer.Exit(USER_MISTAKE)


def _why(retrained: bool, begun: bool) -> str:
    """Return why a finished run is trained again, as a note behind its time."""
    if retrained:
        return " (its weights are not here)"
    return " (once more)" if begun else ""


def _found(cells: Sequence[Cell], data: Path) -> tuple[list[str], list[str]]:
    """Return the faults that `run` would refuse, or its remarks."""
    from bench.launch.checks import check

    try:
        return [], check(cells, data)
    except BenchError as error:
        return str(error).split("\n"), []


def _time(times: Mapping[str, float | None], family: Mapping[str, Cell], slots: int) -> str:
    """Return how long runs will take, and how many have an unknown time."""
    from bench.cli.estimate import total
    from bench.report.text import duration

    unknown = sum(seconds is None for seconds in times.values())
    if not unknown:
        return duration(total(times, family, slots))
    if any(times.values()):
        return f"more than {duration(total(times, family, slots))} ({unknown} of unknown time)"
    return f"time unknown, as no run with such a backbone and image size has ended here ({unknown} runs)"
