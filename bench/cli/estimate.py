"""The training time of cells at the speed of past runs on this device."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bench import registry
from bench.cell import Cell
from bench.errors import BenchError
from bench.launch.checks import training_images
from bench.records import Results


class Pace:
    """Images per second of a core or a GPU in past runs; `problems` are those with the data of new runs.

    The speed of a GPU that runs shared is their speed times their number.
    """

    def __init__(self, results: Path, data: Path, on_gpu: bool) -> None:
        from bench.train.describe import environment

        self.data = data
        self.problems: dict[str, None] = {}
        device = environment("cuda" if on_gpu else "cpu")["device"]
        self.past: dict[tuple[str, ...], list[float]] = {}
        for run in Results(results):
            if run.state.status == "done" and run.record["environment"]["device"] == device:
                timing, cell = run.record["timing"], run.cell
                backbone, size = cell.backbone.name, str(cell.dataset.image_size)
                if timing["images_per_second"] is not None:
                    pace = timing["images_per_second"] * timing.get("runs_at_once", 1)
                    alike = (cell.method.name, backbone, size, cell.mode)
                    self.past.setdefault(alike, []).append(pace)
                    self.past.setdefault((backbone, size), []).append(pace)

    def seconds(self, cell: Cell) -> float | None:
        """Estimate the training time from runs of its method, or else its backbone, on images as large."""
        if not registry.find(cell.method.name).build.trains:
            return 0.0
        try:
            images = training_images(cell, self.data) * cell.protocol.epochs
        except BenchError as error:
            self.problems[str(error)] = None
            return None
        backbone, size = cell.backbone.name, str(cell.dataset.image_size)
        alike = (cell.method.name, backbone, size, cell.mode)
        paces = sorted(self.past.get(alike) or self.past.get((backbone, size)) or [])
        return images / paces[len(paces) // 2] if paces else None


def total(times: Mapping[str, float | None], cells: Mapping[str, Cell], slots: int) -> float:
    """Estimate how long runs take on a number of cores or GPUs; runs of unknown time are left out."""
    known = {run_id: seconds or 0.0 for run_id, seconds in times.items()}
    chains = (sum(known.get(member.run_id, 0.0) for member in cells[r].family()) for r in known)
    return max(sum(known.values()) / slots, max(chains, default=0.0))
