"""The columns of all tables of lines, each declared once: its head, its help, and what stands in it.

A table picks columns by name. A head or getter that depends on a table (the sizes of shot groups, what is
bold) is put in by `line_table`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from bench.leaderboard.check import words
from bench.leaderboard.entries import Entry, deviation, mean
from bench.leaderboard.leagues import headline_of
from bench.leaderboard.lines import Line, Marks
from bench.metrics import METRICS
from bench.report import text, values
from bench.report.page import Column, Table, Value
from bench.report.values import FOOTNOTES
from bench.report.widening import protocol

# -- declared once ---------------------------------------------------------------------------------
_METHOD = (
    "what was measured leads to its page: configuration, curves, classes, protocol. Below it: who reports "
    "the number; several reports of one method and protocol are one row. Indented: the same training without "
    "a part of the method"
)
#: The head of what ranks where classes have unequal numbers of test images, as accuracy would favour some.
BALANCED = "balanced accuracy (last epoch): the test set is imbalanced"
_PARAMETERS = "all that the method learns; its scores may need fewer"
_MACHINE = "it depends on the machine and on what else ran there"

#: All columns of lines by name; those that stand in a table of lines only under another name come last.
COLUMNS: dict[str, Column] = {
    "rank": Column(
        "#",
        "among the rows shown: first what was measured here, then by itself what was only published. Equal "
        "numbers share the better rank, what is n/a has none. In brackets: of one seed, which ranks nothing",
        get=values.rank,
    ),
    "method": Column("method", _METHOD, numeric=False, get=values.method),
    "n": Column(
        "n", "how many seeds; n/a where a source does not say", get=partial(values.whole, name="n")
    ),
    **{
        name: Column(
            metric.head, metric.help, headline=name == "accuracy", get=partial(values.score, name=name)
        )
        for name, metric in METRICS.items()
    },
    "best": Column(
        "best on test (selection optimism)",
        "the epoch that scored best on the test set, as papers often report it, and by how much choosing it "
        "flatters the last epoch",
        get=values.best,
    ),
    "published": Column(
        "published",
        "the published number of this protocol, and the range of all reports as near; "
        + "; ".join(f"{letter}: {said}" for letter, said in FOOTNOTES.items()),
        get=values.published,
    ),
    "gap": Column(
        "verdict",
        "the verdict, and measured minus published in points. Reproduced: at most 0.5, the standard error "
        "at most 0.25. Above, below: more than 0.5 and two standard errors. Inconclusive: the seeds are "
        "too few or too unlike to say. Protocol differs: in the fields named, so nothing follows. Of a "
        "control: what the method adds to it",
        get=values.gap,
    ),
    "time": Column(
        "device time", f"for one run and what it starts from, mean over seeds; {_MACHINE}", get=values.time
    ),
    "interval": Column(
        "95 % interval",
        "of the accuracy, by a bootstrap over seeds and test images; of one seed over images alone. n/a "
        "where it is not kept which images were classified rightly",
        get=values.interval_of,
    ),
    "track": Column(
        "test-agnostic mean",
        "plain mean of the accuracies on eleven test sets, from forward 50 over uniform to backward 50, "
        "without adapting to any",
        get=values.track_mean,
    ),
    "parameters": Column("parameters", _PARAMETERS, get=partial(values.whole, name="parameters")),
    "year": Column("year", "when the number was published", get=values.year),
    "protocol": Column(
        "protocol",
        "in which fields a row differs from the league you opened; empty if in none",
        numeric=False,
        get=lambda line: Value(protocol(line.league)),
    ),
    # of a recipe
    "asked": Column(
        "method", "the method, and below it the recipe's name for it", numeric=False, get=values.asked
    ),
    "backbone": Column(
        "backbone", numeric=False, get=lambda line: Value(line.asked[0].cell.backbone.name)
    ),
    "done": Column("n", "seeds that are done, of those asked for", get=values.done_of),
    "size": Column("parameters", _PARAMETERS, get=partial(values.averaged, name="parameters")),
    "speed": Column(
        "images/s",
        "training speed, mean over seeds; it depends on the machine",
        get=partial(values.averaged, name="images_per_second"),
    ),
    "minutes": Column(
        "minutes", f"time of training one run, without what it starts from, mean over seeds; {_MACHINE}",
        get=values.minutes,
    ),
    # of the verdicts
    "judge": Column("published", get=values.judge),
    "measured": Column(
        "measured",
        "mean of what is like the published number: last epoch, or best on test",
        get=lambda line: Value(text.number(line.pair["measured"]), text.order(line.pair["measured"])),
    ),
}  # fmt: skip


def line_table(
    names: Collection[str],
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
        get = column.get
        if name == "published":
            get = partial(values.published, marks=marks)
        elif name in marks.bold:
            get = partial(values.score, name=name, marks=marks)
        head = BALANCED if name == first != "accuracy" else heads.get(name, column.head)
        ranks, optional = name == first, name in hidden and name != first
        columns.append(replace(column, name=name, head=head, get=get, headline=ranks, hidden=optional))
    return Table.of(columns, lines, caption, **more)


def _headline_first(names: Collection[str], first: str) -> list[str]:
    """Put the metric that ranks in the place of the accuracy, if that is shown, and that in its."""
    if "accuracy" not in names:
        return list(names)
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
    scores = [[row[name] for row in rows if row[name] is not None] for name in (*METRICS, "best_accuracy")]
    means = [Value(text.around(mean(known), deviation(known))) for known in scores]
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
        get=lambda pair: Value(str(pair["verdict"]), kind=values.style(pair["verdict"])),
    ),
    Column("differs in", numeric=False, get=lambda pair: Value(words(pair["differs"]) or "nothing stated")),
    Column("by", numeric=False, get=lambda pair: Value(pair["reported_by"])),
    Column("source", numeric=False, get=lambda pair: Value(pair["source"])),
]
