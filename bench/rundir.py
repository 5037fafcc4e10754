"""A run's directory, ``results/runs/<run id>/``: the only truth about a run, in and out.

Every file is replaced whole, so a reader sees the old or the new; only epochs.jsonl grows line by line.
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

#: Rises when a record's meaning changes so that older ones can no longer be read beside newer ones.
SCHEMA = 1

#: What two equal records may differ in; older ones lack the image hashes, and the fingerprint says as much.
INCIDENTAL = ("timing", "environment", "checksum", "image_hashes")

#: What older records lack, and is then nothing to compare: it follows from scores that have a hash.
LATER = ("further_metrics", "test_agnostic")

#: How a run can end; the other states are seen from outside.
ENDS = ("done", "failed", "interrupted")

Status = Literal[
    "done", "stale", "failed", "interrupted", "running", "queued", "blocked", "missing", "unreadable"
]


class Busy(BenchError):  # noqa: N818 - it is no mistake to run what another process runs
    """Another process holds the lock of this run."""


@dataclass(frozen=True)
class State:
    """How a cell stands, and why if it is not done; or that the data of one that is done are not here."""

    status: Status
    reason: str | None = None


class RunDir:
    """The directory of one run, in a results folder or at a `path` of its own.

    Nothing is made until something is written.
    """

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

    # -- who is at it ----------------------------------------------------------------------------
    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; the system lets go of it when the process dies.

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
                    time.sleep(0.01)  # `is_running` of an onlooker holds it for a moment
            yield

    def is_running(self) -> bool:
        """Tell whether a process holds the run."""
        try:
            with self.lock_file.open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False

    def sweep(self) -> None:
        """Delete what writers that were killed left half-written; for who holds the lock."""
        for left in self.path.glob(f".*{TEMPORARY}"):
            left.unlink(missing_ok=True)

    # -- cell ------------------------------------------------------------------------------------
    def write_cell(self, cell: Cell) -> None:
        """Write the cell as YAML, as it was resolved."""
        content = cell.model_dump(mode="json")
        write_text(self.cell, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))

    def read_cell(self) -> Cell:
        """Read the cell back, or say in a `BenchError` why it cannot be trusted."""
        try:
            cell = cell_from(yaml.safe_load(self.cell.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise BenchError(f"{self.cell}: no such file; the run has not begun") from None
        except Exception as error:  # PyYAML's own slips included
            raise BenchError(f"{self.cell}: {first_line(error)}; rerun with --force") from error
        if cell.run_id != self.run_id:  # a part of a cell can be a cell too
            raise BenchError(f"{self.cell}: is of run {cell.run_id}; rerun with --force")
        return cell

    # -- epochs ----------------------------------------------------------------------------------
    def append_epoch(self, line: dict[str, Any]) -> None:
        """Add one epoch's line."""
        self.path.mkdir(parents=True, exist_ok=True)
        with self.epoch_lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain(line), allow_nan=False) + "\n")

    def epochs(self) -> list[dict[str, Any]]:
        """Read the epochs' lines, up to the first that is unfinished or spoilt."""
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
        """Cut the lines back to epochs 0 to `count - 1`, where a checkpoint stands."""
        kept = [json.dumps(line) + "\n" for line in self.epochs() if line["epoch"] < count]
        write_text(self.epoch_lines, "".join(kept))

    # -- logits ----------------------------------------------------------------------------------
    def write_logits(self, logits: np.ndarray, labels: np.ndarray, file: Path | None = None) -> str:
        """Store test scores (N, C) as float16 and labels (N,); return the file's sha256.

        Equal arrays give equal bytes. They go to `logits` or to another file of the run.
        """
        arrays = {
            "logits": np.asarray(logits, dtype=np.float16),
            "labels": np.asarray(labels, dtype=np.int64),
        }
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as members:
            for name, array in arrays.items():
                member = io.BytesIO()
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
                # A fixed date, and no compression, whose bytes differ between zlib builds.
                info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
                members.writestr(info, member.getvalue())
        write_bytes(file or self.logits, archive.getvalue())
        return hashlib.sha256(archive.getvalue()).hexdigest()

    def read_logits(self, expected: str) -> tuple[np.ndarray, np.ndarray]:
        """Read back scores (N, C) float16 and labels (N,), checked against the record's sha256."""
        if not self.logits.exists():
            raise BenchError(f"{self.logits}: no such file; rerun with --force to have it again")
        if sha256(self.logits) != expected:
            raise BenchError(f"{self.logits}: not what its record says; rerun with --force")
        try:
            with np.load(self.logits, allow_pickle=False) as arrays:
                return arrays["logits"], arrays["labels"]
        except (OSError, EOFError, LookupError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise BenchError(f"{self.logits}: {first_line(error)}; rerun with --force") from error

    def hits(self, record: dict[str, Any]) -> np.ndarray | None:
        """Return which test images (N,) were classified rightly, None where the scores are not at hand."""
        try:
            scores, labels = self.read_logits((record.get("files") or {})[self.logits.name])
        except (BenchError, KeyError):
            return None
        return scores.argmax(axis=1) == labels

    # -- record ----------------------------------------------------------------------------------
    def write_record(self, record: dict[str, Any]) -> None:
        """Write the run's last file, with `schema`, `run_id` and `checksum` put in.

        Numbers that are not finite become null: a reader shows n/a.
        """
        content = plain({"schema": SCHEMA, "run_id": self.run_id} | record)
        content["checksum"] = _checksum(content)
        write_text(self.record, pretty(content) + "\n")

    def read_record(self) -> dict[str, Any]:
        """Read the record, or say in a `BenchError` why it cannot be trusted."""
        where = self.record
        try:
            content = json.loads(where.read_text(encoding="utf-8"))
            checksum = _checksum(content) if isinstance(content, dict) else None
        except FileNotFoundError:
            raise BenchError(f"{where}: no such file; the run has not ended") from None
        except (OSError, ValueError, RecursionError) as error:
            raise BenchError(f"{where}: {first_line(error)}; rerun with --force") from error
        schema = content.get("schema") if isinstance(content, dict) else None
        if type(schema) is not int:
            raise BenchError(f"{where}: not a record; rerun with --force")
        if schema < SCHEMA:
            raise BenchError(f"{where}: older schema {schema}, now {SCHEMA}; rerun with --force")
        if schema > SCHEMA:
            raise BenchError(f"{where}: newer schema {schema}; update longtail-bench")
        if content.get("checksum") != checksum or content.get("status") not in ENDS:
            raise BenchError(f"{where}: changed since it was written; rerun with --force")
        if (run_id := content.get("run_id")) != self.run_id:
            raise BenchError(f"{where}: is of run {str(run_id)[:200]!r}; name its folder so")
        return content

    def is_done(self) -> bool:
        """Tell whether there is a record that can be trusted and says so."""
        try:
            return self.record.exists() and self.read_record()["status"] == "done"
        except BenchError:
            return False

    def look(self) -> tuple[State, dict[str, Any] | None]:
        """Say how the run stands, its parent aside, and return its record if it can be trusted."""
        if self.is_running():
            return State("running", f"epochs done: {len(self.epochs())}"), None
        if self.record.exists():
            try:
                record = self.read_record()
            except BenchError as error:
                return State("unreadable", str(error).replace(f"{self.path}/", "")), None
            return State(record["status"], record.get("reason")), record
        if self.cell.exists():
            reason = f"epochs done: {len(self.epochs())}; the next run goes on"
            return State("interrupted", reason), None
        return State("missing"), None


def attempt(results: Path, run_id: str) -> RunDir:
    """Return the directory of a run that is trained once more, beside the old one (`bench.launch.rerun`)."""
    return RunDir(results / "rerun" / run_id, run_id)


def cell_from(content: Any) -> Cell:
    """Read a cell from its JSON-able form; what is wrong with it is a ValueError."""
    try:
        return Cell.model_validate_json(json.dumps(content))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in ("cell", *first["loc"]))
        raise ValueError(f"{place}: {first['msg']}") from error
    except (TypeError, RecursionError) as error:  # YAML has dates and deep things that JSON has not
        raise ValueError(f"cell: {first_line(error)}") from error


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Tell whether two records say the same, their timing, environment and checksum aside.

    What is null or false in one may be missing in the other, which a version wrote that did not know of it.
    Numbers may differ in their last digits: a metric is summed in another order; the logits' hash is exact.
    """
    return not differences(a, b)


def differences(old: Any, new: Any, where: str = "") -> list[tuple[str, Any, Any]]:
    """List where two records are not `equal`, as far as they are equal in shape: place, old, new."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        unsaid = all(value is None or value is False for value in (old, new))
        rounded = isinstance(old, float) and isinstance(new, float) and math.isclose(old, new, rel_tol=1e-12)
        return [] if unsaid or rounded or old == new else [(where, old, new)]
    found = []
    for key in dict.fromkeys([*old, *new]):
        unknown = key in LATER and not (key in old and key in new)
        if where or not (key in INCIDENTAL or unknown):
            found += differences(old.get(key), new.get(key), f"{where}.{key}".strip("."))
    return found


def _checksum(record: dict[str, Any]) -> str:
    return hash_of({key: value for key, value in record.items() if key != "checksum"})


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
