"""Protocols of leagues in words, and the filters by which a reader chooses rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.leaderboard.leagues import SHARED, League
from bench.leaderboard.lines import Line, Tab
from bench.leaderboard.protocols import FIELDS
from bench.report.text import NOT_STATED

#: The fields to filter by, those of a league and the kind of row, with label and explanation.
FILTERS = {name: (FIELDS[name].label, FIELDS[name].help) for name in SHARED}
FILTERS["kind"] = (
    "rows",
    "measured here, published by others, or external: predictions that were scored here",
)

#: Kinds of leagues.
AS_PAPERS, OWN, ONLY_PAPERS = (
    "same protocol as the papers",
    "short or own protocol",
    "papers only, not measured here",
)

_AUGMENTATIONS = {
    "std": "crop and flip",
    "cutout": "crop, flip and Cutout",
    "autoaug": "AutoAugment",
    "autoaug_cutout": "AutoAugment + Cutout",
    "randaug": "RandAugment",
    "simclr": "SimCLR's views",
    "deit": "DeiT's augmentation",
    "none": "no augmentation",
    "mixed": "mixed augmentation",
}

_NETWORKS = (
    (r"resnet(\d+)_cifar", r"ResNet-\1"),
    (r"(se)?resne(x?)t(\d+)(_32x4d)?", lambda m: f"{(m[1] or '').upper()}ResNe{m[2].upper()}t-{m[3]}"),
    (r"vit_(\w)\w*?(_patch(\d+))?", lambda m: f"ViT-{m[1].upper()}{'/' + m[3] if m[3] else ''}"),
    (r"swin_(\w)\w*", lambda m: f"Swin-{m[1].upper()}"),
)


@dataclass(frozen=True)
class Filter:
    """A field with its values and their numbers of lines, most frequent first."""

    name: str
    label: str
    hint: str
    values: Sequence[tuple[str, int]]


def filters(tab: Tab) -> list[Filter]:
    """Return the filters of a tab's lines, in the sequence of `FILTERS`."""
    found = []
    for name, (label, hint) in FILTERS.items():
        counts = Counter(_value(line, name) for line in tab.lines)
        values = sorted(counts.items(), key=lambda item: (item[0] == NOT_STATED, -item[1], item[0]))
        found.append(Filter(name, label, hint, values))
    return found


def codes(lines: Iterable[Line], fields: Sequence[Filter]) -> list[str]:
    """Return for each line the indices of its values in the filters, joined by dots, for scripts."""
    index = {field.name: {value: str(i) for i, (value, _) in enumerate(field.values)} for field in fields}
    return [".".join(index[name][_value(line, name)] for name in index) for line in lines]


def league_code(lines: Sequence[Line], fields: Sequence[Filter]) -> str:
    """Return the code of the lines of one league, with rows of any kind."""
    return codes(lines[:1], fields)[0].rpartition(".")[0] + "."


def kind_of(lines: Iterable[Line]) -> str:
    """Name the kind of a league by the kinds of its lines."""
    kinds = {line.kind for line in lines}
    if kinds == {"published"}:
        return ONLY_PAPERS
    return AS_PAPERS if "published" in kinds else OWN


def protocol(league: League, lines: Iterable[Line] = ()) -> str:
    """Write a league's protocol in words, with exact epochs if measured `lines` share them."""
    epochs = {line.entry["epochs"] for line in lines if line.kind == "measured"}
    parts = []
    for name in SHARED:
        value = next(iter(epochs)) if name == "epochs_class" and len(epochs) == 1 else league[name]
        if value is None or value != FIELDS[name].usual:
            parts.append(_in_words(name, value))
    return ", ".join(parts)


def _in_words(name: str, value: Any) -> str:
    if value is None:
        return f"{FIELDS[name].label} {NOT_STATED}"
    if name == "backbone":
        return _network(value)
    if name == "epochs_class":
        return f"{value} epochs".replace("-", "–")
    if name == "augmentation":
        return _AUGMENTATIONS.get(value, value)
    return f"{value} experts" if name == "experts" else f"{FIELDS[name].label} {value}"


def _network(name: str) -> str:
    """Write a network as papers do, if its name in timm is known."""
    for pattern, written in _NETWORKS:
        if found := re.fullmatch(pattern, name):
            return found.expand(written) if isinstance(written, str) else str(written(found))
    return name


def _value(line: Line, field: str) -> str:
    value = line.kind if field == "kind" else line.league[field]
    return NOT_STATED if value is None else str(value)
