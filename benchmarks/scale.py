"""Times the commands that show results: CPU seconds on synthetic records of many runs.

The records are complete lines of the ledger, of the published methods with five seeds each on CIFAR-10-LT and
CIFAR-100-LT. Each command runs in its own process, whose start is included.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from bench import ledger, published
from bench.cell import BackboneChoice, Cell, MethodChoice, Protocol
from bench.data.sets.catalogue import DATASETS
from bench.data.split.longtail import exponential
from bench.files import write_text
from bench.gridfile import write_grid
from bench.metrics import confusion_matrix, score

ROOT = Path(__file__).parents[1]
SEEDS = 5

LOAD = "import sys, bench; print(len(bench.load_results(sys.argv[1])))"
INDEX = """
import sys
from pathlib import Path
from bench.records import Results
from bench.leaderboard import gather
from bench.report.index_page import render_index
from bench.report.recipe_page import render_recipe
runs, reports = Results(Path(sys.argv[1])), Path(sys.argv[2])
render_index(gather(runs), reports)
render_recipe(runs, next(iter(runs.grids)), reports)
"""
COMMAND = [sys.executable, str(ROOT / "run_bench.py")]


def cells() -> Iterator[tuple[str, Cell]]:
    """Generate cells with their recipes; the first 500 are of one league."""
    names = published.load_methods().index
    points = itertools.product((200, 400, 100), ("cifar100", "cifar10"), (100.0, 50.0, 10.0))
    for epochs, dataset, factor in points:
        for name, seed in itertools.product(names, range(SEEDS)):
            yield (
                f"{dataset}_{epochs}_epochs",
                Cell(
                    method=MethodChoice(name=name),
                    dataset=DATASETS[dataset],
                    imbalance_factor=factor,
                    backbone=BackboneChoice(name="resnet32_cifar"),
                    protocol=Protocol(epochs=epochs),
                    seed=seed,
                ),
            )


def record(cell: Cell, rng: np.random.Generator) -> dict[str, Any]:
    """Generate a cell's record, from random logits of ten test images per class."""
    classes = 100 if cell.dataset.source == "cifar100" else 10
    counts = exponential(cell.dataset.n_max or 500, cell.imbalance_factor, classes)
    labels = np.repeat(np.arange(classes), 10)
    logits = rng.normal(size=(len(labels), classes)).astype(np.float32)
    logits[np.arange(len(labels)), labels] += 1.5 + rng.normal(0, 0.2)
    metrics = score(logits, labels, np.array(counts), cell.dataset.shots)
    best = {name: metrics[name] for name in ("accuracy", "many", "medium", "few")}  # type: ignore[literal-required]
    return {
        "run_id": cell.run_id,
        "cell": cell.model_dump(mode="json"),
        "method": {"name": cell.method.name, "title": cell.method.name.upper(), "family": "made up",
                   "venue": "Nowhere", "year": 2020, "paper": "https://example.org", "views": ["main"],
                   "reconstruction": False, "pretrained": False, "scores": "train_prior", "experts": 1},
        "data": {"title": cell.dataset.title, "fingerprint": {"train": "0" * 16, "test": "1" * 16},
                 "class_names": [f"class {c}" for c in range(classes)],
                 "class_counts": np.asarray(counts).tolist(), "test_counts": [10] * classes},
        "model": {"parameters": 464154, "inference_parameters": 464154},
        "metrics": {"selection": "last_epoch", "epoch": cell.protocol.epochs - 1, **metrics},
        "best_on_test": {"epoch": 7, **best},
        "confusion": confusion_matrix(logits.argmax(axis=1), labels, classes).tolist(),
        "files": {name: f"{rng.integers(2**60):064x}" for name in ("logits.npz", "weights.safetensors")},
        "timing": {"images_per_second": 15000.0, "wall_seconds": 180.0, "peak_memory_mb": 900.0,
                   "device_seconds": 100 + 80 * rng.random(), "finished": "2026-01-02T03:04:05+00:00"},
        "environment": {"git": "abc", "python": "3.11", "torch": "2.13", "device": "Some CPU"},
    }  # fmt: skip


def fill(results: Path, runs: int) -> None:
    """Fill a results folder with so many finished runs, and their grid files."""
    rng = np.random.default_rng(0)
    known = {}
    asked: dict[str, list[dict[str, Any]]] = {}
    for recipe, cell in itertools.islice(cells(), runs):
        made = record(cell, rng)
        epochs = range(cell.protocol.epochs)
        curve = [{"epoch": e, "loss": 1 / (e + 1), "lr": 0.1, "seconds": 0.5} for e in epochs]
        content = ledger.packed(made, curve, rng.random(sum(made["data"]["test_counts"])) < 0.5)
        known[cell.run_id] = content["cell"]["dataset"]["name"], ledger.written(content)
        row = {"run_id": cell.run_id, "label": cell.method.name, "cell": made["cell"]}
        asked.setdefault(recipe, []).append(row)
    for dataset in {dataset for dataset, _ in known.values()}:
        lines = (known[i][1] + "\n" for i in sorted(known) if known[i][0] == dataset)
        write_text(results / "records" / f"{dataset}-resnet32_cifar.jsonl", "".join(lines))
    for recipe, rows in asked.items():
        write_grid(results, recipe, {"recipe": recipe, "title": recipe, "notes": "", "cells": rows})


def seconds(*command: object) -> float:
    """Return the CPU seconds of a command."""

    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before = spent()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, env=environment)
    return round(spent() - before, 2)


def main() -> None:
    """Measure, print, and write benchmarks/results/scale.json."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--runs", type=int, nargs="+", default=[500, 10_000])
    arguments.add_argument("--pages", type=int, default=581, help="runs of which all pages are written")
    arguments.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "scale.json")
    options = arguments.parse_args()
    rows = []

    def measured(what: str, runs: int, *command: object) -> None:
        rows.append({"what": what, "runs": runs, "cpu_seconds": seconds(*command)})
        print(f"{rows[-1]['cpu_seconds']:8.2f} s  {what}, {runs:,} runs", flush=True)

    for runs in options.runs:
        with tempfile.TemporaryDirectory() as folder:
            results, reports = Path(folder) / "results", Path(folder) / "reports"
            fill(results, runs)
            measured("load_results", runs, sys.executable, "-c", LOAD, results)
            measured("status", runs, *COMMAND, "status", "--results", results)
            measured("report: index, one recipe page", runs, sys.executable, "-c", INDEX, results, reports)
    if options.pages:
        with tempfile.TemporaryDirectory() as folder:
            results, reports = Path(folder) / "results", Path(folder) / "reports"
            fill(results, options.pages)
            command = (*COMMAND, "report", "--results", results, "--reports", reports)
            measured("report: everything", options.pages, *command)
    load, today = round(os.getloadavg()[0], 2), datetime.now(UTC).date().isoformat()
    content = {"load_average": load, "cores": os.cpu_count(), "date": today, "rows": rows}
    write_text(options.output, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
