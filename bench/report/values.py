"""The cells of tables of lines: each function returns a line's value in one column."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bench.leaderboard import bootstrap, track
from bench.leaderboard.check import disagreement, near, sound, words
from bench.leaderboard.lines import Line, Marks, RecipeLine, control_name
from bench.metrics import RANKED
from bench.report import text
from bench.report.table import Column, Value

#: Footnotes of published numbers, by letter.
FOOTNOTES = {
    "b": "the best epoch on the test set; held against our best, or our last if ours is not trained",
    "q": "quoted by others than its authors",
    "i": "read from an image",
    "t": "from notes of third parties",
    "u": "a part of its protocol is not stated, and taken to match",
    "c": "a part of its protocol is from its authors' card",
    "d": "doubtful",
}

#: The fewest scored epochs among which a best one means something.
FEWEST_SCORED = 10

#: The cell of a row to which a column does not apply.
EMPTY = Value("")

#: Added to the sort keys of published ranks, so that they follow the measured ones.
PUBLISHED_AFTER = 10_000

_ADDS = (
    "the method minus this control, paired over common seeds, with its 95 % t interval: what the part adds. "
    "A control is never held against a published number"
)

_CHOSEN = {"best_test": "best epoch on the test set", "best_val": "best epoch on a validation set"}


def rank(line: Line) -> Value:
    """Return the rank, in brackets with one seed; published rows sort last."""
    if line.rank is None:
        return Value(text.NA)
    after = PUBLISHED_AFTER if line.kind == "published" else 0
    return Value(f"({line.rank})" if line.single else str(line.rank), after + line.rank)


def method(line: Line) -> Value:
    """Return the method and the origin of the row; a measured one links to its page."""
    value = Value.method(str(line.entry["title"]), variant=line.variant, tags=_reconstruction(line))
    if line.kind == "published":
        by = line.entry["reported_by"] + (", its authors" if line.entry["original"] else "")
        return replace(value.noted(("plain", by)), hint=source(line.entry))
    differs = line.entry["note"] or ""  # how a comparable copy of the data differs
    notes = [("plain", f"on {differs.partition(':')[0]}")] if differs else []
    notes += [("plain", f"best of {line.trials} trials")] if line.trials else []
    notes += [("origin", line.kind)] if line.kind == "external" else []
    return replace(value.noted(*notes), href=f"runs/{line.page}" if line.page else None, hint=differs)


def source(number: Mapping[str, Any]) -> str:
    """Write where a published number is from and how it was read."""
    return "; ".join(filter(None, (number["source"], read_from(number), number["note"])))


def read_from(number: Mapping[str, Any]) -> str:
    """Write where a published number was read."""
    return f"read from {number['trust'].removeprefix('read from ')}"


def requested(line: RecipeLine) -> Value:
    """Return the method of a recipe's line, its label if that is another name, and what is not done."""
    notes = [("failed", f"split {line.split}")] if line.split else []
    notes += [(status, f"{seeds_of(seeds)} {status}") for status, _, seeds in line.not_done]
    if line.whole and line.runs:
        notes.append(("plain", " ".join(gain(line.whole, line))))
    paper = line.runs[0].row["paper"] if line.runs else None
    value = Value.method(line.name, label=line.label, variant=line.variant, tags=_reconstruction(line))
    return replace(value.noted(*notes), href=paper)


def _reconstruction(line: Line) -> tuple[str, ...]:
    return ("reconstruction",) if line.entry["reconstruction"] else ()


def seeds_of(seeds: Sequence[int]) -> str:
    """Write seeds with their noun."""
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"


def done_of(line: RecipeLine) -> Value:
    """Return how many of the requested seeds are done."""
    done, wanted = len(line.runs), len(line.requested)
    return Value(str(done) if done == wanted else f"{done} of {wanted}", done)


