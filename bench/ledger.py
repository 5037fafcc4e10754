"""The ledger: what git keeps of finished runs, a line each in ``results/records/*.jsonl``.

There is one file for each data set and backbone, its lines sorted by run id. A line is JSON without spaces:
the cell without its defaults, the record, the curve, and last a checksum of all before it. A curve is a list
for each value, with five significant digits. The confusion is packed. Of the logits one bit per image is
kept: whether it was classified correctly. Files of several machines are merged by `export`, never by copying
one over the other.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import BenchError
from bench.files import held, write_text
from bench.rundir import RunDir, cell_from, differences, first_line

#: The form of a line; another one is refused.
SCHEMA = 2

#: What every line begins and ends with, so that it is recognised before it is parsed.
_BEGINS, _ENDS = '{"run_id":"', ',"checksum":"'

#: A line's keys in order; other keys of a record come between these.
_ORDER = ("run_id", "schema", "cell", "method", "data", "model", "metrics", "best_on_test")
_LAST = ("files", "timing", "environment", "confusion", "hits", "curve")

#: Keys of a record that a line leaves out: they are the same in all lines, or part of the line anyway.
_IMPLIED = ("schema", "run_id", "cell", "status", "reason", "traceback", "checksum")


@dataclass(frozen=True)
class Line:
    """One line of a file; `problem` is why it cannot be trusted."""

    path: Path
    number: int
    run_id: str
    text: str
    problem: str | None = None

    @property
    def location(self) -> str:
        """Path and line number."""
        return f"{self.path}:{self.number}"

    @cached_property
    def content(self) -> dict[str, Any]:
        """Its content: a packed record without what is implied, with the `curve`."""
        return dict(json.loads(self.text))


def lines(results: Path) -> list[Line]:
    """Return all lines of a results folder, in the order of files and lines."""
    return [line for file in sorted((results / "records").glob("*.jsonl")) for line in read(file)]


def read(file: Path) -> Sequence[Line]:
    """Return the lines of one file."""
    stat = file.stat()
    return _lines(file, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=256)
def _lines(file: Path, changed: int, size: int) -> tuple[Line, ...]:
    texts = file.read_text(encoding="utf-8", errors="replace").split("\n")
    return tuple(_line(file, number, text) for number, text in enumerate(texts, 1) if text)


def _line(file: Path, number: int, text: str) -> Line:
    body, end, checksum = text.rpartition(_ENDS)
    run_id = text[len(_BEGINS) :].partition('"')[0]
    if not text.startswith(f'{_BEGINS}{run_id}","schema":') or not end:
        advice = "after a merge conflict take one side, and export the other's runs"
        return Line(file, number, f"{file.name}:{number}", text, f"not a line of a run; {advice}")
    problem: str | None = None
    if checksum != f'{_checksum(body)}"}}':
        problem = "changed since it was written; take it from git again"
    elif not text.startswith(f'{_BEGINS}{run_id}","schema":{SCHEMA},'):
        problem = f"another schema than {SCHEMA}; rerun it, or update longtail-bench"
    return Line(file, number, run_id, text, problem)


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# -- a run as a line -------------------------------------------------------------------------------
def packed(
    record: Mapping[str, Any], curve: Sequence[Mapping[str, Any]] = (), hits: np.ndarray | None = None
) -> dict[str, Any]:
    """Return the content of a finished run's line.

    Args:
        record: as of `RunDir.read_record`.
        curve: as of `RunDir.epochs`.
        hits: (N,) whether each test image was classified correctly, None where it is not known.
    """
    content = {name: value for name, value in record.items() if name not in _IMPLIED and value is not None}
    cell = cell_from(record["cell"]).model_dump(mode="json", exclude_defaults=True)
    content |= {"run_id": record["run_id"], "schema": SCHEMA, "cell": cell, "curve": _columns(curve)}
    if "confusion" in content:
        content["confusion"] = _sparse(np.asarray(content["confusion"]))
    if hits is not None:
        content["hits"] = base64.b85encode(np.packbits(hits).tobytes()).decode()
    others = sorted(content.keys() - {*_ORDER, *_LAST})
    return {name: content[name] for name in (*_ORDER, *others, *_LAST) if name in content}


def written(content: Mapping[str, Any]) -> str:
    """Return a line's content as text."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)[:-1]
    return f'{text}{_ENDS}{_checksum(text)}"}}'


def unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return where two lines of a run differ: key, one, other; time, machine, curve and bits are ignored."""
    aside = {"hits": None, "curve": None}
    return differences({**one, **aside}, {**other, **aside})


def confusion(content: Mapping[str, Any]) -> np.ndarray | None:
    """Unpack the counts (C, C) by class and predicted class."""
    text, classes = content.get("confusion"), len(content["data"]["class_counts"])
    return None if text is None else _dense(text, classes)


def hits(content: Mapping[str, Any]) -> np.ndarray | None:
    """Unpack whether each test image (N,) was classified correctly."""
    text, images = content.get("hits"), sum(content["data"]["test_counts"])
    if text is None:
        return None
    return np.unpackbits(np.frombuffer(base64.b85decode(text), np.uint8), count=images).astype(bool)


def curve(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Unpack the values of the epochs."""
    found: list[dict[str, Any]] = [{"epoch": epoch} for epoch in range(content["curve"].get("epoch", 0))]
    for name, values in content["curve"].items():
        if name == "epoch":
            continue
        if not isinstance(values, list | dict):
            values = [values] * len(found)
        for epoch, value in values.items() if isinstance(values, dict) else enumerate(values):
            found[int(epoch)][name] = value
    return found


