"""Checks of submitted runs (a file of `export`): data, protocol and numbers must agree with each other.

Whether a new training gives the same numbers is for `rerun` to find out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench import ledger, registry
from bench.cell import Cell
from bench.data.sets.content import Content
from bench.errors import BenchError
from bench.ledger import Line
from bench.records import Results
from bench.rundir import cell_from
from bench.stale import Now, recorded_basis

#: Run id and fingerprint, by what decides the fingerprint.
Fingerprints = Mapping[str, tuple[str, dict[str, str]]]


@dataclass
class Checked:
    """One submitted run: its faults, and remarks on what could not be checked."""

    run_id: str
    faults: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def check(file: Path, results: Results, now: Now) -> list[Checked]:
    """Check the runs in a file of `export`; those whose identical line is among the results are skipped.

    Args:
        results: the runs to compare with; the file may be part of them.
        now: the images on this machine.

    Raises:
        BenchError: there is no such file, or no run in it.
    """
    if not file.is_file():
        raise BenchError(f"{file}: no such file; `export` writes results/records/*.jsonl")
    lines = ledger.read(file)
    if not lines:
        raise BenchError(f"{file}: has no run in it; `export` writes results/records/*.jsonl")
    known = {
        line.run_id: line for line in ledger.lines(results.root) if line.path.resolve() != file.resolve()
    }
    prints = _fingerprints(results)
    return [
        _check(line, known.get(line.run_id), prints, now)
        for line in lines
        if line.run_id not in known or known[line.run_id].text != line.text
    ]


def _fingerprints(results: Results) -> dict[str, tuple[str, dict[str, str]]]:
    """Return run id and fingerprint of one run for each content of the results."""
    found = dict[str, tuple[str, dict[str, str]]]()
    for run in results:
        if fingerprint := (run.record.get("data") or {}).get("fingerprint"):
            with suppress(BenchError):  # it is reported as unreadable
                found.setdefault(_content_of(run.cell), (run.run_id, fingerprint))
    return found


def _content_of(cell: Cell) -> str:
    """Return what decides the images that a cell is trained and tested on."""
    return repr((cell.dataset.identity(), cell.imbalance_factor, cell.protocol.subsample))


def _check(line: Line, known: Line | None, prints: Fingerprints, now: Now) -> Checked:
    found = Checked(line.run_id)
    if line.problem:
        found.faults.append(line.problem)
        return found
    content = line.content
    try:
        cell = cell_from(content["cell"])
        if cell.run_id != line.run_id:
            raise ValueError(f"its cell is of run {cell.run_id}")
        if known and (differing := ledger.unlike(known.content, content)):
            found.faults.append(f"{known.location} has another {differing[0][0]} of this run")
        for part in (_of_method, _of_protocol, _of_numbers, _of_versions):
            found.faults += part(cell, content)
        _compare_data(cell, content, prints, now, found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        found.faults.append(f"not a line of `export`: {type(error).__name__}: {error}")
    return found


def _of_method(cell: Cell, content: Mapping[str, Any]) -> Iterator[str]:
    try:
        spec = registry.find(cell.method.name)
    except BenchError as error:
        yield f"{error}; a method of your own is submitted first"
        return
    if recorded_basis(content).get("code"):
        yield f"{cell.method.name} came from a methods file, and not from this version"
    if spec.version != cell.method.version:
        was = f"{cell.method.name} is of version {cell.method.version}"
        yield f"{was}, and now of {spec.version}: train it again"


def _of_protocol(cell: Cell, content: Mapping[str, Any]) -> Iterator[str]:
    """Check that the run was trained and selected as the cell asks."""
    epochs = len(ledger.curve(content))
    if content["metrics"]["epoch"] is not None and epochs != cell.protocol.epochs:
        yield f"its curve has {epochs} epochs, and its protocol {cell.protocol.epochs}"
    if content["metrics"]["selection"] != "last_epoch":
        yield f"it was selected by {content['metrics']['selection']}; the headline is the last epoch"


def _of_numbers(cell: Cell, content: Mapping[str, Any]) -> Iterator[str]:
    """Check that the accuracy is that of its confusion and of its bits."""
    stated = content["metrics"]["accuracy"]
    tests = np.asarray(content["data"]["test_counts"])
    confusion, hits = ledger.confusion(content), ledger.hits(content)
    if confusion is not None:
        if confusion.sum(axis=1).tolist() != tests.tolist():
            yield "its confusion has other counts of test images than its data"
        else:
            yield from _unlike(stated, 100 * np.trace(confusion) / tests.sum(), "confusion")
    if hits is not None:
        yield from _unlike(stated, 100 * hits.mean(), "test images")
    if confusion is None and hits is None:
        yield "it has neither confusion nor bits; `export` where its scores are"


def _unlike(stated: float, found: float, of: str) -> Iterator[str]:
    if not math.isclose(stated, found, abs_tol=0.005):
        yield f"its accuracy is {stated:.2f}, and that of its {of} {found:.2f}"


def _of_versions(cell: Cell, content: Mapping[str, Any]) -> Iterator[str]:
    environment = content["environment"]
    absent = [name for name in ("python", "torch", "timm") if not environment.get(name)]
    if absent:
        yield f"its version of {', '.join(absent)} is missing"
    if str(environment.get("git") or "").endswith("-dirty"):
        yield f"it was trained by changed code (revision {environment['git']}); commit, and train it again"


def _compare_data(
    cell: Cell,
    content: Mapping[str, Any],
    prints: Fingerprints,
    now: Now,
    found: Checked,
) -> None:
    """Compare the fingerprint with the images that are here, or else with a run on the same images."""
    stated = content["data"]["fingerprint"]
    here = now.content(cell.dataset, cell.imbalance_factor, cell.protocol.subsample)
    if isinstance(here, Content):
        other, where = here.fingerprint, "here"
    elif (other_run := prints.get(_content_of(cell))) is not None:
        where, other = other_run
        where = f"of {where}"
    else:
        found.remarks.append(f"neither images of {cell.dataset.name} nor a run on them are here to compare")
        return
    for part in ("train", "test"):
        if stated.get(part) != other.get(part):
            found.faults.append(
                f"its {part} images are {stated.get(part)}, and those {where} {other.get(part)}"
            )