def metric(line: Line, name: str, marks: Marks | None = None) -> Value:
    """Return a metric in percent: ours as mean ± deviation, a published one as printed, with its range.

    A published line has shot groups only; its accuracy has its own column.
    """
    bold = marks is not None and line.key in marks.bold[name]
    if line.kind == "published":
        kind = "doubtful" if line.doubtful else ""
        return replace(_printed(line, name), bold=bold, kind=kind) if name in RANKED[1:] else EMPTY
    value, ties = line.entry[name], marks.ties[name].get(line.key) if marks else None
    return Value.number(
        value,
        line.entry[f"{name}_std"],
        bold=bold,
        kind="single" if marks and line.single and value is not None else "",
        data={} if ties is None else {"data-ties": " ".join(ties)},
    )


def _printed(line: Line, name: str) -> Value:
    """Return the published value of a metric, with the range of all reports that are not doubtful."""
    value, std, reports = line.entry[name], line.entry[f"{name}_std"], line.reports.get(name, ())
    ranged = [report[name] for report in reports if line.doubtful or not report["doubtful"]]
    return Value(
        text.printed(value) + (f" ± {text.printed(std)}" if std is not None else ""),
        text.sort_key(value),
        notes=_range(ranged),
        hint="\n".join(_report(report, report[name]) for report in reports) if len(reports) > 1 else "",
    )


def best(line: Line) -> Value:
    """Return the accuracy of the best epoch on the test set, and its lead over the last epoch.

    Of a run with few epochs scored it is not known: papers choose among all.
    """
    if line.kind == "published":
        return EMPTY
    top, last = line.entry["best_accuracy"], line.entry["accuracy"]
    if top is None or last is None or min((run.scored for run in line.runs), default=0) < FEWEST_SCORED:
        return Value(text.NA)
    return Value(
        f"{text.around(top, line.entry['best_accuracy_std'])} ({top - last:+.2f})", text.sort_key(top)
    )


def published(line: Line, marks: Marks | None = None) -> Value:
    """Return the published number: a method's own, or the one that judges a measured series."""
    marked: dict[str, Any] = {
        "bold": marks is not None and line.key in marks.bold["published"],
        "kind": "doubtful" if line.doubtful else "",
    }
    if line.kind == "published":
        own = _printed(line, "accuracy") if line.reported is not None else Value(text.NA)
        return replace(own, tags=footnotes(line.entry) if own.sort_key else (), **marked)
    if line.pair is None or not line.judged:  # a number of another protocol would mislead
        return Value(text.NA)
    alike, unstated, by_card = near(line.pairs), line.pair["unstated"], line.pair["by_card"]
    hints = [_report(other, other["published"]) for other in alike]
    hints += [f"not stated there, and taken to match: {words(unstated)}"] if unstated else []
    hints += [f"not stated there, but by its authors' card: {words(by_card)}"] if by_card else []
    return Value(
        text.printed(line.pair["published"]),
        line.pair["published"],
        tags=footnotes(line.pair, unstated),
        notes=_range([other["published"] for other in sound(line.pairs)]),
        hint="\n".join(hints),
        **marked,
    )


def compared(line: Line) -> Value:
    """Return the measured number that is held against the published one, and its epoch."""
    assert line.pair is not None
    epoch = "best" if line.pair["ours"] == "best_test" else "last"
    return Value.number(line.pair["measured"]).noted(("plain", epoch))


def footnotes(number: Mapping[str, Any], unstated: Collection[str] = ()) -> tuple[str, ...]:
    """Return the letters of `FOOTNOTES` that apply to a published number."""
    applies = {
        "b": number["selection"] == "best_test",
        "q": not number["original"],
        "i": number["trust"] == "read from an image",
        "t": number["trust"] == "third-party notes",
        "u": bool(unstated),
        "c": bool(number["by_card"]),
        "d": bool(number["doubtful"]),
    }
    return tuple(letter for letter in FOOTNOTES if applies[letter])


def published_by(line: Line) -> Value:
    """Return the published number and who reports it."""
    value = published(line)
    by = [("plain", line.pair["reported_by"])] if line.pair else []
    return replace(value, notes=(*by, *value.notes))


