"""A check of momentum encoders: is the momentum too high for the number of training steps?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from bench import registry
from bench.cell import Cell
from bench.errors import BenchError
from bench.launch.checks import training_images

#: Horizon of an encoder as a share of the training: the most, and a good one (DSCL's is 1.1 %).
MOST, GOOD = 1 / 5, 1 / 50


def warnings(cells: Iterable[Cell], labels: Mapping[str, str], data: Path) -> list[str]:
    """Return the labels whose momentum is too high for their number of steps, and a value that fits."""
    found: dict[str, None] = {}
    for cell in cells:
        key = registry.find(cell.method.name).build.key_momentum
        if not key:
            continue
        try:
            steps = steps_of(cell, data)
        except BenchError:  # `plan` reports it
            continue
        momentum = float(str(cell.method.params[key]))
        horizon = 1 / max(1 - momentum, 1e-9)
        if horizon > MOST * steps:
            fitting = max(1 - 1 / max(GOOD * steps, 1), 0)
            label = labels.get(cell.run_id, cell.method.name)
            far = f"{label}: params.{key} {momentum:g} looks back over {horizon:,.0f} of {steps:,} steps"
            found[f"{far}, so the key encoder hardly leaves its start; about {fitting:.2g} fits"] = None
    return list(found)


def steps_of(cell: Cell, data: Path) -> int:
    """Count the steps of a cell's training; data that is missing is a `BenchError`."""
    whole, ragged = divmod(training_images(cell, data), cell.protocol.batch_size)
    return (whole + bool(ragged and not cell.protocol.drop_last)) * cell.protocol.epochs
