"""The table of runs: its columns, and how a run becomes a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench import metrics
from bench.errors import BenchError
from bench.json_text import canonical
from bench.metrics import METRICS
from bench.rundir import first_line

if TYPE_CHECKING:
    import pandas as pd

    from bench.result import Result

#: Type of each column, and the path of its value in a cell or a record.
COLUMNS = {
    "dataset": ("string", "cell.dataset.name"),
    "imbalance_factor": ("Float64", "cell.imbalance_factor"),
    "held_out": ("Float64", "cell.dataset.held_out"),
    "profile": ("string", "cell.dataset.profile"),
    "split_seed": ("Int64", "cell.dataset.split_seed"),
    "class_order": ("Int64", "cell.dataset.class_order"),
    "label_noise": ("Float64", "cell.dataset.label_noise"),
    "method": ("string", "cell.method.name"),
    "version": ("Int64", "cell.method.version"),
    "params": ("string", "cell.method.params"),
    "backbone": ("string", "cell.backbone.name"),
    "backbone_options": ("string", "cell.backbone.options"),
    "seed": ("Int64", "cell.seed"),
    "mode": ("string", "cell.mode"),
    **{name: ("Float64", f"metric.{name}") for name in METRICS},
    "best_accuracy": ("Float64", "best_on_test.accuracy"),
    "best_epoch": ("Int64", "best_on_test.epoch"),
    "chosen_accuracy": ("Float64", "best_on_validation.accuracy"),
    "chosen_epoch": ("Int64", "best_on_validation.epoch"),
    "epochs": ("Int64", "cell.protocol.epochs"),
    "batch_size": ("Int64", "cell.protocol.batch_size"),
    "lr": ("Float64", "cell.protocol.optimizer.lr"),
    "augmentation": ("string", "augmentation"),
    "experts": ("Int64", "method.experts"),
    "parameters": ("Int64", "model.parameters"),
    "inference_parameters": ("Int64", "model.inference_parameters"),
    "fingerprint_train": ("string", "data.fingerprint.train"),
    "fingerprint_test": ("string", "data.fingerprint.test"),
    "fingerprint_extra_train": ("string", "data.fingerprint.extra_train"),
    "extra_train": ("string", "cell.dataset.extra_train.name"),
    "extra_data": ("string", "cell.dataset.extra_train.kind"),
    "images_per_second": ("Float64", "timing.images_per_second"),
    "wall_seconds": ("Float64", "timing.wall_seconds"),
    "device_seconds": ("Float64", "timing.device_seconds"),
    "peak_memory_mb": ("Float64", "timing.peak_memory_mb"),
    "device": ("string", "environment.device"),
    "precision": ("string", "precision"),
    "finished": ("string", "timing.finished"),
    "copy_of": ("string", "data.copy_of"),
    "copy_kind": ("string", "data.copy_kind"),
    "comparable": ("boolean", "data.comparable"),
    "title": ("string", "method.title"),
    "family": ("string", "method.family"),
    "paper": ("string", "method.paper"),
    "reconstruction": ("boolean", "method.reconstruction"),
}

#: Paths that begin with an attribute of `Result`; all others are paths in a record.
_OWN = ("cell", "augmentation", "precision")


def row(run: Result) -> dict[str, Any]:
    """Return the row of a run, each value in the type of its column; of an unreadable run what is known."""
    values: dict[str, Any] = {"run_id": run.run_id, "id": run.run_id.rpartition("-")[2]}
    values |= vars(run.state)
    try:
        parent = run.cell.parent
        values |= {"series": run.series, "parent": parent and parent.run_id}
        values |= {name: _value(run, *column) for name, column in COLUMNS.items()}
    except (BenchError, AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        if run.state.status != "unreadable":
            reason = f"record.json: {first_line(error)}"
            if isinstance(error, BenchError):  # which names the file
                reason = str(error).replace(f"{run.directory.path}/", "")
            values |= {"status": "unreadable", "reason": reason}
    return values


def table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return rows as a typed table; with a `label` where the rows have one."""
    import pandas as pd

    types = {"label": "string"} if rows and "label" in rows[0] else {}
    types |= dict.fromkeys(("run_id", "id", "series", "parent", "status", "reason"), "string")
    types |= {name: kind for name, (kind, _) in COLUMNS.items()}
    return pd.DataFrame(rows, columns=list(types)).astype(types)


def _value(run: Result, kind: str, path: str) -> Any:
    """Follow a dotted path, None where it ends early; mappings become compact JSON."""
    first, *rest = path.split(".")
    if first == "metric":
        return metrics.value(rest[0], run.record, lambda: run.confusion)
    content: Any = getattr(run, first) if first in _OWN else run.record.get(first)
    for key in rest:
        if content is None:
            return None
        content = content.get(key) if isinstance(content, dict) else getattr(content, key)
    if content is None:
        return None
    if isinstance(content, dict) and kind == "string":
        return canonical(content)
    value = {"string": str, "boolean": bool, "Int64": int, "Float64": float}[kind](content)
    if isinstance(value, int) and value.bit_length() > 63:
        raise ValueError(f"{path}: too large a number")
    return value
