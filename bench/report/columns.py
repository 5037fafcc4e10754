"""The columns of tables of lines, each declared once: its head, its help and its value.

A table selects columns by name; `line_table` fills in what depends on the table (sizes of shot groups, bold).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from bench.leaderboard.leagues import headline_of
from bench.leaderboard.lines import Line, Marks
from bench.metrics import METRICS
from bench.report import values
from bench.report.filters import protocol
from bench.report.table import Column, Table, Value
from bench.report.values import FEWEST_SCORED, FOOTNOTES

_METHOD = (
    "a measured row links to its page with configuration, curves, classes and protocol. A published one "
    "names who reports it; several reports of one method and protocol are one row. Indented: a control, the "
    "same training without a part of the method"
)
#: The head of the metric that ranks if classes have unequal numbers of test images.
BALANCED = "balanced accuracy (last epoch): the test set is imbalanced"
_PARAMETERS = "all parameters that the method trains; inference may need fewer"
_MACHINE = "it depends on the machine and its load"

#: All columns of lines by name; the last ones are for recipes and verdicts.
COLUMNS: dict[str, Column] = {
    "rank": Column(
        "#",
        "among the shown rows; measured and published rows are ranked separately. Equal numbers share the "
        "better rank, n/a has none. In brackets: one seed, not ranked",
        get=values.rank,
    ),
    "method": Column("method", _METHOD, numeric=False, get=values.method),
    "n": Column(
        "n",
        "number of seeds; n/a if a source does not state it",
        get=lambda line: Value.number(line.entry["n"], digits=0),
    ),
    **{
        name: Column(
            metric.head, metric.help, headline=name == "accuracy", get=partial(values.metric, name=name)
        )
        for name, metric in METRICS.items()
    },
    "best": Column(
        "best on test (selection optimism)",
        "the best of the scored epochs on the test set, as papers often report it, and its lead over the "
        f"last; n/a if fewer than {FEWEST_SCORED} were scored",
        get=values.best,
    ),
    "published": Column(
        "published",
        "the published number of this protocol, the authors' own or else the lower median, and below it the "
        "range of its reports that are not doubtful, with sources on hover; "
        + "; ".join(f"{letter}: {note}" for letter, note in FOOTNOTES.items()),
        get=values.published,
    ),
    "gap": Column(
        "verdict",
        "the verdict, and measured minus published in points. Reproduced: at most 0.5, with a standard error "
        "of at most 0.25. Above, below: more than 0.5 plus two standard errors. Inconclusive: too few seeds, "
        "or too much noise. Protocol differs: in the fields named, so the numbers do not compare. For a "
        "control: what the method adds to it",
        get=values.gap,
    ),
    "time": Column(
        "device time", f"of one run and the run it starts from, mean over seeds; {_MACHINE}", get=values.time
    ),
    "interval": Column(
        "95 % interval",
        "of the accuracy, by a bootstrap over seeds and test images; with one seed over images only. n/a "
        "if the hits on the test images are not kept",
        get=values.interval_of,
    ),
    "track": Column(
        "test-agnostic mean",
        "plain mean of the accuracies on eleven test sets, from forward 50 over uniform to backward 50, "
        "without adapting to any",
        get=values.track_mean,
    ),
    "parameters": Column(
        "parameters", _PARAMETERS, get=lambda line: Value.number(line.entry["parameters"], digits=0)
    ),
    "year": Column("year", "when the number was published", get=values.year),
    "protocol": Column(
        "protocol",
        "the fields in which a row differs from the league you opened",
        numeric=False,
        get=lambda line: Value(protocol(line.league)),
    ),
    # of a recipe
    "asked": Column(
        "method", "the method, and below it the recipe's name for it", numeric=False, get=values.requested
    ),
    "backbone": Column(
        "backbone", numeric=False, get=lambda line: Value(line.requested[0].cell.backbone.name)
    ),
    "done": Column("n", "finished seeds, of those requested", get=values.done_of),
    "size": Column(
        "parameters", _PARAMETERS, get=lambda line: Value.number(line.mean("parameters"), digits=0)
    ),
    "speed": Column(
        "images/s",
        "training speed, mean over seeds; it depends on the machine",
        get=lambda line: Value.number(line.mean("images_per_second"), digits=0),
    ),
    "minutes": Column(
        "minutes", f"training time of one run, without the run it starts from, mean over seeds; {_MACHINE}",
        get=values.minutes,
    ),
    # of the verdicts
    "judge": Column("published", get=values.published_by),
    "measured": Column(
        "measured",
        "mean over seeds of the last epoch, or of the best on test if the published number is",
        get=values.compared,
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
    """Return a table of lines with the columns `names`.

    Args:
        marks: bold and ties.
        heads: heads that replace the declared ones.
        hidden: columns shown only if a reader chooses them.
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
            get = partial(values.metric, name=name, marks=marks)
        head = BALANCED if name == first != "accuracy" else heads.get(name, column.head)
        ranks, optional = name == first, name in hidden and name != first
        columns.append(replace(column, name=name, head=head, get=get, headline=ranks, hidden=optional))
    return Table.of(columns, lines, caption, **more)


def _headline_first(names: Collection[str], first: str) -> list[str]:
    """Swap the accuracy, if shown, with the metric that ranks."""
    if "accuracy" not in names:
        return list(names)
    swapped = {"accuracy": first, first: "accuracy"}
    return [swapped.get(name, name) for name in dict.fromkeys((*names, first))]
