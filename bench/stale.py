"""Whether a finished run is *stale*: trained with other data or code than are here now.

A record has the basis of its run (`rests_on`): a key of its data's files, the hash of a user's methods file,
and the bases of its parents. What a record does not have is not compared: older records are checked by their
fingerprint, and data that are not here make no run stale.
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
    from bench.records import Results
    from bench.result import Result

#: What to do about a stale run.
REMEDY = "`run --retrain-stale` trains it again"

#: States of finished runs, which are not trained again unless asked.
SETTLED = frozenset({"done", "stale"})

NOT_HERE = "data not here"

_PARTS = {"train": "training images", "test": "test images", "extra_train": "extra training images"}


def rests_on(
    cell: Cell, data: Path, source: str | None, parents: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the basis of a run, for the `environment` of its record.

    Args:
        source: hash of the source of a user's method, see `MethodSpec.source`.
        parents: their records by run id.
    """
    basis: dict[str, Any] = {"code": source, "parents": {name: mark(r) for name, r in parents.items()}}
    with suppress(BenchError, OSError):  # the run will report what is wrong with its data
        if not content.is_embedded(cell.dataset):
            basis["data"] = content.key(cell.dataset, data)
            basis["validation"] = content.validation(cell.dataset, data)
    return {name: value for name, value in basis.items() if value}


def recorded_basis(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the basis of a run from its record; empty in older ones."""
    return (record.get("environment") or {}).get("rests_on") or {}


def mark(record: Mapping[str, Any]) -> str:
    """Hash the basis of a finished run, data by their fingerprint; repeated trainings have the same hash."""
    basis = recorded_basis(record)
    fingerprint = (record.get("data") or {}).get("fingerprint")
    return hash_of([fingerprint, basis.get("code"), basis.get("parents")])[:16]


class Now:
    """Data and code as they are at this moment, each read once.

    Args:
        data: the data directory.
        code: source hashes of the users' methods that are loaded, by name.
    """

    def __init__(self, data: Path, code: Mapping[str, str] | None = None) -> None:
        self.data, self.code = data, dict(code or {})
        self._keys: dict[DataSet, str | BenchError | None] = {}
        self._contents: dict[Any, content.Content | BenchError] = {}

    def key(self, dataset: DataSet) -> str | BenchError | None:
        """Return the key of a data set, an error, or None where it is not here."""
        if dataset not in self._keys:
            self._keys[dataset] = self._look(dataset)
        return self._keys[dataset]

    def _look(self, dataset: DataSet) -> str | BenchError | None:
        try:
            if not content.is_here(dataset, self.data):
                return None
        except (BenchError, OSError):  # no lists, or images that are not packed yet
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
        """Return the content of a split, an error, or None where it is not here."""
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
        """Return what changed in a finished run's data, `NOT_HERE`, or None."""
        cell = run.cell
        dataset = cell.dataset
        if content.is_embedded(dataset):
            return None
        key = self.key(dataset)
        if key is None:
            return NOT_HERE
        basis, data = recorded_basis(run.record), run.record.get("data") or {}
        if key == basis.get("data") or not data.get("fingerprint"):
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
        if "validation" in basis and basis["validation"] != content.validation(dataset, self.data):
            changed.append("validation images")
        return f"changed since: {', '.join(changed)}" if changed else None


def judged(run: Result, results: Results, now: Now | None) -> State:
    """Return the state of a finished run: done, or stale with the reason.

    Args:
        now: None: do not check the data, and the code only against other records.
    """
    try:
        return _judged(run, results, now)
    except (BenchError, AttributeError, KeyError, TypeError, ValueError):  # it is reported as unreadable
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
            known = recorded_basis(run.record).get("parents", {}).get(parent.run_id)
            if known is not None and known != mark(elder.record):
                yield f"its parent {parent.run_id} was trained again since, on other data or code"


def _of_code(run: Result, results: Results, now: Now | None) -> Iterable[str]:
    name = run.cell.method.name
    if name in built_in():
        return
    here = now.code.get(name) if now is not None else None
    current = here or results.newest_code.get(name)
    known = recorded_basis(run.record).get("code")
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
    """Return the cells that may be trained, and the ids of runs to be trained once more whatever their state.

    Cells that start from a stale run are left out, unless that is trained once more, too.

    Args:
        known: the states of all of them and their ancestors.
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
    """Check that runs of the same data set name were trained on the same content.

    Raises:
        BenchError: a run of this name was trained on other content, from another folder.
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
                except (KeyError, ValueError):  # it is reported as unreadable
                    continue
                for dataset in asked[name]:
                    _compare_content(dataset, trained, run, now, looked)


def _compare_content(asked: DataSet, trained: Cell, run: Result, now: Now, looked: set[Any]) -> None:
    there, fingerprint = trained.dataset, run.record["data"]["fingerprint"]
    how = (trained.imbalance_factor, trained.protocol.subsample)
    case = (asked, there, *how, str(fingerprint))
    if case in looked or _source(asked) == _source(there) or asked.identity() != there.identity():
        return
    looked.add(case)
    found = now.content(asked, *how)
    if isinstance(found, content.Content) and (
        found.fingerprint != fingerprint or found.class_names != run.record["data"].get("class_names")
    ):
        raise BenchError(
            f"data set {asked.name!r}: {_source(asked)} has other content than {_source(there)}, on which "
            f"{run.run_id} was trained ({fingerprint['train']}, here {found.fingerprint['train']}); give "
            "this data set another name"
        )


def _source(dataset: DataSet) -> str:
    """Return where a data set's content is, which is not part of a cell's id."""
    extra = dataset.extra_train
    more = [extra.folder, extra.list_file] if extra else []
    classes = dataset.lists.classes if dataset.lists else None
    return ", ".join(filter(None, [dataset.folder or dataset.source, classes, *more]))
