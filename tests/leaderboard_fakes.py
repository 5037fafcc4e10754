"""Made-up tables for tests of the leaderboard: runs as `load_results` gives them, and a small literature."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pandas as pd

from bench import published
from bench.records import COLUMNS

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


def run(method: str = "bcl", seed: int = 0, accuracy: Any = 52.0, **changes: Any) -> dict[str, Any]:
    """Return one done run as a row."""
    row: dict[str, Any] = {
        "status": "done",
        "series": f"series-{method}",
        "dataset": "cifar100",
        "imbalance_factor": 100.0,
        "method": method,
        "params": "{}",
        "backbone": "resnet32_cifar",
        "backbone_options": "{}",
        "seed": seed,
        "accuracy": accuracy,
        "epochs": 200,
        "augmentation": "autoaugment_cutout",
        "fingerprint_train": "aaaa0000",
        "fingerprint_test": "bbbb0000",
        "title": method.upper(),
        "device_seconds": 60.0,
    } | changes
    return {"run_id": f"{row['series']}-s{seed}-{row['fingerprint_train']}"} | row


def table(*rows: dict[str, Any]) -> pd.DataFrame:
    """Return runs as the table of `bench.load_results`."""
    types = dict.fromkeys(("run_id", "id", "series", "parent", "status", "reason"), "string")
    types |= {name: kind for name, (kind, _) in COLUMNS.items()}
    return pd.DataFrame(list(rows), columns=list(types)).astype(types)


def literature(folder: Path, *numbers: dict[str, str], methods: str = METHODS) -> pd.DataFrame:
    """Return a literature of `NUMBER`s, each with its changes."""
    (folder / "methods.csv").write_text(methods, encoding="utf-8")
    with (folder / "published.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*NUMBER, "note"])
        writer.writeheader()
        writer.writerows([NUMBER | number for number in numbers])
    return published.load(folder=folder)
