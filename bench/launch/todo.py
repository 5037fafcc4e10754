"""What a launch is prepared by: the current data and code, the cells to train, and the GPUs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.cell import Cell
    from bench.records import Results
    from bench.stale import Now


def as_now(data: Path, methods: Iterable[Path] = ()) -> Now:
    """Return the current data and code, with the given methods files."""
    from bench import registry
    from bench.stale import Now

    registry.load_files(methods)
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
    from bench.launch.checks import check
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


def gpus_of(chosen: str | Sequence[str | int] | None) -> list[str]:
    """Return GPUs as `CUDA_VISIBLE_DEVICES` names them; they are chosen by their places in it.

    Args:
        chosen: "0,1" or [0, 1]; None: all; "none", or an empty list: none.
    """
    if chosen == "none" or (chosen is not None and not chosen):
        return []
    import torch

    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count)))).split(",")[:count]
    if chosen is None:
        return visible
    wanted = chosen.split(",") if isinstance(chosen, str) else [str(gpu) for gpu in chosen]
    if not {*wanted} <= {*map(str, range(len(visible)))} or len({*wanted}) < len(wanted):
        raise BenchError(
            f"--gpus {','.join(wanted)}: there are {count} GPUs here; write each once, as in 0,1, or none"
        )
    return [visible[int(number)] for number in wanted]
