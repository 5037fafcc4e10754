"""The commands `check`, `explain` and `score`: verdicts, protocols side by side, external predictions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from bench.cli.common import (
    DATA,
    RESULTS,
    SHORT,
    SOME_FAILED,
    AsJson,
    Data,
    Results,
    Run,
    Wide,
    console,
    print_line,
    show,
    table,
)
from bench.errors import BenchError, did_you_mean

if TYPE_CHECKING:
    from bench.cli.tables import FittingTable
    from bench.leaderboard.check import Pair
    from bench.records import Results as AllRuns

VERDICTS = {"reproduced": "green", "close, n = 1": "green", "above": "cyan", "below": "bold red"}


def check(results: Results = RESULTS, data: Data = DATA, wide: Wide = False, as_json: AsJson = False) -> None:
    """Compare every measured cell with the published number nearest in protocol.

    Exits with 1 if a verdict is "below". There is no verdict where the protocols differ, and none of stale
    runs. The first column names a run of the cell, as `explain` takes it.

    [bold]Examples[/]

    \b
    python run_bench.py check
    python run_bench.py check --wide             # one table with all columns
    python run_bench.py check --results results --json
    """
    from bench import records
    from bench.leaderboard import gather
    from bench.stale import Now

    runs = records.Results(records.results_folder(results), Now(data))
    board = gather(runs)
    rows, failed = board.check()
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        ids = {one.key: one.run.run_id for one in board.done}  # the last seed's
        compared = [row for row in rows if row["published"] is not None]
        compared.sort(key=lambda row: (row["dataset"], row["imbalance_factor"], row["title"]))
        for shown in [_all_columns(compared, ids)] if wide else _few_columns(compared, ids):
            show(shown, wide)
        if rows:
            seen = Counter(row["verdict"] for row in rows)
            counts = ", ".join(f"{count} {verdict}" for verdict, count in seen.most_common())
            print_line(f"{len(rows)} measured cells: {counts}", wrap=True)
        else:
            print_line("nothing is measured yet; start with `run RECIPE`")
        warn(board.problems, "left out: ")
        warn(runs.conflicts)
    raise typer.Exit(SOME_FAILED if failed else 0)


def _all_columns(rows: Sequence[Pair], ids: Mapping[str, str]) -> FittingTable:
    """Return one table with all columns."""
    from bench.leaderboard.check import words

    numbers = ("n", "measured", "published", "gap")
    shown = table("Verdicts", "run", "method", "data", *numbers, "verdict", "by", numbers=numbers)
    for row in rows:
        differs = f": {words(row['differs'])}" if row["differs"] else ""
        shown.add_row(
            ids[row["key"]],
            escape(row["title"]),
            f"{row['dataset']} {row['imbalance_factor']:g}",
            *_numbers(row),
            _coloured(row["verdict"], differs),
            escape(row["reported_by"] or ""),
        )
    return shown


def _few_columns(rows: Sequence[Pair], ids: Mapping[str, str]) -> Iterator[FittingTable]:
    """Yield two tables for each data set and imbalance factor: with verdicts, and where protocols differ."""
    from bench.leaderboard.check import words

    numbers = ("n", "measured", "published", "gap")
    for (dataset, factor), of_data in groupby(
        rows, key=lambda row: (row["dataset"], row["imbalance_factor"])
    ):
        alike: list[Pair] = []
        unlike: list[Pair] = []
        for row in of_data:
            (unlike if row["differs"] else alike).append(row)
        title = f"{dataset}, imbalance factor {factor:g}"
        if alike:
            shown = table(title, "run", "method", *numbers, "verdict", numbers=numbers, folded={"method": 22})
            for row in alike:
                verdict = _coloured(row["verdict"])
                shown.add_row(ids[row["key"]][-SHORT:], escape(row["title"]), *_numbers(row), verdict)
            yield shown
        if unlike:
            columns = ("run", "method", "n", "measured", "protocol differs in")
            folded = {"method": 22, "protocol differs in": 31}
            shown = table("" if alike else title, *columns, numbers=numbers, folded=folded)
            for row in unlike:
                n, measured, *_ = _numbers(row)
                run, differs = ids[row["key"]][-SHORT:], words(row["differs"])
                shown.add_row(run, escape(row["title"]), n, measured, differs)
            yield shown


def _numbers(row: Pair) -> tuple[str, str, str, str]:
    """Return n, measured, published and gap; the gap is empty where protocols differ."""
    from bench.report import text

    gap = "" if row["differs"] else text.gap(row["d"])
    return str(row["n"]), text.number(row["measured"]), text.printed(row["published"]), gap


def _coloured(verdict: str, more: str = "") -> str:
    return f"[{VERDICTS.get(verdict, 'yellow')}]{escape(verdict + more)}[/]"


def explain(
    run: Run,
    results: Results = RESULTS,
    data: Data = DATA,
) -> None:
    """Compare a run's protocol with those of the published numbers, and show its authors' card.

    [bold]Examples[/]

    \b
    python run_bench.py explain 0123456789
    python run_bench.py explain cifar100-if100-ce-s0-83dbf248cb
    """
    from bench import records
    from bench.cards import card_of
    from bench.cli.card_table import card_table
    from bench.leaderboard import gather, side_by_side
    from bench.report import text
    from bench.stale import Now

    pairs = gather(runs := records.Results(results, Now(data))).explain(runs.find(run).run_id)
    first, ours, theirs = pairs[0]
    if card := card_of(*(first[key] for key in ("method", "dataset", "imbalance_factor"))):
        console().print(card_table([card]))
    if first["published"] is None:
        print_line(f"nothing is published for {first['title']} on this data")
        return
    shown = table(first["source"], "", "measured", escape(first["reported_by"]), "")
    for field, mine, other, state in side_by_side(ours, theirs, first["ours"]):
        marked = f"[yellow]{state}[/]" if state.startswith("differs") else state
        shown.add_row(field, escape(mine), escape(other), marked)
    console().print(shown)
    print_line(f"gap {text.gap(first['d'])}: {first['verdict']}")
    for pair, *_ in pairs[1:]:
        beside = f"{text.printed(pair['published']):>6}  gap {text.gap(pair['d'])}, {pair['verdict']}"
        line = ": ".join([beside, *([", ".join(pair["differs"])] if pair["differs"] else [])])
        print_line(f"{line}  ({pair['reported_by']})")


def score(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="npz with logits or predictions, or CSV.", show_default=False),
    ],
    dataset: Annotated[str, typer.Option("--dataset", help="A name of [bold]list datasets[/].")],
    imbalance_factor: Annotated[float, typer.Option("--imbalance-factor", min=1)] = 100,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the row; default: the name of the file.")
    ] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            "--protocol", metavar="FIELD=VALUE", help="A field of the protocol that made it; may be repeated."
        ),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the row of that name.")] = False,
    results: Results = RESULTS,
    data: Data = DATA,
) -> None:
    """Compute the metrics of your own predictions for a test set; `report` shows them as external rows.

    A file holds logits (N, C) or class numbers (N,) of the test images, in the order of the test set.

    [bold]Examples[/]

    \b
    python run_bench.py score mine.npz --dataset digits --imbalance-factor 20
    python run_bench.py score mine.csv --dataset cifar100 --protocol epochs=200 --protocol backbone=resnet50
    """
    import numpy as np

    from bench.data.read import sources
    from bench.data.sets.catalogue import DATASETS
    from bench.leaderboard import external
    from bench.report import text

    if dataset not in DATASETS:
        raise BenchError(f"--dataset: unknown data set {dataset!r}{did_you_mean(dataset, DATASETS)}")
    if name and len(files) > 1:
        raise BenchError(f"--name: {len(files)} files cannot have one name; leave it out")
    names = [name or file.stem.lower() for file in files]
    if twice := [file for file, called in zip(files, names, strict=True) if names.count(called) > 1]:
        raise BenchError(f"{twice[0]} and {twice[1]} would have one name; score them one by one, with --name")
    stated = dict(map(_stated, protocol or ()))
    chosen = DATASETS[dataset]
    counts, test_labels, _ = sources.tail(chosen, imbalance_factor, data)
    metrics = ("accuracy", "many", "medium", "few", "ece")
    shown = table(chosen.title, "file", *metrics, "kept as", numbers=metrics)
    for file, called in zip(files, names, strict=True):
        made = external.scored(
            file, called, chosen, imbalance_factor, np.asarray(test_labels), counts, stated
        )
        kept = external.save(results, made, replace=replace)
        values = [made.metrics[metric] for metric in metrics]
        numbers = [text.number(value) for value in values if not isinstance(value, list)]
        shown.add_row(escape(str(file)), *numbers, escape(str(kept)))
    console().print(shown)


def write_board(runs: AllRuns, reports: Path) -> None:
    """Write the leaderboard and the pages of its runs, and print their paths."""
    from bench.leaderboard import gather
    from bench.report.index_page import render_index
    from bench.report.run_page import render_runs

    board = gather(runs)
    index, *_ = render_index(board, reports)
    pages = render_runs(board, reports)
    print_line(f"report  {index}")
    if pages:
        print_line(f"report  {pages[0].parent}: {len(pages)} pages")
    warn(board.problems, "left out: ")


def warn(problems: Iterable[str], prefix: str = "") -> None:
    """Print problems of the files that were read, one on a line."""
    for problem in problems:
        print_line(prefix + problem, "yellow")


def _stated(text: str) -> tuple[str, str]:
    field, sign, value = text.partition("=")
    if not sign:
        raise BenchError(f"--protocol {text}: write it as FIELD=VALUE")
    return field, value
