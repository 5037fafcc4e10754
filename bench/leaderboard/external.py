"""A user's own predictions as an external line of the leaderboard, with the same metrics.

How the predictions were made is unknown here: a protocol field is what the user states, or "not stated".
"""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from bench.cell import STANDARD, DataSet, Frozen, Name
from bench.errors import BenchError, did_you_mean
from bench.files import sha256, write_text
from bench.leaderboard.entries import SCORES, Entry, entry
from bench.leaderboard.protocols import JUDGED, epochs_class
from bench.metrics import full_score
from bench.published import Number
from bench.rundir import first_line
from bench.typed_csv import read

#: Names that an npz file may give to its predictions.
_ARRAYS = ("scores", "logits", "predictions")


class External(Frozen):
    """The file of scored predictions; `metrics` are those of `bench.metrics.full_score`."""

    schema_version: Literal[1] = 1
    name: str
    dataset: Name
    data_copy: str
    tail: str = STANDARD
    note: str | None = None
    imbalance_factor: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    protocol: dict[str, str | int | float]
    given: Literal["scores", "labels"]
    images: int
    sha256: str
    metrics: dict[str, float | list[float | None] | None]


def scored(
    file: Path,
    name: str,
    dataset: DataSet,
    imbalance_factor: float,
    labels: np.ndarray,
    class_counts: np.ndarray,
    protocol: Mapping[str, str] | None = None,
) -> External:
    """Score a file of predictions for the test images of a split, in their order.

    Args:
        file: npz with `logits` (or `scores`) (N, C) or `predictions` (N,), or CSV without a header with C
            numbers or one class number in each of N lines. If an npz of logits has `labels` too, they must
            be those of the test set.
        name: lower-case letters, digits and _.
        labels: (N,) true classes of the test images.
        class_counts: (C,) training images of each class.
        protocol: what is known of the training, by the columns of the published table.

    Raises:
        BenchError: a wrong shape, a number that is not finite, a class out of range, an unknown field.
    """
    _checked("name", name, "method")
    given, logits = _read(file, labels, len(class_counts))
    metrics: dict[str, Any] = {**full_score(logits, labels, class_counts, dataset.shots)}
    if given == "labels":  # without probabilities
        metrics |= dict.fromkeys(("ece", "adaptive_ece", "classwise_ece", "nll", "brier"))
    stated = {key: _checked("protocol", value, key) for key, value in (protocol or {}).items()}
    original = dataset.comparable or not dataset.copy_of  # the note of a comparable copy names the difference
    return External(
        name=name,
        dataset=dataset.copy_of or dataset.name,
        data_copy="original" if original else dataset.copy_kind or "copy",
        tail=dataset.tail,
        note=dataset.copy_kind if original else None,
        imbalance_factor=imbalance_factor,
        protocol=stated,
        given=given,
        images=len(labels),
        sha256=sha256(file),
        metrics=metrics,
    )


def save(results: Path, external: External, *, replace: bool = False) -> Path:
    """Write scored predictions below the results folder.

    Raises:
        BenchError: other predictions have that name already, and `replace` is false.
    """
    file = results / "external" / f"{external.name}.json"
    if file.exists() and not replace:
        try:
            old = External.model_validate_json(file.read_bytes())
        except ValidationError:
            old = None
        if old is None or _input(old) != _input(external):
            content = "something else" if old is None else f"other predictions, for {old.dataset}"
            raise BenchError(f"{file}: holds {content}; choose another --name, or replace it with --replace")
    write_text(file, external.model_dump_json(indent=1) + "\n")
    return file


def _input(external: External) -> tuple[Any, ...]:
    """Return what identifies the predictions and their test set."""
    return external.sha256, external.dataset, external.data_copy, external.imbalance_factor


def load(results: Path, problems: list[str] | None = None) -> list[Entry]:
    """Return all external entries; a file that cannot be read goes into `problems`, or is raised."""
    found = []
    for file in sorted((results / "external").glob("*.json")):
        try:
            found.append(_entry(External.model_validate_json(file.read_bytes())))
        except (OSError, ValidationError, BenchError) as error:
            problem = f"{file}: not scored predictions ({first_line(error)}); score them again"
            if problems is None:
                raise BenchError(problem) from error
            problems.append(problem)
    return found


