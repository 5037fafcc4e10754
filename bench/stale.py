"""Whether a finished run still stands for its data and its code, as both are now.

A record says what its run rests on (`rests_on`): a key of its data's files, the hash of a user's methods
file, and what its parents rest on. Where that differs from what is here now, the run is *stale*. What is not
said is not asked: older records are held by their fingerprint, and nothing by data that are not here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cell import Cell, DataSet, families
from bench.data.sets import content
from bench.errors import BenchError
from bench.facts import built_in
from bench.json_text import hash_of
from bench.rundir import State, cell_from

if TYPE_CHECKING:
    from bench.records import Result, Results

#: What to do about a stale run.
REMEDY = "`run --retrain-stale` trains it anew"

#: How runs stand that have an end which is not tried again.
SETTLED = frozenset({"done", "stale"})

NOT_HERE = "data not here"

_PARTS = {"train": "training images", "test": "test images", "extra_train": "extra training images"}


def rests_on(
    cell: Cell, data: Path, source: str | None, parents: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return what a run rests on, for the `environment` of its record.

    Args:
        source: hash of the source of a user's method, as of `Entry.source`.
        parents: their records by run id.
    """
    told: dict[str, Any] = {"code": source, "parents": {name: mark(r) for name, r in parents.items()}}
    with suppress(BenchError, OSError):  # the run will tell what is wrong with its data
        if not content.is_embedded(cell.dataset):
            told["data"] = content.key(cell.dataset, data)
            told["validation"] = content.validation(cell.dataset, data)
    return {name: value for name, value in told.items() if value}


def of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a record says that its run rests on; older ones say nothing."""
    return (record.get("environment") or {}).get("rests_on") or {}


def mark(record: Mapping[str, Any]) -> str:
    """Hash what a finished run rests on, data by their fingerprint: another training on it has the same."""
    said = of(record)
    fingerprint = (record.get("data") or {}).get("fingerprint")
    return hash_of([fingerprint, said.get("code"), said.get("parents")])[:16]


class Now:
    """Data and code as they are at this moment, each looked at once.

    Args:
        data: the data directory.
        code: hashes of the sources of users' methods by name, as far as they are loaded.
    """

    def __init__(self, data: Path, code: Mapping[str, str] | None = None) -> None:
        self.data, self.code = data, dict(code or {})
        self._keys: dict[DataSet, str | BenchError | None] = {}
        self._contents: dict[Any, content.Content | BenchError] = {}

    def key(self, dataset: DataSet) -> str | BenchError | None:
        """Return the key of a data set, what is wrong with it, or None where it is not here."""
        if dataset not in self._keys:
            self._keys[dataset] = self._look(dataset)
        return self._keys[dataset]

    def _look(self, dataset: DataSet) -> str | BenchError | None:
        try:
            if not content.is_here(dataset, self.data):
                return None
        except (BenchError, OSError):  # no lists, or images that are still to be packed
            return None
        try:
            return content.key(dataset, self.data)
        except BenchError as error:
            return error
        except OSError as error:
            return BenchError(str(error))

    def content(
        self, dataset: DataSet, imbalance_factor: float, subsample: int | None
    ) -> content.Content | BenchError | None:
        """Return what a split holds, what is wrong with it, or None where it is not here."""
        key = self.key(dataset)
        if not isinstance(key, str):
            return key
        asked = (dataset, imbalance_factor, subsample)
        if asked not in self._contents:
            try:
                self._contents[asked] = content.content(*asked, self.data, key)
            except BenchError as error:
                self._contents[asked] = error
        return self._contents[asked]

    def data_change(self, run: Result) -> str | None:
        """Say what of a finished run's data is not what it was, `NOT_HERE`, or None."""
        cell = run.cell
        dataset = cell.dataset
        if content.is_embedded(dataset):
            return None
        key = self.key(dataset)
        if key is None:
            return NOT_HERE
        said, data = of(run.record), run.record.get("data") or {}
        if key == said.get("data") or not data.get("fingerprint"):
            return None
        now = self.content(dataset, cell.imbalance_factor, cell.protocol.subsample)
        if isinstance(now, BenchError):
            return f"its data cannot be read any more ({now})"
        assert now is not None
        changed = [
            f"{_PARTS[part]} ({data['fingerprint'].get(part)}, now {now.fingerprint.get(part)})"
            for part in _PARTS
            if data["fingerprint"].get(part) != now.fingerprint.get(part)
        ]
        if data.get("class_names", now.class_names) != now.class_names:
            changed.append("class names")
        if "validation" in said and said["validation"] != content.validation(dataset, self.data):
            changed.append("validation images")
        return f"changed since: {', '.join(changed)}" if changed else None


