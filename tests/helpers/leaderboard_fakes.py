"""Made-up tables for tests of the leaderboard: runs as `load_results` gives them, and a small literature."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pandas as pd

from bench import leaderboard, published
from bench.gridfile import Grid
from bench.leaderboard.board import Board, board
from bench.leaderboard.entries import COLUMNS
from bench.records import Results
from bench.result import Result
from bench.rundir import RunDir, State, cell_from

METHODS = """method,title,aliases,stages
ce,CE,,
bcl,BCL,,
ride,RIDE,RIDE (3 experts),
crt,cRT,,ce>crt
"""

#: A published number whose protocol is that of `run()`, field by field.
NUMBER = {
    "dataset": "cifar100",
    "imbalance_factor": "100",
    "method": "bcl",
    "backbone": "resnet32_cifar",
    "width_class": "standard",
    "epochs": "200",
    "weight_decay": "0.0002",
    "augmentation": "autoaug_cutout",
    "experts": "1",
    "selection": "last",
    "pretraining": "none",
    "extra_data": "none",
    "data_copy": "original",
    "metric": "top1",
    "shots": "all",
    "value": "52",
    "reported_by": "BCL",
    "original": "yes",
    "source": "the paper",
    "year": "2022",
    "trust": "text",
}


#: Where a change of `run` belongs: in the cell's parts, or in a block of the record.
_CELL = {"epochs": "protocol", "augmentation": "protocol", "held_out": "dataset", "copy_of": "dataset"}
_CELL |= {"copy_kind": "dataset", "comparable": "dataset", "backbone_options": "backbone"}
_CELL |= {"subsample": "protocol", "shots": "dataset"}
_RECORD = {
    "best_accuracy": ("best_on_test", "accuracy"),
    "few": ("metrics", "few"),
    "experts": ("method", "experts"),
}
_RECORD |= {name: ("data", name) for name in ("copy_of", "copy_kind", "comparable")}


def run(method: str = "bcl", seed: int = 0, accuracy: Any = 52.0, **changes: Any) -> Result:
    """Return one done run: of CIFAR-100-LT, ResNet-32, 200 epochs with AutoAugment and Cutout."""
    parts: dict[str, dict[str, Any]] = {
        "method": {"name": method, "params": changes.pop("params", {})},
        "dataset": {"name": changes.pop("dataset", "cifar100"), "source": "cifar100"},
        "backbone": {"name": changes.pop("backbone", "resnet32_cifar")},
        "protocol": {"epochs": 200, "augmentation": "autoaugment_cutout"},
    }
    parts["method"]["changed"] = sorted(parts["method"]["params"])
    record: dict[str, Any] = {
        "metrics": {"accuracy": accuracy},
        "best_on_test": {},
        "method": {"title": method.upper()},
        "data": {
            "title": None,
            "fingerprint": {"train": changes.pop("fingerprint_train", "aaaa0000"), "test": "bbbb0000"},
        },
        "timing": {"device_seconds": 60.0},
    }
    status, parent = changes.pop("status", "done"), changes.pop("parent", None)
    fields = {"seed": seed, "imbalance_factor": changes.pop("imbalance_factor", 100.0)}
    fields["parent"] = parent and parent.cell.model_dump(mode="json")
    fields["others"] = [other.cell.model_dump(mode="json") for other in changes.pop("others", ())]
    for name, value in changes.items():
        if name in _CELL:
            parts[_CELL[name]][name.removeprefix("backbone_")] = value
        if name in _RECORD:
            block, key = _RECORD[name]
            record[block][key] = value
    cell = cell_from(parts | fields)
    made = Result(RunDir(Path("nowhere"), cell.run_id))
    made.cell, made._local = cell, (State(status), record)
    return made


def table(*runs: Result) -> list[Result]:
    """Return runs as the leaderboard takes them."""
    return list(runs)


def literature(folder: Path, *numbers: dict[str, str], methods: str = METHODS) -> list[dict[str, Any]]:
    """Return a literature of `NUMBER`s, each with its changes."""
    (folder / "methods.csv").write_text(methods, encoding="utf-8")
    with (folder / "published.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*NUMBER, "note"])
        writer.writeheader()
        writer.writerows([NUMBER | number for number in numbers])
    return published.to_rows(published.load(folder=folder))


def whole_literature() -> list[dict[str, Any]]:
    """Return this project's own."""
    return published.to_rows(published.load())


def entries(runs: Any, numbers: Any, external: Any = ()) -> pd.DataFrame:
    """Return the ranked entries of runs, numbers and external predictions as a table."""
    rows = leaderboard.ranked(leaderboard.entries(leaderboard.protocols(runs, numbers), numbers, external))
    types = COLUMNS | {"rank": "Int64", "of": "Int64", "league": "object"}
    return pd.DataFrame(rows, columns=list(types)).astype(types)


def board_of(runs: Any, numbers: Any, *grids: Grid) -> Board:
    """Return the board of runs, numbers and what recipes asked for, that are of no folder."""
    results = Results(Path("nowhere"))
    results.grids = {grid.recipe: grid for grid in grids}
    results._runs = {run.run_id: run for run in runs}
    return board(results, runs, numbers, pd.DataFrame())
