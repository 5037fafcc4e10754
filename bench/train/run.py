"""Runs one cell from its data to its record; a failed run has a record too."""

from __future__ import annotations

import resource
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import ranks, registry
from bench.cell import Cell
from bench.data.feed.loader import Loader
from bench.data.feed.streaming import loader_for
from bench.data.split.load import Split, load
from bench.errors import BenchError, memory_ran_out, reason_of, traceback_of
from bench.method import Method
from bench.metrics import confusion_matrix, further, score
from bench.rundir import RunDir
from bench.stale import mark, rests_on
from bench.train.adapting import adapted
from bench.train.build import build
from bench.train.checkpoint import read_weights, write_weights
from bench.train.compiled import is_asked, refuse
from bench.train.describe import describe_data, describe_method, describe_model, environment
from bench.train.interleave import Turns, is_own_fault
from bench.train.loop import Report, Training
from bench.train.memory import remedy
from bench.train.precision import OtherPrecisionError, keep_float32, wants_bfloat16


@dataclass(frozen=True)
class Request:
    """One cell to train.

    Attributes:
        run: its directory.
        results: the results folder with its parents.
        report: called with each epoch's line.
        at_once: how many runs share the process and its GPU.
    """

    cell: Cell
    run: RunDir
    results: Path
    data: Path
    device: str
    report: Report
    checkpoint_seconds: float = 30.0
    at_once: int = 1


def run_cell(
    cell: Cell,
    results: Path,
    data: Path,
    device: str = "cpu",
    report: Report = lambda line: None,
    *,
    checkpoint_seconds: float = 30.0,
) -> None:
    """Train and evaluate one cell, from its checkpoint if there is one, and write its record.

    If it fails, the record has the status "failed", the reason and the traceback.

    Raises:
        bench.rundir.Busy: another process runs it.
        OSError: no record can be written, because the disk is full or the directory read-only.
    """
    turns = Turns[str](device)
    turns.add(cell.run_id, steps(cell, results, data, device, report, checkpoint_seconds=checkpoint_seconds))
    for _, error in turns.take():
        if error is not None:
            raise error


def steps(
    cell: Cell,
    results: Path,
    data: Path,
    device: str,
    report: Report,
    at_once: int = 1,
    *,
    checkpoint_seconds: float = 30.0,
) -> Iterator[object]:
    """Do the same as `run_cell`, yielding after each step; `at_once` runs share the process and its GPU.

    Raises:
        Exception: also errors that are not the run's own fault: see `is_own_fault`.
    """
    run = RunDir(results, cell.run_id)
    with run.lock():
        if run.is_done():  # by another launcher, since ours last looked
            return
        run.write_cell(cell)
        request = Request(cell, run, results, data, device, report, checkpoint_seconds, at_once)
        record = yield from recorded_steps(request)
        run.write_record(record)


def recorded_steps(request: Request) -> Generator[object, None, dict[str, Any]]:
    """Train and evaluate one cell, yielding after each step, and return its record."""
    cell, run = request.cell, request.run
    record: dict[str, Any] = {
        "cell": cell.model_dump(mode="json"),
        "environment": {
            **environment(request.device),
            "bfloat16": wants_bfloat16(cell.mode, request.device),
            "ranks": ranks.world(),
        },
    }
    try:
        parents = {
            parent.run_id: RunDir(request.results, parent.run_id).read_record() for parent in cell.parents
        }
        code = registry.find(cell.method.name).source
        record["environment"]["rests_on"] = rests_on(cell, request.data, code, parents) or None
        return record | (yield from _train_and_evaluate(request, record["environment"]))
    except OtherPrecisionError as error:  # it continues on another machine
        return record | {"status": "interrupted", "reason": str(error), "traceback": None}
    except Exception as error:
        own_fault = is_own_fault(error)
        if request.at_once > 1 and not own_fault:
            raise
        traceback = traceback_of(error)
        with suppress(OSError), run.log.open("a", encoding="utf-8") as log:  # where people look first
            log.write(traceback)
        end = {"status": "failed", "reason": _reason(cell, error), "traceback": traceback}
        return record | end | {"own_fault": own_fault}


def _reason(cell: Cell, error: Exception) -> str:
    reason = reason_of(error)
    if memory_ran_out(error) and not isinstance(error, BenchError):
        return f"{remedy(cell, ranks.world())} ({reason.splitlines()[0]})"
    return reason


