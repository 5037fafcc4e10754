"""The literature as a table: one published number per row, its source, and what is known of its protocol.

``results/published/`` holds it: ``published.csv`` has the numbers, ``methods.csv`` says what is established
of each method that is not built here, as ``methods/methods.csv`` does of those that are. Any other CSV file
there adds rows of the same columns. What a source does not state is empty, and NA in the table; nothing is
guessed. README.md there says how each column was derived.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from bench import facts, shipped, typed_csv
from bench.cell import STANDARD
from bench.errors import BenchError, did_you_mean
from bench.typed_csv import Column

#: This project's own copy of the literature.
HOME = shipped.LITERATURE

#: How a number was read, the surest way first; it says nothing of whether the number is right.
TRUST = ("text", "read from an image", "third-party notes", "unpublished repo")

#: Augmentation classes; `mixed` is a table that mixes policies and does not say which row has which.
AUGMENTATIONS = ("none", "std", "cutout", "autoaug", "autoaug_cutout", "randaug", "simclr", "deit", "mixed")

#: How the reported epoch was chosen.
SELECTIONS = ("last", "best_test", "best_val")

PRETRAINING = ("none", "imagenet1k", "imagenet21k", "clip", "mae_same_set", "other")
EXTRA_DATA = ("none", "balanced_meta_set", "generated_in_domain", "generated_pretrained", "text", "other")

#: Facts of a method that its rows take over where they say nothing; `selection` only its authors' own.
INHERITED = ("experts", "selection", "pretraining", "extra_data")

#: What a row takes over from its method besides.
DESCRIPTION = ("title", "venue", "paper", "views", "stages")

_slug = typed_csv.matching(r"[a-z0-9][a-z0-9_.]{0,80}", "a name of small letters, digits and _")
_width = typed_csv.matching(
    r"standard|other|[0-9]+(\.[0-9]+)?x-wide", "'standard', 'other' or like '4x-wide'"
)
_any = Column("string", typed_csv.text)
_shared = {
    "experts": Column("Int64", typed_csv.whole(1, 100)),
    "selection": Column("string", typed_csv.one_of(*SELECTIONS)),
    "pretraining": Column("string", typed_csv.one_of(*PRETRAINING)),
    "extra_data": Column("string", typed_csv.one_of(*EXTRA_DATA)),
    "year": Column("Int64", typed_csv.whole(1990, 2100)),
}

#: Columns of a file of numbers; those marked True must be filled.
COLUMNS = {
    "dataset": Column("string", _slug, True),
    "imbalance_factor": Column("Float64", typed_csv.number(1), True),
    "method": Column("string", typed_csv.text, True),
    "label": _any,
    "backbone": Column("string", _slug),
    "width_class": Column("string", _width),
    "epochs": Column("Int64", typed_csv.whole(1, 100_000)),
    "augmentation": Column("string", typed_csv.one_of(*AUGMENTATIONS)),
    **_shared,
    "data_copy": Column("string", _slug),
    "tail": _any,
    "metric": Column("string", typed_csv.one_of("top1"), True),
    "shots": Column("string", typed_csv.one_of("all", "many", "medium", "few"), True),
    "value": Column("Float64", typed_csv.number(0, 100), True),
    "std": Column("Float64", typed_csv.number(0, 100)),
    "n_seeds": Column("Int64", typed_csv.whole(1, 10_000)),
    "reported_by": Column("string", typed_csv.text, True),
    "original": Column("boolean", typed_csv.yes, True),
    "source": Column("string", typed_csv.text, True),
    "trust": Column("string", typed_csv.one_of(*TRUST), True),
    "backbone_note": _any,
    "epochs_note": _any,
    "augmentation_note": _any,
    "seeds_note": _any,
    "note": _any,
    "doubtful": Column("boolean", typed_csv.yes),
}

#: Columns of a file of methods: `aliases` are labels of the literature, separated by ``|``; `stages` names
#: the cells, first to last, of which the last has the published accuracy, where there are several.
METHOD_COLUMNS = {
    "method": Column("string", _slug, True),
    "title": Column("string", typed_csv.text, True),
    "aliases": _any,
    "family": _any,
    "venue": _any,
    "paper": Column("string", typed_csv.matching(r"https?://\S{1,300}", "a link")),
    "views": Column("Int64", typed_csv.whole(1, 100)),
    **_shared,
    "stages": Column("string", typed_csv.matching(r"[a-z0-9_]+(>[a-z0-9_]+)+", "method names joined by '>'")),
}


def load(*extra: Path, folder: Path = HOME, problems: list[str] | None = None) -> pd.DataFrame:
    """Return all published numbers as a typed table, one per row, in the order of the files.

    Besides `COLUMNS` a row has the `DESCRIPTION` of its method, and `place`, the ``file:line`` it stands in.

    Args:
        extra: files with a user's own rows; one whose name ends in ``methods.csv`` adds methods instead.
        folder: where the literature lies; every CSV file in it is read.
        problems: takes the mistakes, whose rows are left out; without it the first one is raised.

    Raises:
        BenchError: ``file:line: column: what is wrong``.
    """
    told = [] if folder.is_dir() else [f"{folder}: no such folder; name the one with published.csv"]
    files = [
        *_own_methods(folder),
        *sorted(folder.glob("*.csv"), key=lambda file: (file.name != "published.csv", file.name)),
        *extra,
    ]
    of_methods = [file for file in files if file.name.endswith("methods.csv")]
    known = {row["method"]: row for row in _methods(of_methods, told)}
    names = {spelling: name for name, row in known.items() for spelling in _spellings(row)}
    names |= {name: name for name in known}

    rows, places = [], dict[tuple[Any, ...], str]()
    for file in files:
        for place, row in typed_csv.rows(file, COLUMNS, told) if file not in of_methods else ():
            method = names.get(row["method"].casefold())
            if method is None:
                told.append(
                    f"{place}: method: {row['method'][:40]!r} is unknown{_hint(row['method'], names)}"
                )
                continue
            earlier = places.setdefault(tuple(row.values()), place)
            if earlier != place:
                told.append(f"{place}: value: the row is that of {earlier} again; leave one out")
                continue
            row |= {"method": method, "label": row["label"] or row["method"], "place": place}
            row["tail"] = row["tail"] or STANDARD
            if row["doubtful"] is None:  # a file without the column says it in the note
                row["doubtful"] = "doubtful" in (row["note"] or "")
            rows.append(_completed(row, known[method]))
    if problems is None:
        _raise_first(told)
    else:
        problems += told
    types = {name: column.dtype for name, column in COLUMNS.items()}
    types |= {name: METHOD_COLUMNS[name].dtype for name in DESCRIPTION}
    return pd.DataFrame(rows, columns=[*types, "place"]).astype(types | {"place": "string"})


def load_methods(*extra: Path, folder: Path = HOME, problems: list[str] | None = None) -> pd.DataFrame:
    """Return what is established of each method, indexed by its name; `aliases` holds lists.

    Args:
        problems: takes the mistakes, as in `load`.
    """
    told: list[str] = []
    rows = _methods([*_own_methods(folder), folder / "methods.csv", *extra], told)
    if problems is None:
        _raise_first(told)
    else:
        problems += told
    table = pd.DataFrame(rows, columns=list(METHOD_COLUMNS))
    table = table.astype({name: column.dtype for name, column in METHOD_COLUMNS.items()})
    table["aliases"] = pd.Series([_aliases(row) for row in rows], dtype=object)
    return table.set_index("method")


def plain(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows of Python values, None for what is not known."""
    loose = table.astype(object)
    rows = loose.where(loose.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def _completed(row: dict[str, Any], method: dict[str, Any]) -> dict[str, Any]:
    for name in INHERITED:
        if row[name] is None and (name != "selection" or row["original"]):
            row[name] = method[name]
    return row | {name: method[name] for name in DESCRIPTION}


def _own_methods(folder: Path) -> list[Path]:
    """Name the file of the methods that are built here, a part of this project's own literature."""
    return [facts.FILE] if folder == HOME else []


def _methods(files: list[Path], told: list[str]) -> list[dict[str, Any]]:
    known, owners = [], dict[str, str]()
    for file in files:
        found = list(typed_csv.rows(file, METHOD_COLUMNS, told))
        names = {row["method"] for _, row in found}
        for place, row in found:
            spellings = _spellings(row) - (names - {row["method"]})  # a name is not another one's title
            if taken := sorted(spellings & owners.keys()):
                told.append(f"{place}: aliases: {taken[0][:40]!r} already stands for {owners[taken[0]]!r}")
                continue
            owners |= dict.fromkeys(spellings, row["method"])
            known.append(row)
    return known


def _spellings(row: dict[str, Any]) -> set[str]:
    return {name.casefold() for name in (row["method"], row["title"], *_aliases(row))}


def _aliases(row: dict[str, Any]) -> list[str]:
    return [name for name in (row["aliases"] or "").split("|") if name]


def _hint(name: str, known: dict[str, str]) -> str:
    near = did_you_mean(name.casefold(), known)
    near = f"{near} Or" if "did you mean" in near else ";"
    return f"{near} add it in a file of yours named like my_methods.csv"


def _raise_first(told: list[str]) -> None:
    if told:
        raise BenchError(told[0] + (f" (and {len(told) - 1} more)" if len(told) > 1 else ""))
