"""Times a small grid from start to last record: runs one after another as in the papers' code, and `run`.

The runs are two methods with several seeds, ResNet-20 on photographs, evaluated after every epoch. The
papers' side trains and evaluates each with their loop and writes nothing. Ours is the launcher as called by
`run`, with checkpoints, records and logs. It also reports the time of a run to its first step, without the
first runs, and the overhead: the time of the processes that is neither a step nor evaluation, per run and as
a share, with the server's start. The overhead is constant, so that longer runs have a smaller share.

    python benchmarks/grid.py
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from augment import photographs
from common import CORES, CUDA, PHOTOS, clocked, load_average, make_cell, official, write
from PIL import Image

from bench.cell import Cell
from bench.data.split.load import load
from bench.launch.local import run_grid
from bench.method import Method
from bench.rundir import RunDir

METHODS = ("ce", "ldam_drw")
CLASSES = 10


def write_photographs(data: Path, images: int) -> None:
    """Write a folder tree of photographs, the same number in each class."""
    for part, count in (("train", images), ("test", images // 4)):
        for number, photo in enumerate(photographs(count, 32)):
            folder = data / "photographs" / part / f"class{number % CLASSES}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(photo).save(folder / f"{number}.png")


# -- the papers' side -----------------------------------------------------------------------------------
def one_by_one(cells: list[Cell], data: Path) -> None:
    """Train and evaluate the cells one after another, in one process with torch's default threads."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_one_by_one, args=(cells, data))
    process.start()
    process.join()
    assert process.exitcode == 0


def _one_by_one(cells: list[Cell], data: Path) -> None:
    device = "cuda" if CUDA else "cpu"
    for cell in cells:
        split = load(cell.dataset, cell.imbalance_factor, data)
        seen = 0
        for method, count in official(cell, split, min(CORES, 8), device):  # type: ignore[arg-type]
            seen += count
            if seen == len(split.labels):
                seen = 0
                _evaluate(method, split.test_images, device)  # type: ignore[attr-defined]


@torch.no_grad()
def _evaluate(method: Method, images: torch.Tensor, device: str) -> None:
    method.eval()
    for part in images.split(100):
        method((part.float() / 255).to(device)).argmax(dim=1).tolist()
    method.train()


# -- our side -------------------------------------------------------------------------------------------
def by_launcher(cells: list[Cell], where: Path, data: Path) -> dict[str, float]:
    """Run the cells and return the wall time and the overhead."""
    begun: dict[str, float] = {}
    ended: dict[str, float] = {}

    def listen(cell: Cell, event: str, detail: dict[str, Any]) -> None:
        if event in ("started", "done"):
            (begun if event == "started" else ended)[cell.run_id] = time.monotonic()

    started = time.monotonic()
    ends = run_grid(cells, where, data, gpus=("0",) if CUDA else (), listen=listen, worker=clocked)
    seconds = time.monotonic() - started
    assert {end.status for end in ends.values()} == {"done"}, ends
    clocks = [
        tuple(map(float, (RunDir(where, cell.run_id).path / "clock.txt").read_text().split()))
        for cell in cells
    ]
    starts = [first - begun[cell.run_id] for cell, (first, _) in zip(cells, clocks, strict=True)]
    costs = [
        ended[cell.run_id] - begun[cell.run_id] - training
        for cell, (_, training) in zip(cells, clocks, strict=True)
    ]
    processes = 1 if CUDA else min(CORES, len(cells))
    return {
        "seconds": seconds,
        "start_to_first_step": statistics.median(starts[processes:] or starts),
        "suite_seconds_per_run": statistics.median(costs[processes:] or costs),
        "suite_share": 1 - sum(training for _, training in clocks) / (processes * seconds),
    }


def main() -> None:
    """Measure, print a table and write it as JSON."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--images", type=int, default=8000, help="before the long tail is cut")
    arguments.add_argument("--epochs", type=int, default=3)
    arguments.add_argument("--seeds", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=1)
    arguments.add_argument("--output", type=Path)
    options = arguments.parse_args()
    load_before = load_average()
    cells = [
        make_cell(method, "crop_flip", "resnet20_cifar", seed=seed, protocol={"epochs": options.epochs})
        for method in METHODS
        for seed in range(options.seeds)
    ]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch)
        write_photographs(data, options.images)
        images = len(load(PHOTOS, 100.0, data).labels)  # and so it is decoded for both sides
        print(
            f"{CORES} cores, load average {load_before}; "
            f"{len(cells)} runs of {options.epochs} epochs of {images} images"
        )
        for number in range(options.rounds):
            started = time.monotonic()
            one_by_one(cells, data)
            rows.append({"side": "papers, one by one", "seconds": time.monotonic() - started})
            rows.append({"side": "ours", **by_launcher(cells, data / f"results{number}", data)})
    for row in rows:
        text = f"{row['side']:24}{row['seconds']:8.1f} s"
        if "suite_share" in row:
            ratio = rows[0]["seconds"] / row["seconds"]
            text += f"  x{ratio:.2f}; to a first step {row['start_to_first_step']:.2f} s; "
            text += f"the suite {row['suite_seconds_per_run']:.2f} s per run, "
            text += f"{100 * row['suite_share']:.1f} % of the time"
        print(text)
    write("grid", options, rows, [load_before, load_average()])


if __name__ == "__main__":
    main()
