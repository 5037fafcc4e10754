"""Writes a run's folder for the Hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from bench.files import write_text
from bench.hub import card, copy_files, timm_form, with_weights
from bench.result import Result
from bench.train.checkpoint import restored


def write(run: Result, folder: Path, repo: str, licence: str) -> bool:
    """Write a finished run, its card and its configuration; return whether timm can load it too.

    It replaces what `push` wrote there before.

    Raises:
        BenchError: the run is not done, or its weights are missing or damaged.
    """
    directory, record, cell = with_weights(run), run.record, run.cell
    method = restored(directory, cell, record)
    if (folder / "record.json").exists():
        shutil.rmtree(folder)
    copy_files(directory.path, folder)
    names = record["data"]["class_names"]
    model = timm_form.timm_form(cell, method)
    if model is None:
        config = {
            "library": "longtail-bench",
            "method": cell.method.name,
            "backbone": cell.backbone.name,
            "num_classes": len(names),
            "label_names": names,
            **timm_form.preprocessing(cell.dataset),
        }
        write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    else:
        timm_form.save(model, cell, folder, names, licence)
    write_text(folder / "README.md", card.write(run, repo, licence, timm_form=model is not None))
    return model is not None
