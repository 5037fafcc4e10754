"""The literature as a table: one published number per row, its source, and what is known of its protocol.

In ``results/published/``, ``published.csv`` has the numbers and ``methods.csv`` what is established of each
method that is not built here; ``methods/methods.csv`` has those that are. Any other CSV file there adds rows
of the same columns. What a source does not state is empty, and NA in the table; nothing is guessed. README.md
there says how each column was derived.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pandas as pd
from pydantic import Field

from bench import facts, shipped, typed_csv
from bench.cell import STANDARD
from bench.errors import BenchError, did_you_mean

#: This project's own copy of the literature.
HOME = shipped.LITERATURE

#: How a number was read, the surest way first; whether the number is right is another question.
Trust = Literal["text", "read from an image", "third-party notes", "unpublished repo"]
TRUST: tuple[str, ...] = get_args(Trust)

#: `mixed` is a table that mixes policies and does not say which row has which.
Augmentation = Literal[
    "none", "std", "cutout", "autoaug", "autoaug_cutout", "randaug", "simclr", "deit", "mixed"
]

#: How the reported epoch was chosen.
Selection = Literal["last", "best_test", "best_val"]

Pretraining = Literal["none", "imagenet1k", "imagenet21k", "clip", "mae_same_set", "other"]
ExtraData = Literal[
    "none", "balanced_meta_set", "generated_in_domain", "generated_pretrained", "text", "other"
]

#: Facts of a method that its rows take over where they are empty; `selection` only its authors' own.
INHERITED = ("experts", "selection", "pretraining", "extra_data")

#: What a row takes over from its method besides.
DESCRIPTION = ("title", "venue", "paper", "views", "stages")


def _matching(pattern: str, description: str) -> Any:
    return Field(pattern=f"^(?:{pattern})$", description=description)


Slug = Annotated[str, _matching("[a-z0-9][a-z0-9_.]{0,80}", "a name of small letters, digits and _")]
Width = Annotated[
    str, _matching(r"standard|other|[0-9]+(\.[0-9]+)?x-wide", "'standard', 'other' or like '4x-wide'")
]
Link = Annotated[str, _matching(r"https?://\S{1,300}", "a link")]
Stages = Annotated[str, _matching("[a-z0-9_]+(>[a-z0-9_]+)+", "method names joined by '>'")]
Percent = Annotated[float, Field(ge=0, le=100)]
UpTo100 = Annotated[int, Field(ge=1, le=100)]
Year = Annotated[int, Field(ge=1990, le=2100)]


class Number(typed_csv.Row):
    """A row of a file of numbers; fields without a default must be filled."""

    dataset: Slug
    imbalance_factor: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    method: str
    label: str | None = None
    backbone: Slug | None = None
    width_class: Width | None = None
    epochs: Annotated[int, Field(ge=1, le=100_000)] | None = None
    weight_decay: Annotated[float, Field(ge=0, le=1)] | None = None
    augmentation: Augmentation | None = None
    experts: UpTo100 | None = None
    selection: Selection | None = None
    pretraining: Pretraining | None = None
    extra_data: ExtraData | None = None
    year: Year | None = None
    data_copy: Slug | None = None
    tail: str | None = None
    metric: Literal["top1"]
    shots: Literal["all", "many", "medium", "few"]
    value: Percent
    std: Percent | None = None
    n_seeds: Annotated[int, Field(ge=1, le=10_000)] | None = None
    reported_by: str
    original: bool
    source: str
    trust: Trust
    backbone_note: str | None = None
    epochs_note: str | None = None
    augmentation_note: str | None = None
    seeds_note: str | None = None
    note: str | None = None
    doubtful: bool | None = None


class Method(typed_csv.Row):
    """A row of a file of methods.

    `aliases` are labels of the literature, separated by ``|``. `stages` names the cells, first to last, of
    which the last has the published accuracy, where there are several.
    """

    method: Slug
    title: str
    aliases: str | None = None
    family: str | None = None
    venue: str | None = None
    paper: Link | None = None
    views: UpTo100 | None = None
    experts: UpTo100 | None = None
    selection: Selection | None = None
    pretraining: Pretraining | None = None
    extra_data: ExtraData | None = None
    year: Year | None = None
    stages: Stages | None = None


def load(*extra: Path, folder: Path = HOME, problems: list[str] | None = None) -> pd.DataFrame:
    """Return all published numbers as a typed table, one per row, in the order of the files.

    Besides the columns of `Number` a row has the `DESCRIPTION` of its method, and `place`, its ``file:line``.

    Args:
        extra: files with a user's own rows; one whose name ends in ``methods.csv`` adds methods instead.
        folder: the literature; every CSV file in it is read.
        problems: takes the mistakes, whose rows are left out; without it the first one is raised.

    Raises:
        BenchError: ``file:line: column: what is wrong``.
    """
    faults = [] if folder.is_dir() else [f"{folder}: no such folder; name the one with published.csv"]
    files = [
        *_own_methods(folder),
        *sorted(folder.glob("*.csv"), key=lambda file: (file.name != "published.csv", file.name)),
        *extra,
    ]
    of_methods = [file for file in files if file.name.endswith("methods.csv")]
    known = {row["method"]: row for row in _methods(of_methods, faults)}
    names = {spelling: name for name, row in known.items() for spelling in _spellings(row)}
    names |= {name: name for name in known}

    rows, locations = [], dict[tuple[Any, ...], str]()
    for file in files:
        for location, row in typed_csv.rows(file, Number, faults) if file not in of_methods else ():
            label = row["method"]
            method = names.get(label.casefold())
            if method is None:
                faults.append(f"{location}: method: {label[:40]!r} is unknown{_hint(label, names)}")
                continue
            earlier = locations.setdefault(tuple(row.values()), location)
            if earlier != location:
                faults.append(f"{location}: value: the row is that of {earlier} again; leave one out")
                continue
            row |= {"method": method, "label": row["label"] or label, "place": location}
            row["tail"] = row["tail"] or STANDARD
            if row["doubtful"] is None:  # a file without the column has it in the note
                row["doubtful"] = "doubtful" in (row["note"] or "")
            rows.append(_completed(row, known[method]))
    _report(faults, problems)
    types, of_method = typed_csv.dtypes(Number), typed_csv.dtypes(Method)
    types |= {name: of_method[name] for name in DESCRIPTION} | {"place": "string"}
    return pd.DataFrame(rows, columns=list(types)).astype(types)


def load_methods(*extra: Path, folder: Path = HOME, problems: list[str] | None = None) -> pd.DataFrame:
    """Return what is established of each method, indexed by its name; `aliases` holds lists.

    Args:
        problems: takes the mistakes, as in `load`.
    """
    faults: list[str] = []
    rows = _methods([*_own_methods(folder), folder / "methods.csv", *extra], faults)
    _report(faults, problems)
    types = typed_csv.dtypes(Method)
    table = pd.DataFrame(rows, columns=list(types)).astype(types)
    table["aliases"] = pd.Series([_aliases(row) for row in rows], dtype=object)
    return table.set_index("method")


def to_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
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


def _methods(files: list[Path], faults: list[str]) -> list[dict[str, Any]]:
    known, owners = [], dict[str, str]()
    for file in files:
        found = list(typed_csv.rows(file, Method, faults))
        names = {row["method"] for _, row in found}
        for location, row in found:
            spellings = _spellings(row) - (names - {row["method"]})  # a name is not another one's title
            if taken := sorted(spellings & owners.keys()):
                faults.append(
                    f"{location}: aliases: {taken[0][:40]!r} already stands for {owners[taken[0]]!r}"
                )
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


def _report(faults: list[str], problems: list[str] | None) -> None:
    if problems is not None:
        problems += faults
    elif faults:
        raise BenchError(faults[0] + (f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""))