def _entry(external: External) -> Entry:
    _checked("name", external.name, "method")
    metrics: dict[str, Any] = {name: external.metrics.get(name) for name in SCORES}
    if lists := [name for name, value in metrics.items() if isinstance(value, list)]:
        raise BenchError(f"metrics: {lists[0]}: a list, not a number")
    stated = {key: _checked("protocol", str(value), key) for key, value in external.protocol.items()}
    stated = {"data_copy": external.data_copy, "tail": external.tail} | stated
    stated |= {"epochs_class": epochs_class(stated.get("epochs"))}
    return entry(
        kind="external",
        key=f"external/{external.name}",
        method=external.name,
        title=external.name,
        dataset=external.dataset,
        imbalance_factor=external.imbalance_factor,
        note=external.note,
        n=1,
        **metrics,
        **stated,
    )


def _checked(where: str, value: str, column: str) -> Any:
    if column not in (*JUDGED, "method"):
        raise BenchError(f"{where}: {column}: no such field{did_you_mean(column, JUDGED)}")
    try:
        return read(Number, "backbone" if column == "method" else column, value)
    except ValueError as error:
        raise BenchError(f"{where}: {column}: {error}") from None


def _read(file: Path, labels: np.ndarray, classes: int) -> tuple[Literal["scores", "labels"], np.ndarray]:
    """Return what the file gives, and logits (N, C); predicted labels become one-hot."""
    if not file.is_file():
        raise BenchError(f"{file}: no such file; name an npz or CSV file of predictions")
    array = _from_npz(file, labels) if file.suffix == ".npz" else _from_csv(file)
    if array.dtype.kind not in "fiu":
        raise BenchError(f"{file}: holds {array.dtype}, not numbers")
    if array.shape == (len(labels), classes) and classes > 1:
        if not np.isfinite(array).all():
            raise BenchError(
                f"{file}: image {_first(~np.isfinite(array).all(axis=1))} has a score that is not finite"
            )
        return "scores", array
    if array.shape not in ((len(labels),), (len(labels), 1)):
        wanted = f"scores ({len(labels)}, {classes}) or labels ({len(labels)},)"
        raise BenchError(f"{file}: has the shape {array.shape}; this split wants {wanted}")
    predicted = array.reshape(-1)
    wrong = ~np.isin(predicted, np.arange(classes))
    if wrong.any():
        first = predicted[wrong][0]
        raise BenchError(
            f"{file}: image {_first(wrong)} is given class {first}; classes are 0..{classes - 1}"
        )
    return "labels", np.eye(classes)[predicted.astype(int)]


def _from_npz(file: Path, labels: np.ndarray) -> np.ndarray:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in (*_ARRAYS, "labels") if name in arrays}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BenchError(f"{file}: not a readable npz file of plain numbers") from error
    name = next((name for name in _ARRAYS if name in found), None)
    if name is None:
        raise BenchError(f"{file}: has no array named {' or '.join(_ARRAYS)}; name the predictions so")
    if name != "predictions" and "labels" in found and not np.array_equal(found["labels"], labels):
        raise BenchError(f"{file}: its labels are not this test set's; other images, or another order")
    return found[name]


def _from_csv(file: Path) -> np.ndarray:
    rows = []
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            lines = csv.reader(stream, strict=True)
            for cells in lines:
                try:
                    rows.append([float(cell) for cell in cells])
                except ValueError as error:
                    raise BenchError(f"{file}:{lines.line_num}: {error}") from None
                if len(cells) != len(rows[0]):
                    raise BenchError(
                        f"{file}:{lines.line_num}: {len(cells)} numbers, the first line has {len(rows[0])}"
                    )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BenchError(f"{file}: not a readable CSV file: {error}") from error
    return np.array(rows)


def _first(wrong: np.ndarray) -> int:
    return int(np.flatnonzero(wrong)[0])
