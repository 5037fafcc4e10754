"""What stands in one place of a table of lines: each function returns a line's value in one column."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bench.leaderboard import bootstrap, track
from bench.leaderboard.check import near, words
from bench.leaderboard.entries import mean
from bench.leaderboard.lines import Asked, Line, Marks
from bench.metrics import RANKED
from bench.report import text
from bench.report.page import Column, Value

#: Footnotes of published numbers, by their letters.
FOOTNOTES = {
    "b": "the best epoch on the test set, and held against our best",
    "q": "quoted by others than its authors",
    "i": "read from an image",
    "u": "a part of its protocol is not stated, and taken to match",
    "c": "a part of its protocol is from its authors' card",
    "d": "doubtful",
}

#: Where a row has no part in a column: nothing is measured of what was only published.
NOTHING = Value("")

#: Ranks of published rows come after those of measured ones, in the order of a table.
PUBLISHED_AFTER = 10_000

_ADDS = (
    "the method minus this control, paired over common seeds, with its 95 % t interval: what the part adds. "
    "A control is never held against a published number"
)

_CHOSEN = {"best_test": "best epoch on the test set", "best_val": "best epoch on a validation set"}


def rank(line: Line) -> Value:
    """Return its rank, in brackets where it is of one seed; what is published comes last."""
    if line.rank is None:
        return Value(text.NA)
    after = PUBLISHED_AFTER if line.kind == "published" else 0
    return Value(f"({line.rank})" if line.single else str(line.rank), after + line.rank)


def method(line: Line) -> Value:
    """Return its name and where the row is from; what was measured leads to its page."""
    notes = [("plain", line.variant)] if line.variant else []
    tags = ("reconstruction",) if line.entry["reconstruction"] else ()
    name, href = str(line.entry["title"]), f"runs/{line.page}" if line.page else None
    if line.kind != "published":
        differs = line.entry["note"] or ""  # of a comparable copy of the data, how it differs
        notes += [("plain", f"on {differs.partition(':')[0]}")] if differs else []
        notes += [("origin", line.kind)] if line.kind == "external" else []
        return Value(name, href=href, tags=tags, notes=tuple(notes), hint=differs)
    by = line.entry["reported_by"] + (", its authors" if line.entry["original"] else "")
    told = (line.entry["source"], f"read from {line.entry['trust']}", line.entry["note"])
    return Value(name, tags=tags, notes=(*notes, ("plain", by)), hint="; ".join(filter(None, told)))


def asked(line: Asked) -> Value:
    """Return the method of a recipe's line, its label where that is another name, and what is not done."""
    notes = [("code", line.label)] if line.label != line.name else []
    notes += [("plain", line.variant)] if line.variant else []
    notes += [("failed", f"split {line.split}")] if line.split else []
    notes += [(status, f"{seeds_of(seeds)} {status}") for status, _, seeds in line.not_done]
    if line.whole and line.runs:
        notes.append(("plain", " ".join(added(line.whole, line))))
    tags = ("reconstruction",) if line.entry["reconstruction"] else ()
    paper = line.runs[0].row["paper"] if line.runs else None
    return Value(line.name, href=paper, tags=tags, notes=tuple(notes))


def seeds_of(seeds: Sequence[int]) -> str:
    """Write which seeds."""
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"


def done_of(line: Asked) -> Value:
    """Return how many seeds are done, of those asked for."""
    done, wanted = len(line.runs), len(line.asked)
    return Value(str(done) if done == wanted else f"{done} of {wanted}", done)


def score(line: Line, name: str, marks: Marks | None = None) -> Value:
    """Return a percentage: ours as mean ± deviation, a published one as printed, with its range.

    Of what was published only shot groups: its accuracy has a column of its own.
    """
    strong = marks is not None and line.key in marks.bold[name]
    if line.kind == "published":
        return replace(_printed(line, name), strong=strong) if name in RANKED[1:] else NOTHING
    value, ties = line.entry[name], marks.ties[name].get(line.key) if marks else None
    return Value(
        text.around(value, line.entry[f"{name}_std"]),
        text.order(value),
        strong=strong,
        kind="single" if marks and line.single and value is not None else "",
        data={} if ties is None else {"data-ties": " ".join(ties)},
    )


def _printed(line: Line, name: str) -> Value:
    """Return what was published of a score, with the range of all reports."""
    value, std, reports = line.entry[name], line.entry[f"{name}_std"], line.reports.get(name, ())
    return Value(
        text.printed(value) + (f" ± {text.printed(std)}" if std is not None else ""),
        text.order(value),
        notes=_range([report[name] for report in reports]),
        hint="\n".join(_report(report, report[name]) for report in reports) if len(reports) > 1 else "",
    )


def best(line: Line) -> Value:
    """Return the best epoch on the test set, and by how much choosing it flatters."""
    if line.kind == "published":
        return NOTHING
    top, last = line.entry["best_accuracy"], line.entry["accuracy"]
    gained = f" ({top - last:+.2f})" if top is not None and last is not None else ""
    return Value(text.around(top, line.entry["best_accuracy_std"]) + gained, text.order(top))


