"""A run's directory, ``results/runs/<run id>/``: all files of a run are read and written here.

Every file is replaced as a whole, so a reader sees the old or the new one; only epochs.jsonl grows by lines.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import math
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import ValidationError

from bench.cell import Cell
from bench.errors import BenchError
from bench.files import TEMPORARY, sha256, write_bytes, write_text
from bench.json_text import hash_of, plain, pretty

#: Raised when the meaning of records changes, so that older and newer ones cannot be compared.
SCHEMA = 1

#: Keys in which equal records may differ; older records lack image hashes, which the fingerprint covers.
INCIDENTAL = ("timing", "environment", "checksum", "image_hashes")

#: Keys that older records lack, and that are not compared then: they follow from logits that have a hash.
LATER = ("further_metrics", "test_agnostic")

#: States in a record; the others are seen from outside.
ENDS = ("done", "failed", "interrupted")

Status = Literal[
    "done", "stale", "failed", "interrupted", "running", "queued", "blocked", "missing", "unreadable"
]


class Busy(BenchError):  # noqa: N818 - not a user's mistake
    """Another process holds the lock of this run."""


@dataclass(frozen=True)
class State:
    """State of a cell, with the reason if it is not done, or a note if it is."""

    status: Status
    reason: str | None = None


class RunDir:
    """The directory of one run, in a results folder or at `path`; it is created by the first write."""

    def __init__(self, results: Path, run_id: str, path: Path | None = None) -> None:
        self.run_id = run_id
        self.path = path or results / "runs" / run_id
        self.cell = self.path / "cell.yaml"
        self.epoch_lines = self.path / "epochs.jsonl"
        self.log = self.path / "log.txt"
        self.lock_file = self.path / "lock"
        self.checkpoint = self.path / "checkpoint.pt"
        self.weights = self.path / "weights.safetensors"
        self.logits = self.path / "logits.npz"
        self.averaged = self.path / "averaged.npz"
        self.record = self.path / "record.json"

    # -- lock ------------------------------------------------------------------------------------
    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; the system releases it when the process dies.

        Raises:
            Busy: another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with self.lock_file.open("a") as file:
            for attempt in range(20):
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if attempt == 19:
                        raise Busy(f"{self.run_id}: another process is running it") from None
                    time.sleep(0.01)  # `is_running` of another process holds it for a moment
            yield

    def is_running(self) -> bool:
        """Return whether a process holds the run."""
        try:
            with self.lock_file.open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False

    def sweep(self) -> None:
        """Delete temporary files of killed writers; call it while holding the lock."""
        for left in self.path.glob(f".*{TEMPORARY}"):
            left.unlink(missing_ok=True)

    # -- cell ------------------------------------------------------------------------------------
    def write_cell(self, cell: Cell) -> None:
        """Write the resolved cell as YAML."""
        content = cell.model_dump(mode="json")
        write_text(self.cell, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))

    def read_cell(self) -> Cell:
        """Read the cell; one that cannot be trusted is a `BenchError` that says why."""
        try:
            cell = cell_from(yaml.safe_load(self.cell.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise BenchError(f"{self.cell}: no such file; the run has not begun") from None
        except Exception as error:  # PyYAML raises other errors than its own
            raise BenchError(f"{self.cell}: {first_line(error)}; train it again by `run --force`") from error
        if cell.run_id != self.run_id:  # part of a cell may be a valid cell, too
            raise BenchError(f"{self.cell}: is of run {cell.run_id}; train it again by `run --force`")
        return cell

    # -- epochs ----------------------------------------------------------------------------------
    def append_epoch(self, line: dict[str, Any]) -> None:
        """Add one epoch's line."""
        self.path.mkdir(parents=True, exist_ok=True)
        with self.epoch_lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain(line), allow_nan=False) + "\n")

    def epochs(self) -> list[dict[str, Any]]:
        """Read the epochs' lines, up to the first that is unfinished or damaged."""
        if not self.epoch_lines.exists():
            return []
        lines = []
        for text in self.epoch_lines.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                break
            if not isinstance(line, dict) or type(line.get("epoch")) is not int:
                break
            lines.append(line)
        return lines

    def keep_epochs(self, count: int) -> None:
        """Keep the lines of epochs 0 to `count - 1`, as a checkpoint has them."""
        kept = [json.dumps(line) + "\n" for line in self.epochs() if line["epoch"] < count]
        write_text(self.epoch_lines, "".join(kept))

    # -- logits ----------------------------------------------------------------------------------
    def write_logits(self, logits: np.ndarray, labels: np.ndarray, file: Path | None = None) -> str:
        """Store test logits (N, C) as float16 and labels (N,); return the file's sha256.

        Equal arrays give equal bytes: not compressed, as zlib's builds differ, and not by `np.savez`, whose
        bytes differ from those that committed records have the hash of.

        Args:
            file: default: `logits`.
        """
        arrays = {"logits": np.asarray(logits, np.float16), "labels": np.asarray(labels, np.int64)}
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as members:
            for name, array in arrays.items():
                member = io.BytesIO()
                np.save(member, np.ascontiguousarray(array), allow_pickle=False)
                members.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())  # dated 1980
        write_bytes(file or self.logits, archive.getvalue())
        return hashlib.sha256(archive.getvalue()).hexdigest()

    def read_logits(self, expected: str) -> tuple[np.ndarray, np.ndarray]:
        """Read logits (N, C) float16 and labels (N,), checked against the record's sha256."""
        if not self.logits.exists():
            raise BenchError(f"{self.logits}: no such file; train it again by `run --force`")
        if sha256(self.logits) != expected:
            raise BenchError(f"{self.logits}: not what its record says; train it again by `run --force`")
        try:
            with np.load(self.logits, allow_pickle=False) as arrays:
                return arrays["logits"], arrays["labels"]
        except (OSError, EOFError, LookupError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise BenchError(
                f"{self.logits}: {first_line(error)}; train it again by `run --force`"
            ) from error

    def hits(self, record: dict[str, Any]) -> np.ndarray | None:
        """Return whether each test image (N,) was classified correctly, None without logits."""
        try:
            logits, labels = self.read_logits((record.get("files") or {})[self.logits.name])
        except (BenchError, KeyError):
            return None
        return logits.argmax(axis=1) == labels

    # -- record ----------------------------------------------------------------------------------
    def write_record(self, record: dict[str, Any]) -> None:
        """Write the run's last file, with `schema`, `run_id` and `checksum` added.

        Numbers that are not finite become null, which pages show as n/a.
        """
        content = plain({"schema": SCHEMA, "run_id": self.run_id} | record)
        content["checksum"] = _checksum(content)
        write_text(self.record, pretty(content) + "\n")

    def read_record(self) -> dict[str, Any]:
        """Read the record; one that cannot be trusted is a `BenchError` that says why."""
        file = self.record
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            checksum = _checksum(content) if isinstance(content, dict) else None
        except FileNotFoundError:
            raise BenchError(f"{file}: no such file; the run has not ended") from None
        except (OSError, ValueError, RecursionError) as error:
            raise BenchError(f"{file}: {first_line(error)}; train it again by `run --force`") from error
        schema = content.get("schema") if isinstance(content, dict) else None
        if type(schema) is not int:
            raise BenchError(f"{file}: not a record; train it again by `run --force`")
        if schema < SCHEMA:
            raise BenchError(f"{file}: older schema {schema}, now {SCHEMA}; train it again by `run --force`")
        if schema > SCHEMA:
            raise BenchError(f"{file}: newer schema {schema}; update longtail-bench")
        if content.get("checksum") != checksum or content.get("status") not in ENDS:
            raise BenchError(f"{file}: changed since it was written; train it again by `run --force`")
        if (run_id := content.get("run_id")) != self.run_id:
            raise BenchError(f"{file}: is of run {str(run_id)[:200]!r}; name its folder so")
        return content

    def is_done(self) -> bool:
        """Return whether there is a valid record of a finished run."""
        try:
            return self.record.exists() and self.read_record()["status"] == "done"
        except BenchError:
            return False

    def look(self) -> tuple[State, dict[str, Any] | None]:
        """Return the run's state, whatever its parent's, and its record if it can be trusted."""
        if self.is_running():
            return State("running", f"epochs done: {len(self.epochs())}"), None
        if self.record.exists():
            try:
                record = self.read_record()
            except BenchError as error:
                return State("unreadable", str(error).replace(f"{self.path}/", "")), None
            return State(record["status"], record.get("reason")), record
        if self.cell.exists():
            reason = f"epochs done: {len(self.epochs())}; the next run continues"
            return State("interrupted", reason), None
        return State("missing"), None


def attempt(results: Path, run_id: str) -> RunDir:
    """Return the directory of a run that is trained once more, beside the old one (`bench.launch.rerun`)."""
    return RunDir(results / "rerun" / run_id, run_id)


def cell_from(content: Any) -> Cell:
    """Read a cell from its JSON-able form; a wrong one is a ValueError that says why."""
    try:
        return Cell.model_validate_json(json.dumps(content))
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in ("cell", *first["loc"]))
        raise ValueError(f"{path}: {first['msg']}") from error
    except (TypeError, RecursionError) as error:  # YAML has dates, and may be nested too deep
        raise ValueError(f"cell: {first_line(error)}") from error


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Return whether two records are equal, except for timing, environment and checksum.

    What is null or false in one may be missing in the other, as older versions did not write it. Numbers may
    differ in their last digits, as sums depend on the order; the hash of the logits is exact.
    """
    return not differences(a, b)


def differences(old: Any, new: Any, where: str = "") -> list[tuple[str, Any, Any]]:
    """List where two records are not `equal`: dotted key, old, new."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        empty = all(value is None or value is False for value in (old, new))
        rounded = isinstance(old, float) and isinstance(new, float) and math.isclose(old, new, rel_tol=1e-12)
        return [] if empty or rounded or old == new else [(where, old, new)]
    found = []
    for key in dict.fromkeys([*old, *new]):
        absent = key in LATER and not (key in old and key in new)
        if where or not (key in INCIDENTAL or absent):
            found += differences(old.get(key), new.get(key), f"{where}.{key}".strip("."))
    return found


def _checksum(record: dict[str, Any]) -> str:
    return hash_of({key: value for key, value in record.items() if key != "checksum"})


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
