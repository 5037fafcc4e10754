"""The columns of all tables of lines, each declared once: its head, its help, and what stands in it.

A table picks columns by name. A head or getter that depends on a table (the sizes of shot groups, what is
bold) is put in by `line_table`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from bench.leaderboard import bootstrap, track
from bench.leaderboard.check import near, words
from bench.leaderboard.entries import Entry, deviation, mean
from bench.leaderboard.leagues import headline_of
from bench.leaderboard.lines import Asked, Line, Marks
from bench.metrics import METRICS
from bench.report import text
from bench.report.page import Column, Table, Value
from bench.report.widening import protocol

_CHOSEN = {"best_test": "best epoch on the test set", "best_val": "best epoch on a validation set"}


# -- what stands in a place ------------------------------------------------------------------------
def rank(line: Line) -> Value:
    """Return its rank, in brackets where it is of one seed; without one it is sorted last."""
    if line.rank is None:
        return Value(text.NA, 9999)
    return Value(f"({line.rank})" if line.single else str(line.rank), line.rank)


def method(line: Line) -> Value:
    """Return its name and where the row is from; what was measured leads to its page."""
    notes = [("plain", line.variant)] if line.variant else []
    tags = ("reconstruction",) if line.entry["reconstruction"] else ()
    name, href = str(line.entry["title"]), f"runs/{line.page}" if line.page else None
    if line.kind != "published":
        differs = line.entry["note"] or ""  # of a comparable copy of the data, how it differs
        notes += [("plain", f"on {differs.partition(':')[0]}")] if differs else []
        return Value(name, href=href, tags=tags, notes=(*notes, ("origin", line.kind)), hint=differs)
    by = line.entry["reported_by"] + (", its authors" if line.entry["original"] else "")
    told = (line.entry["source"], f"read from {line.entry['trust']}", line.entry["note"])
    return Value(name, tags=tags, notes=(*notes, ("plain", by)), hint="; ".join(filter(None, told)))


def asked(line: Asked) -> Value:
    """Return the method of a recipe's line, its label where that is another name, and what is not done."""
    notes = [("code", line.label)] if line.label != line.name else []
    notes += [("plain", line.variant)] if line.variant else []
    notes += [("failed", f"split {line.split}")] if line.split else []
    notes += [(status, f"{seeds_of(seeds)} {status}") for status, _, seeds in line.not_done]
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
    """Return a percentage: ours as mean ± deviation, a published one as printed, with its range."""
    value, std, reports = line.entry[name], line.entry[f"{name}_std"], line.reports.get(name, ())
    strong = marks is not None and line.key in marks.bold[name]
    if line.kind != "published":
        ties = marks.ties[name].get(line.key) if marks else None
        return Value(
            text.around(value, std),
            text.order(value),
            strong=strong,
            kind="single" if marks and line.single and value is not None else "",
            data={} if ties is None else {"data-ties": " ".join(ties)},
        )
    chosen = name == "accuracy" and line.entry["selection"] == "best_test"
    return Value(
        text.printed(value) + (f" ± {text.printed(std)}" if std is not None else ""),
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
    if pair is None:
        return Value(text.NA, -1)
    alike = near(line.pairs)
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


def judge(line: Line) -> Value:
    """Return the same, with who reports it."""
    value = published(line)
    by = [("plain", line.pair["reported_by"])] if line.pair else []
    return replace(value, notes=(*by, *value.notes))


def gap(line: Line) -> Value:
    """Return measured minus published with its sign and the verdict, or what differs in protocol."""
    pair = line.pair
    if pair is None:
        return Value(text.NA, -999)
    kind = style(pair["verdict"])
    ours = "our best epoch on the test set, as theirs" if pair["ours"] == "best_test" else "our last epoch"
    told = f"{ours}: {text.printed(pair['measured'])}, published {text.printed(pair['published'])}"
    if pair["differs"]:  # a difference of numbers that mean different things would say nothing
        return Value(f"{pair['verdict']}: {words(pair['differs'])}", -999, kind=kind, hint=told)
    return Value(
        text.gap(pair["d"]), round(pair["d"], 6), notes=((kind, str(pair["verdict"])),), kind=kind, hint=told
    )


def style(verdict: str) -> str:
    """Return the style of a verdict."""
    return verdict.partition(",")[0].replace(" ", "-")


def interval_of(line: Line) -> Value:
    """Return the interval of the mean accuracy over its seeds and the test images."""
    known = bootstrap.hits(line.runs)
    found = None if known is None else bootstrap.interval(known)
    if found is None:
        return Value(text.NA, -1)
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


# -- declared once ---------------------------------------------------------------------------------
_METHOD = (
    "what was measured leads to its page: configuration, curves, classes, protocol. Below it: who reports "
    "the number; several reports of one method and protocol are one row"
)
#: The head of what ranks where classes have unequal numbers of test images, as accuracy would favour some.
BALANCED = "balanced accuracy (last epoch): the test set is imbalanced"
_PARAMETERS = "all that the method learns; its scores may need fewer"
_MACHINE = "it depends on the machine and on what else ran there"

#: All columns of lines by name; those that stand in a table of lines only under another name come last.
COLUMNS: dict[str, Column] = {
    "rank": Column(
        "#",
        "among the rows shown; equal numbers share the better rank, and what is n/a has none. In brackets: "
        "of one seed, which ranks nothing",
        get=rank,
    ),
    "method": Column("method", _METHOD, numeric=False, get=method),
    "n": Column(
        "n", "how many seeds; n/a where a source does not say", get=partial(whole, name="n")
    ),
    **{
        name: Column(metric.head, metric.help, headline=name == "accuracy", get=partial(score, name=name))
        for name, metric in METRICS.items()
    },
    "best": Column(
        "best on test (selection optimism)",
        "the epoch that scored best on the test set, as papers often report it, and by how much choosing it "
        "flatters the last epoch",
        get=best,
    ),
    "published": Column(
        "published",
        "the published number nearest in protocol, and the range of all reports as near. A field of the "
        "protocol that its source does not state counts as the same, and is marked",
        get=published,
    ),
    "gap": Column(
        "gap",
        "measured minus published, in points, and the verdict. Reproduced: at most 0.5, the standard error "
        "at most 0.25. Above, below: more than 0.5 and two standard errors. Inconclusive: the seeds are "
        "too few or too unlike to say. Protocol differs: in the fields named, so nothing follows",
        get=gap,
    ),
    "time": Column(
        "device time", f"for one run and what it starts from, mean over seeds; {_MACHINE}", get=time
    ),
    "interval": Column(
        "95 % interval",
        "of the accuracy, by a bootstrap over seeds and test images; of one seed over images alone. n/a "
        "where it is not kept which images were classified rightly",
        get=interval_of,
    ),
    "track": Column(
        "test-agnostic mean",
        "plain mean of the accuracies on eleven test sets, from forward 50 over uniform to backward 50, "
        "without adapting to any",
        get=track_mean,
    ),
    "parameters": Column("parameters", _PARAMETERS, get=partial(whole, name="parameters")),
    "year": Column("year", "when the number was published", get=year),
    "protocol": Column(
        "protocol",
        "in which fields a row differs from the league you opened; empty if in none",
        numeric=False,
        get=lambda line: Value(protocol(line.league)),
    ),
    # of a recipe
    "asked": Column("method", "the method, and below it the recipe's name for it", numeric=False, get=asked),
    "backbone": Column(
        "backbone", numeric=False, get=lambda line: Value(line.asked[0].cell.backbone.name)
    ),
    "done": Column("n", "seeds that are done, of those asked for", get=done_of),
    "size": Column("parameters", _PARAMETERS, get=partial(averaged, name="parameters")),
    "speed": Column(
        "images/s",
        "training speed, mean over seeds; it depends on the machine",
        get=partial(averaged, name="images_per_second"),
    ),
    "minutes": Column(
        "minutes", f"time of training one run, without what it starts from, mean over seeds; {_MACHINE}",
        get=minutes,
    ),
    # of the verdicts
    "judge": Column("published", get=judge),
    "measured": Column(
        "measured",
        "mean of what is like the published number: last epoch, or best on test",
        get=lambda line: Value(text.number(line.pair["measured"]), text.order(line.pair["measured"])),
    ),
}  # fmt: skip


def line_table(
    names: Iterable[str],
    lines: Sequence[Line],
    marks: Marks,
    *,
    heads: Mapping[str, str],
    hidden: Collection[str] = (),
    caption: str = "",
    **more: Any,
) -> Table:
    """Return the table of lines with the columns named.

    Args:
        marks: what is bold and tied.
        heads: heads of columns that are not those declared.
        hidden: columns that only a reader sees who asks for them.
        more: `kinds` and `data` of `Table`.
    """
    columns = []
    first = headline_of(line.entry for line in lines)
    for name in _headline_first(names, first):
        column = COLUMNS[name]
        get = partial(score, name=name, marks=marks) if name in marks.bold else column.get
        head = BALANCED if name == first != "accuracy" else heads.get(name, column.head)
        optional = name in hidden and name != first
        columns.append(
            replace(column, name=name, head=head, get=get, headline=name == first, hidden=optional)
        )
    return Table.of(columns, lines, caption, **more)


def _headline_first(names: Iterable[str], first: str) -> list[str]:
    """Put the metric that ranks in the place of the accuracy, and that in its."""
    swapped = {"accuracy": first, first: "accuracy"}
    return [swapped.get(name, name) for name in dict.fromkeys((*names, first))]


def seed_table(rows: Sequence[Mapping[str, Any]], heads: Mapping[str, str]) -> Table:
    """Return a series' runs, rows of the table of runs, and their mean where there are several."""

    def metric(row: Mapping[str, Any], name: str) -> Value:
        return Value(text.number(row[name]))

    def finished(row: Mapping[str, Any]) -> Value:
        return Value((row["finished"] or text.NA)[:16].replace("T", " "))

    def chosen(row: Mapping[str, Any]) -> Value:
        epoch = f" ({row['best_epoch'] + 1})" if row["best_epoch"] is not None else ""
        return Value(text.number(row["best_accuracy"]) + epoch)

    columns = [
        Column("seed", get=lambda row: Value(str(row["seed"]))),
        *(Column(heads.get(n, m.head), get=partial(metric, name=n)) for n, m in METRICS.items()),
        Column("best on test (epoch)", get=chosen),
        Column("device time", get=lambda row: Value(text.duration(row["device_seconds"]))),
        Column("finished", numeric=False, get=finished),
    ]
    table = Table.of(columns, rows)
    if len(rows) < 2:
        return table
    values = [[row[name] for row in rows if row[name] is not None] for name in (*METRICS, "best_accuracy")]
    means = [Value(text.around(mean(known), deviation(known))) for known in values]
    return replace(table, rows=[*table.rows, [Value("mean"), *means, Value(""), Value("")]])


def beside_table(
    pair: Entry, fields: Iterable[tuple[str, str, str, str]], labels: Mapping[str, str]
) -> Table:
    """Return both protocols field by field, as of `side_by_side`."""
    kinds = {"differs": "protocol-differs", "same": "reproduced"}
    columns = [
        Column("field", numeric=False, get=lambda row: Value(labels.get(row[0], row[0]))),
        Column("measured here", numeric=False, get=lambda row: Value(row[1])),
        Column(pair["reported_by"], numeric=False, get=lambda row: Value(row[2])),
        Column("", numeric=False, get=lambda row: Value(row[3], kind=kinds.get(row[3], ""))),
    ]
    told = "; ".join(filter(None, (pair["source"], f"read from {pair['trust']}", pair["note"])))
    return Table.of(columns, list(fields), told)


#: Columns of pairs: the other published numbers of a method.
PAIRS = [
    Column("published", get=lambda pair: Value(text.printed(pair["published"]))),
    Column("gap", get=lambda pair: Value(text.gap(pair["d"]))),
    Column(
        "verdict",
        numeric=False,
        get=lambda pair: Value(str(pair["verdict"]), kind=style(pair["verdict"])),
    ),
    Column("differs in", numeric=False, get=lambda pair: Value(words(pair["differs"]) or "nothing stated")),
    Column("by", numeric=False, get=lambda pair: Value(pair["reported_by"])),
    Column("source", numeric=False, get=lambda pair: Value(pair["source"])),
]
