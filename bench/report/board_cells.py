"""What stands in the places of the leaderboard's tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.report import text
from bench.report.lines import Line
from bench.report.page import Value
from bench.report.widening import words

_CHOSEN = {"best_test": "best epoch on the test set", "best_val": "best epoch on a validation set"}


def rank(line: Line) -> Value:
    """Return its rank, in brackets where it is of one seed; without one it is sorted last."""
    if line.rank is None:
        return Value(text.NA, 9999)
    return Value(f"({line.rank})" if single(line) else str(line.rank), line.rank)


def single(line: Line) -> bool:
    """Tell whether it was measured with one seed, which says nothing of its noise."""
    return line.kind != "published" and line.entry["n"] == 1


def method(line: Line) -> Value:
    """Return its name and where the row is from; what was measured leads to its page."""
    notes = [("plain", line.variant)] if line.variant else []
    tags = ("reconstruction",) if line.entry["reconstruction"] else ()
    name, href = str(line.entry["title"]), f"runs/{line.page}" if line.page else None
    if line.kind != "published":
        return Value(name, href=href, tags=tags, notes=(*notes, ("origin", line.kind)))
    by = line.entry["reported_by"] + (", its authors" if line.entry["original"] else "")
    told = (line.entry["source"], f"read from {line.entry['trust']}", line.entry["note"])
    return Value(name, tags=tags, notes=(*notes, ("plain", by)), hint="; ".join(filter(None, told)))


def score(line: Line, name: str, strong: bool, tied: Mapping[str, str]) -> Value:
    """Return an accuracy: ours as mean ± deviation, a published one as printed, with its range."""
    value, std, reports = line.entry[name], line.entry[f"{name}_std"], line.reports.get(name, ())
    if line.kind != "published":
        kind = "single" if single(line) and value is not None else ""
        return Value(text.around(value, std), text.order(value), strong=strong, kind=kind, data=tied)
    shown = text.printed(value) + (f" ± {text.printed(std)}" if std is not None else "")
    chosen = name == "accuracy" and line.entry["selection"] == "best_test"
    return Value(
        shown,
        text.order(value),
        strong=strong,
        tags=("best epoch",) if chosen else (),
        notes=_range([report[name] for report in reports]),
        hint="\n".join(_report(report, report[name]) for report in reports) if len(reports) > 1 else "",
    )


def best(line: Line) -> Value:
    """Return the best epoch on the test set, and by how much choosing it flatters."""
    top, last = line.entry["best_accuracy"], line.entry["accuracy"]
    gained = f" ({top - last:+.2f})" if top is not None and last is not None else ""
    return Value(text.around(top, line.entry["best_accuracy_std"]) + gained, text.order(top))


def published(line: Line) -> Value:
    """Return the number a measured series is judged by, with the range of all that are as near."""
    pair = line.pair
    if pair is None or pair["published"] is None:
        return Value(text.NA, -1)
    alike = sorted((p for p in line.pairs if p["differs"] == pair["differs"]), key=lambda p: p["published"])
    told = [_report(other, other["published"]) for other in alike]
    notes = list(_range([other["published"] for other in alike]))
    if pair["unstated"]:
        notes.append(("plain", text.counted(len(pair["unstated"]), "field") + " not stated"))
        told.append(f"not stated there, and taken to match: {words(pair['unstated'])}")
    return Value(
        text.printed(pair["published"]),
        pair["published"],
        tags=("best epoch",) if pair["selection"] == "best_test" else (),
        notes=tuple(notes),
        hint="\n".join(told),
    )


def gap(line: Line) -> Value:
    """Return measured minus published with its sign, and the verdict in words."""
    pair = line.pair
    if pair is None or pair["d"] is None:
        return Value(text.NA, -999)
    kind = style(pair["verdict"])
    notes = [(kind, str(pair["verdict"]))]
    if pair["differs"]:
        notes.append(("plain", words(pair["differs"])))
    ours = "our best epoch on the test set, as theirs" if pair["ours"] == "best_test" else "our last epoch"
    told = f"{ours}: {text.printed(pair['measured'])}, published {text.printed(pair['published'])}"
    return Value(text.gap(pair["d"]), round(pair["d"], 6), notes=tuple(notes), kind=kind, hint=told)


def style(verdict: str) -> str:
    """Return the style of a verdict."""
    return verdict.partition(",")[0].replace(" ", "-")


def share(line: Line, name: str) -> Value:
    """Return a percentage that is only known of our own."""
    value = line.entry[name]
    return Value(text.around(value, line.entry[f"{name}_std"]), text.order(value))


def whole(line: Line, name: str) -> Value:
    """Return a whole number."""
    return Value(text.number(line.entry[name], 0), text.order(line.entry[name]))


def year(line: Line) -> Value:
    """Return a year, without a comma."""
    return Value(str(line.entry["year"] or text.NA), text.order(line.entry["year"]))


def time(line: Line) -> Value:
    """Return the device time of one run."""
    return Value(text.duration(line.entry["device_seconds"]), text.order(line.entry["device_seconds"]))


def _range(values: Sequence[float]) -> tuple[tuple[str, str], ...]:
    if len(values) < 2:
        return ()
    low, high = text.printed(min(values)), text.printed(max(values))
    return (("range", f"{low if low == high else f'{low}–{high}'}, {len(values)} reports"),)


def _report(entry: Mapping[str, Any], value: float) -> str:
    """Write one report in a line: the number, who gives it, and how far it is to be trusted."""
    told = (
        f"{text.printed(value)}  {entry['reported_by']}",
        "the authors" if entry["original"] else None,
        _CHOSEN.get(entry["selection"] or ""),
        f"read from {entry['trust']}",
        entry["note"],
    )
    return "; ".join(filter(None, told))