def _train_and_evaluate(
    request: Request, environment: dict[str, Any]
) -> Generator[object, None, dict[str, Any]]:
    started = time.monotonic()
    cell, run, device, at_once = request.cell, request.run, request.device, request.at_once
    refuse(device)
    keep_float32()
    if device.startswith("cuda") and at_once == 1:
        torch.cuda.reset_peak_memory_stats()  # without that of earlier runs
    split = load(cell.dataset, cell.imbalance_factor, request.data, cell.protocol.subsample)
    method = build(cell, split.epoch_counts, partial(load_trained, request.results))
    method.to(device)
    loader = loader_for(split, method.views, cell, device, extra_sampler=method.extra_sampler)
    method.before_training(loader.train_eval())
    basis = mark(
        {"data": {"fingerprint": split.fingerprint}, "environment": {"rests_on": environment["rests_on"]}}
    )
    training = Training(cell, method, loader, run, device, request.checkpoint_seconds, at_once == 1, basis)
    if training.compiled:
        environment["compiled"] = True
    elif is_asked():
        where = "in exact mode" if cell.mode == "exact" else "over several GPUs"
        print(f"--compile: left out, as the run is {where}")
    yield from training.steps(request.report)
    logits = training.logits
    assert logits is not None  # the last epoch is always evaluated
    return {
        "status": "done",
        "reason": None,
        "traceback": None,
        "method": describe_method(cell, method),
        "data": describe_data(cell, split),
        "image_hashes": split.image_hashes or None,
        "model": describe_model(method, loader.images_at(torch.arange(2, device=device))),
        **_results(cell, split, logits, training),
        "test_agnostic": adapted(method, loader, cell.seed),
        "files": {
            run.logits.name: run.write_logits(logits, split.test_labels),
            **_averaged_file(run, split, training),
            run.weights.name: write_weights(run.weights, method),
        },
        "timing": {
            **_timing(run, loader, device, time.monotonic() - started),
            "runs_at_once": at_once,
            "micro_batches": training.micro_batches,
        },
    }


def load_trained(results: Path, cell: Cell, method: Method) -> None:
    """Load a finished cell's weights, checked against its record, into the method built for it."""
    run = RunDir(results, cell.run_id)
    record = run.read_record()
    if record["status"] != "done":
        raise BenchError(f"{run.run_id}: the parent is {record['status']}, not done; run it first")
    read_weights(run.weights, method, record["files"][run.weights.name])


def _results(cell: Cell, split: Split, logits: np.ndarray, training: Training) -> dict[str, Any]:
    metrics = score(logits, split.test_labels, split.class_counts, cell.dataset.shots)
    last_epoch = cell.protocol.epochs - 1 if training.method.trains else None
    classes = len(split.class_counts)
    averaged = {}
    if training.averaged is not None and cell.protocol.averaging is not None:
        of_mean = score(training.averaged, split.test_labels, split.class_counts, cell.dataset.shots)
        kind = cell.protocol.averaging.kind
        averaged["averaged"] = {"kind": kind, "epoch": last_epoch, **of_mean}
    confusion = None
    if classes <= 200:  # else it would be larger than the rest of the record
        confusion = confusion_matrix(logits.argmax(axis=1), split.test_labels, classes).tolist()
    return {
        "metrics": {"selection": "last_epoch", "epoch": last_epoch, **metrics},
        "further_metrics": further(logits, split.test_labels, split.class_counts, cell.dataset.shots),
        "best_on_test": training.best,
        "best_on_validation": training.chosen,
        **averaged,
        "confusion": confusion,
    }


def _averaged_file(run: RunDir, split: Split, training: Training) -> dict[str, str]:
    if training.averaged is None:
        return {}
    return {run.averaged.name: run.write_logits(training.averaged, split.test_labels, run.averaged)}


def _timing(run: RunDir, loader: Loader, device: str, wall_seconds: float) -> dict[str, Any]:
    epochs = run.epochs()
    trained = sum(line["seconds"] for line in epochs)  # including those before a resume
    if device.startswith("cuda"):
        peak = torch.cuda.max_memory_reserved() / 2**20  # of all runs in the process
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return {
        "images_per_second": round(loader.size * len(epochs) / trained, 1) if trained else None,
        "device_seconds": round(trained, 3),
        "wall_seconds": round(wall_seconds, 3),
        "peak_memory_mb": round(peak, 1),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