def published(line: Line, marks: Marks | None = None) -> Value:
    """Return the published number: a method's own, or the one that a measured series is judged by."""
    strong = marks is not None and line.key in marks.bold["published"]
    if line.kind == "published":
        own = _printed(line, "accuracy") if line.reported is not None else Value(text.NA)
        kind = "doubtful" if line.doubtful else ""
        return replace(own, tags=letters(line.entry) if own.order else (), strong=strong, kind=kind)
    if line.pair is None or not line.judged:  # a number of another protocol would only mislead
        return Value(text.NA)
    alike, unstated = near(line.pairs), line.pair["unstated"]
    told = [_report(other, other["published"]) for other in alike]
    told += [f"not stated there, and taken to match: {words(unstated)}"] if unstated else []
    by_card = line.pair["by_card"]
    told += [f"not stated there, but by its authors' card: {words(by_card)}"] if by_card else []
    return Value(
        text.printed(line.pair["published"]),
        line.pair["published"],
        tags=letters(line.pair, unstated),
        notes=_range([other["published"] for other in alike]),
        hint="\n".join(told),
        strong=strong,
        kind="doubtful" if line.doubtful else "",
    )


def letters(number: Mapping[str, Any], unstated: Collection[str] = ()) -> tuple[str, ...]:
    """Return the footnotes of a published number, letters of `FOOTNOTES`."""
    said = {
        "b": number["selection"] == "best_test",
        "q": not number["original"],
        "i": number["trust"] == "read from an image",
        "u": bool(unstated),
        "c": bool(number["by_card"]),
        "d": bool(number["doubtful"]),
    }
    return tuple(letter for letter in FOOTNOTES if said[letter])


def judge(line: Line) -> Value:
    """Return the published number, with who reports it."""
    value = published(line)
    by = [("plain", line.pair["reported_by"])] if line.pair else []
    return replace(value, notes=(*by, *value.notes))


def gap(line: Line) -> Value:
    """Return the verdict with measured minus published, or what differs in protocol."""
    pair = line.pair
    if pair is None:
        return NOTHING if line.kind == "published" else Value(text.NA)
    kind = style(pair["verdict"])
    ours = "our best epoch on the test set, as theirs" if pair["ours"] == "best_test" else "our last epoch"
    told = f"{ours}: {text.printed(pair['measured'])}, published {text.printed(pair['published'])}"
    if pair["differs"]:  # a difference of numbers that mean different things would say nothing
        told = f"nearest published: {text.printed(pair['published'])} by {pair['reported_by']}; its protocol"
        return Value(
            str(pair["verdict"]),
            notes=(("detail", f"{words(pair['differs'])}"),),
            kind=kind,
            hint=f"{told} differs in {words(pair['differs'])}",
        )
    return Value(
        str(pair["verdict"]), round(pair["d"], 6), notes=(("gap", text.gap(pair["d"])),), kind=kind, hint=told
    )


def added(whole: Line, control: Line) -> tuple[str, str]:
    """Say what a method adds to its control, and how sure that is: the interval and the common seeds."""
    found = whole.adds(control)
    if not found.n:
        return "no common seed", "n = 0"
    interval = f"{text.gap(found.low)} to {text.gap(found.high)}, " if found.n > 1 else ""
    return f"{whole.entry['title']} adds {text.gap(found.mean)}", f"({interval}n = {found.n})"


def beneath(whole: Line, name: str, control: Line, columns: Sequence[Column]) -> list[Value]:
    """Return the row of a control, which stands beneath its method: its scores, and what the method adds."""
    adds, sure = added(whole, control)
    said = {
        "rank": NOTHING,
        "method": Value(f"↳ {name.replace('_', ' ')}", href=f"runs/{control.page}" if control.page else None),
        "published": NOTHING,
        "gap": Value(adds, notes=(("gap", sure),), hint=_ADDS),
        "protocol": NOTHING,
    }
    return [said[c.name] if c.name in said else c.get(control) for c in columns]


def style(verdict: str) -> str:
    """Return the style of a verdict."""
    return verdict.partition(",")[0].replace(" ", "-")


def interval_of(line: Line) -> Value:
    """Return the interval of the mean accuracy over its seeds and the test images."""
    known = bootstrap.hits(line.runs)
    found = None if known is None else bootstrap.interval(known)
    if found is None:
        return Value(text.NA)
    return Value(f"{text.number(found.low)} to {text.number(found.high)}", round(found.low, 6))


def track_mean(line: Line) -> Value:
    """Return the mean over the test sets of the test-agnostic track."""
    rows = track.rows([line])
    value, spread = rows[0].means[track.MEAN] if rows else (None, None)
    return Value(text.around(value, spread), text.order(value))


def whole(line: Line, name: str) -> Value:
    """Return a whole number."""
    return Value(text.number(line.entry[name], 0), text.order(line.entry[name]))


def year(line: Line) -> Value:
    """Return a year, without a comma."""
    return Value(str(line.entry["year"] or text.NA), text.order(line.entry["year"]))


def time(line: Line) -> Value:
    """Return the device time of one run."""
    if line.kind == "published":
        return NOTHING
    return Value(text.duration(line.entry["device_seconds"]), text.order(line.entry["device_seconds"]))


def minutes(line: Line) -> Value:
    """Return the device time of one run without what it starts from."""
    seconds = mean(line.values("device_seconds"))
    value = None if seconds is None else seconds / 60
    return Value(text.short(value), text.order(value))


def averaged(line: Line, name: str) -> Value:
    """Return the mean of a whole number over seeds."""
    value = mean(line.values(name))
    return Value(text.number(value, 0), text.order(value))


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
