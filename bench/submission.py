"""Runs that somebody submits as a file of `export`: whether they are what they say, as far as can be seen.

What nobody can see without training is left to `rerun`: whether the numbers come out again.
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
from bench.stale import Now, of

#: A run and its fingerprint, by what decides the fingerprint.
Fingerprints = Mapping[str, tuple[str, dict[str, str]]]


@dataclass
class Checked:
    """One submitted run: faults, which speak against it, and remarks on what could not be seen."""

    run_id: str
    faults: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def check(file: Path, results: Results, now: Now) -> list[Checked]:
    """Check all runs in a file of `export`, but for those that are among the results already, word for word.

    Args:
        results: the runs to compare with; the file may be one of theirs.
        now: the images that are here.

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
    """Return a run and its fingerprint for each content of the results."""
    found = dict[str, tuple[str, dict[str, str]]]()
    for run in results:
        if said := (run.record.get("data") or {}).get("fingerprint"):
            with suppress(BenchError):  # it is told as unreadable
                found.setdefault(_content_of(run.cell), (run.run_id, said))
    return found


def _content_of(cell: Cell) -> str:
    """Name what decides which images a cell is trained and scored on."""
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
            found.faults.append(f"{known.place} has another {differing[0][0]} of this run")
        for part in (_of_method, _of_protocol, _of_numbers, _of_versions):
            found.faults += part(cell, content)
        _compare_data(cell, content, prints, now, found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        found.faults.append(f"not a line of `export`: {type(error).__name__}: {error}")
    return found


def _of_method(cell: Cell, content: Mapping[str, Any]) -> Iterator[str]:
    try:
        entry = registry.find(cell.method.name)
    except BenchError as error:
        yield f"{error}; a method of your own is submitted first"
        return
    if of(content).get("code"):
        yield f"{cell.method.name} came from a methods file, and not from this version"
    if entry.version != cell.method.version:
        was = f"{cell.method.name} is of version {cell.method.version}"
        yield f"{was}, and now of {entry.version}: train it again"


def _of_protocol(cell: Cell, content: Mapping[str, Any]) -> Iterator[str]:
    """See that it was trained and judged as the cell says."""
    epochs = len(ledger.curve(content))
    if content["metrics"]["epoch"] is not None and epochs != cell.protocol.epochs:
        yield f"its curve has {epochs} epochs, and its protocol {cell.protocol.epochs}"
    if content["metrics"]["selection"] != "last_epoch":
        yield f"it was selected by {content['metrics']['selection']}; the headline is the last epoch"


def _of_numbers(cell: Cell, content: Mapping[str, Any]) -> Iterator[str]:
    """See that the accuracy is that of its confusion and of its bits."""
    told = content["metrics"]["accuracy"]
    tests = np.asarray(content["data"]["test_counts"])
    confusion, hits = ledger.confusion(content), ledger.hits(content)
    if confusion is not None:
        if confusion.sum(axis=1).tolist() != tests.tolist():
            yield "its confusion has other counts of test images than its data"
        else:
            yield from _unlike(told, 100 * np.trace(confusion) / tests.sum(), "confusion")
    if hits is not None:
        yield from _unlike(told, 100 * hits.mean(), "test images")
    if confusion is None and hits is None:
        yield "it has neither confusion nor bits; `export` where its scores are"


def _unlike(told: float, found: float, of: str) -> Iterator[str]:
    if not math.isclose(told, found, abs_tol=0.005):
        yield f"its accuracy is {told:.2f}, and that of its {of} {found:.2f}"


def _of_versions(cell: Cell, content: Mapping[str, Any]) -> Iterator[str]:
    environment = content["environment"]
    absent = [name for name in ("python", "torch", "timm") if not environment.get(name)]
    if absent:
        yield f"it does not say its version of {', '.join(absent)}"
    if str(environment.get("git") or "").endswith("-dirty"):
        yield f"it was trained by changed code (revision {environment['git']}); commit, and train it again"


def _compare_data(
    cell: Cell,
    content: Mapping[str, Any],
    prints: Fingerprints,
    now: Now,
    found: Checked,
) -> None:
    """Hold the fingerprint against the images that are here, or else against a run on them."""
    said = content["data"]["fingerprint"]
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
        if said.get(part) != other.get(part):
            found.faults.append(
                f"its {part} images are {said.get(part)}, and those {where} {other.get(part)}"
            )