def gap(line: Line) -> Value:
    """Return the verdict with measured minus published, or the fields in which the protocols differ."""
    pair = line.pair
    if pair is None:
        return EMPTY if line.kind == "published" else Value(text.NA)
    value, number = Value(str(pair["verdict"]), kind=style(pair["verdict"])), text.printed(pair["published"])
    if pair["differs"]:  # then the gap means nothing
        fields = words(pair["differs"])
        hint = f"nearest published: {number} by {pair['reported_by']}; its protocol differs in {fields}"
        return replace(value.noted(("detail", fields)), hint=hint)
    ours = "our best epoch on the test set, as theirs" if pair["ours"] == "best_test" else "our last epoch"
    hint = f"{ours}: {text.printed(pair['measured'])}, published {number}"
    notes = [("gap", text.gap(pair["d"]))]
    if several := disagreement(line.pairs):
        notes.append(("plain", several))
    return replace(value.noted(*notes), sort_key=text.sort_key(pair["d"]), hint=hint)


def gain(whole: Line, control: Line) -> tuple[str, str]:
    """Write what a method adds to its control, and the interval with the number of common seeds."""
    found = whole.adds(control)
    if not found.n:
        return "no common seed", "n = 0"
    interval = f"{text.gap(found.low)} to {text.gap(found.high)}, " if found.n > 1 else ""
    return f"{whole.entry['title']} adds {text.gap(found.mean)}", f"({interval}n = {found.n})"


def control_row(whole: Line, name: str, control: Line, columns: Sequence[Column]) -> list[Value]:
    """Return the row of a control below its method: its metrics, and what the method adds."""
    adds, interval = gain(whole, control)
    own = dict.fromkeys(("rank", "published", "protocol"), EMPTY) | {
        "method": Value(control_name(name), href=f"runs/{control.page}" if control.page else None),
        "gap": Value(adds, notes=(("gap", interval),), hint=_ADDS),
    }
    return [own[c.name] if c.name in own else c.get(control) for c in columns]


def style(verdict: str) -> str:
    """Return the CSS class of a verdict."""
    return verdict.partition(",")[0].replace(" ", "-")


def interval_of(line: Line) -> Value:
    """Return the interval of the mean accuracy over seeds and test images."""
    hits = bootstrap.hits(line.runs)
    found = None if hits is None else bootstrap.interval(hits)
    if found is None:
        return Value(text.NA)
    return Value(f"{text.number(found.low)} to {text.number(found.high)}", round(found.low, 6))


def track_mean(line: Line) -> Value:
    """Return the mean over the test sets of the test-agnostic track."""
    rows = track.rows([line])
    return Value.number(*rows[0].means[track.MEAN]) if rows else Value(text.NA)


def year(line: Line) -> Value:
    """Return the year, without a comma."""
    return Value(str(line.entry["year"] or text.NA), text.sort_key(line.entry["year"]))


def time(line: Line) -> Value:
    """Return the device time of one run."""
    if line.kind == "published":
        return EMPTY
    return Value(text.duration(line.entry["device_seconds"]), text.sort_key(line.entry["device_seconds"]))


def minutes(line: Line) -> Value:
    """Return the device time of one run, without the run it starts from."""
    seconds = line.mean("device_seconds")
    value = None if seconds is None else seconds / 60
    return Value(text.short(value), text.sort_key(value))


def _range(values: Sequence[float]) -> tuple[tuple[str, str], ...]:
    if len(values) < 2:
        return ()
    low, high = text.printed(min(values)), text.printed(max(values))
    return (("range", f"{low if low == high else f'{low}–{high}'}, {len(values)} reports"),)


def _report(entry: Mapping[str, Any], value: float) -> str:
    """Write one report in a line: the number, who reports it, and how it was chosen and read."""
    parts = (
        f"{text.printed(value)}  {entry['reported_by']}",
        "the authors" if entry["original"] else None,
        _CHOSEN.get(entry["selection"] or ""),
        read_from(entry),
        entry["note"],
    )
    return "; ".join(filter(None, parts))