def _columns(curve: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Turn epochs into columns: their number, then a list for each value; by epoch where some lack it."""
    columns: dict[str, Any] = {"epoch": len(curve)}
    for name in dict.fromkeys(key for line in curve for key in line if key != "epoch"):
        known = {str(line["epoch"]): _short(line[name]) for line in curve if name in line}
        values = list(known.values())
        same = len(values) > 1 and all(value == values[0] for value in values)
        columns[name] = known if len(values) < len(curve) else values[0] if same else values
    return columns


def _short(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _sparse(matrix: np.ndarray) -> str:
    """Pack counts: the Elias gamma codes of the gap to each non-zero count and of the count.

    Not compressed by a library, as the bytes of its builds may differ.
    """
    flat = matrix.reshape(-1)
    positions = np.flatnonzero(flat)
    numbers = np.stack([np.diff(positions, prepend=-1), flat[positions]], axis=1).reshape(-1)
    code = "".join("0" * (number.bit_length() - 1) + f"{number:b}" for number in numbers.tolist())
    bits = np.array([bit == "1" for bit in code], dtype=bool)
    return base64.b85encode(np.packbits(bits).tobytes()).decode()


def _dense(text: str, classes: int) -> np.ndarray:
    code = "".join(f"{byte:08b}" for byte in base64.b85decode(text))
    numbers, start = list[int](), 0
    while (one := code.find("1", start)) >= 0:
        end = 2 * one - start + 1
        numbers.append(int(code[one:end], 2))
        start = end
    flat = np.zeros(classes * classes, dtype=np.int64)
    flat[np.cumsum(numbers[::2], dtype=np.int64) - 1] = numbers[1::2]
    return flat.reshape(classes, classes)


# -- merging ---------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Exported:
    """Result of an export: number of lines, of new or fuller ones, changed files, what was left out."""

    lines: int
    new: int
    files: tuple[Path, ...]
    left_out: tuple[str, ...]


def export(results: Path, sources: Iterable[Path] = ()) -> Exported:
    """Write the finished runs of a results folder, and of other ones, into its ledger.

    Lines that are there stay unchanged, except where a run's bits were not known and now are.

    Raises:
        BenchError: two unlike records of one run, or a line that cannot be read; nothing was written.
    """
    with held(results / "records"):  # two exports at once would each undo the other's
        return _export(results, sources)


def _export(results: Path, sources: Iterable[Path]) -> Exported:
    known: dict[str, tuple[str, dict[str, Any], str]] = {}
    left_out: list[str] = []
    clashes: list[str] = []
    new = 0

    def take(run_id: str, location: str, content: dict[str, Any], text: str | None = None) -> bool:
        before = known.get(run_id)
        if before is not None:
            if differing := unlike(before[1], content):
                where, one, other = differing[0]
                clashes.append(f"{before[0]} and {location} differ: {where} {_cut(one)}, {_cut(other)}")
                return False
            if "hits" in before[1] or "hits" not in content:
                return False
        known[run_id] = location, content, text or written(content)
        return True

    for source in (results, *sources):
        for line in lines(source):
            if line.problem:
                raise BenchError(f"{line.location}: {line.problem}")
            new += take(line.run_id, line.location, line.content, line.text) and source != results
        for path in sorted((source / "runs").glob("*/")):
            run = RunDir(source, path.name)
            state, record = run.look()
            if state.status == "unreadable":
                left_out.append(f"{run.path}: {state.reason}")
            if record is None or state.status != "done":
                continue
            try:
                if cell_from(record["cell"]).run_id != run.run_id:
                    raise ValueError("record.json: has the cell of another run")
                bits = "hits" in known.get(run.run_id, ("", {}, ""))[1]  # which cost a pass over the logits
                content = packed(record, run.epochs(), None if bits else run.hits(record))
                new += take(run.run_id, str(run.path), content)
            except (KeyError, TypeError, ValueError) as error:
                left_out.append(f"{run.path}: {first_line(error)}")
    if clashes:
        more = f" (and {len(clashes) - 1} more)" if len(clashes) > 1 else ""
        raise BenchError(f"{clashes[0]}{more}; nothing was written: remove the one that is wrong")
    return Exported(len(known), new, _write(results, known), tuple(left_out))


def _write(results: Path, known: Mapping[str, tuple[str, dict[str, Any], str]]) -> tuple[Path, ...]:
    """Write the files that change, delete those without lines, and return the paths of both."""
    texts: dict[Path, list[str]] = {}
    for run_id in sorted(known):
        _, content, text = known[run_id]
        name = f"{content['cell']['dataset']['name']}-{content['cell']['backbone']['name']}"
        name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", name)
        texts.setdefault(results / "records" / f"{name}.jsonl", []).append(text + "\n")
    changed = []
    for file, of_file in texts.items():
        text = "".join(of_file)
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            write_text(file, text)
            changed.append(file)
    for file in set((results / "records").glob("*.jsonl")) - texts.keys():
        file.unlink()
        changed.append(file)
    return tuple(changed)


def _cut(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:39] + "…"