def judged(run: Result, results: Results, now: Now | None) -> State:
    """Say how a run stands whose record says that it is done: done, or stale and why.

    Args:
        now: None: data are not looked at, and code as far as records tell of it.
    """
    try:
        return _judged(run, results, now)
    except (BenchError, AttributeError, KeyError, TypeError, ValueError):  # it is told as unreadable
        return State("done")


def _judged(run: Result, results: Results, now: Now | None) -> State:
    changes = [*_of_parents(run, results), *_of_code(run, results, now)]
    data = now.data_change(run) if now is not None and not changes else None
    if data is not None and data != NOT_HERE:
        changes.append(data)
    if changes:
        return State("stale", f"{'; '.join(changes)}; {REMEDY}")
    return State("done", data)


def _of_parents(run: Result, results: Results) -> Iterable[str]:
    for parent in run.cell.parents:
        elder = results.of(parent)
        if elder.state.status == "stale":
            yield f"its parent {parent.run_id} is stale"
        elif elder.state.status == "done":
            known = of(run.record).get("parents", {}).get(parent.run_id)
            if known is not None and known != mark(elder.record):
                yield f"its parent {parent.run_id} was trained anew since, on other data or code"


def _of_code(run: Result, results: Results, now: Now | None) -> Iterable[str]:
    name = run.cell.method.name
    if name in built_in():
        return
    here = now.code.get(name) if now is not None else None
    current = here or results.newest_code.get(name)
    known = of(run.record).get("code")
    if known is not None and current is not None and known != current:
        where = "its methods file" if here else "there is a newer run of this method: its methods file"
        yield f"{where} changed since ({known}, now {current})"


def to_train(
    cells: Sequence[Cell],
    known: Mapping[str, State],
    *,
    retrain_stale: bool,
    force: bool,
    begun: Collection[str] = (),
) -> tuple[list[Cell], list[str]]:
    """Return the cells that may be trained, and the ids of runs to be trained once more however they stand.

    Left out are those that start from a stale run which is not to be trained once more.

    Args:
        known: how all of them and their ancestors stand.
        begun: ids of runs that are being trained once more.
    """
    family = families(cells)
    stale = {run_id for run_id in family if known[run_id].status == "stale"}
    again = set(stale) if retrain_stale else set()
    if force:
        again |= {cell.run_id for cell in cells}

    def rests_on_stale(cell: Cell) -> bool:
        return any(elder.run_id in stale - again - set(begun) for elder in cell.family()[:-1])

    kept = [cell for cell in cells if not rests_on_stale(cell)]
    return kept, [run_id for run_id in families(kept) if run_id in again]


def refuse_other_content(cells: Iterable[Cell], results: Results, now: Now) -> None:
    """See that a data set's name means what it means in the runs that are there.

    Raises:
        BenchError: runs of this name were trained on other content, from another place.
    """
    asked = dict[str, list[DataSet]]()
    for dataset in {cell.dataset for cell in cells}:
        asked.setdefault(dataset.name, []).append(dataset)
    looked = set[Any]()
    for run in results:
        for name in asked:
            if run.run_id.startswith(f"{name}-if") and (run.record.get("data") or {}).get("fingerprint"):
                try:
                    trained = cell_from(run.record["cell"])
                except (KeyError, ValueError):  # it is told as unreadable
                    continue
                for dataset in asked[name]:
                    _compare_content(dataset, trained, run, now, looked)


def _compare_content(asked: DataSet, trained: Cell, run: Result, now: Now, looked: set[Any]) -> None:
    there, said = trained.dataset, run.record["data"]["fingerprint"]
    how = (trained.imbalance_factor, trained.protocol.subsample)
    case = (asked, there, *how, str(said))
    if case in looked or _place(asked) == _place(there) or asked.identity() != there.identity():
        return
    looked.add(case)
    found = now.content(asked, *how)
    if isinstance(found, content.Content) and (
        found.fingerprint != said or found.class_names != run.record["data"].get("class_names")
    ):
        raise BenchError(
            f"data set {asked.name!r}: {_place(asked)} has other content than {_place(there)}, on which "
            f"{run.run_id} was trained ({said['train']}, here {found.fingerprint['train']}); give this data "
            "set another name"
        )


def _place(dataset: DataSet) -> str:
    """Say where a data set's content is, which is no part of a cell's id."""
    extra = dataset.extra_train
    more = [extra.folder, extra.list_file] if extra else []
    classes = dataset.lists.classes if dataset.lists else None
    return ", ".join(filter(None, [dataset.folder or dataset.source, classes, *more]))
