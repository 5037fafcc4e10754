"""Measured against published: verdicts that can fail, protocols side by side, predictions of one's own."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from bench.cli.common import DATA, RESULTS, SOME_FAILED, AsJson, Data, Results, console, find_run, table
from bench.errors import BenchError, did_you_mean

if TYPE_CHECKING:
    from bench.records import Results as AllRuns

VERDICTS = {"reproduced": "green", "close, n = 1": "green", "above": "cyan", "below": "bold red"}


def check(results: Results = RESULTS, as_json: AsJson = False) -> None:
    """Judge every measured cell by the published number nearest in protocol.

    Exits with 1 if one is below. A number whose protocol differs is never judged.

    [bold]Examples[/]

    \b
    python run_bench.py check
    python run_bench.py check --results results --json
    """
    from bench import records
    from bench.leaderboard import gather
    from bench.leaderboard.check import words
    from bench.report import text

    runs = records.Results(records.results_folder(results))
    board = gather(runs)
    rows, failed = board.check()
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        columns = ("n", "measured", "published", "gap")
        shown = table("Verdicts", "run", "method", "data", *columns, "verdict", "by", numbers=columns)
        ids = {one.key: one.run.run_id[-10:] for one in board.done}  # for `explain`, the last seed's
        held = [row for row in rows if row["published"] is not None]
        for row in sorted(held, key=lambda row: (row["dataset"], row["imbalance_factor"], row["title"])):
            told = escape(": ".join(filter(None, (row["verdict"], words(row["differs"])))))
            shown.add_row(
                ids.get(row["key"], ""),
                escape(row["title"]),
                f"{row['dataset']} {row['imbalance_factor']:g}",
                str(row["n"]),
                text.number(row["measured"]),
                text.printed(row["published"]),
                text.gap(row["d"]),
                f"[{VERDICTS.get(row['verdict'], 'yellow')}]{told}[/]",
                escape(row["reported_by"] or ""),
            )
        if held:
            console().print(shown)
        elif not rows:
            console().print("nothing is measured yet; start with `run RECIPE`")
        if rows:
            seen = Counter(row["verdict"] for row in rows)
            told = ", ".join(f"{count} {verdict}" for verdict, count in seen.most_common())
            console().print(f"{len(rows)} measured cells: {told}", highlight=False)
        tell(board.problems, "left out: ")
        tell(runs.conflicts)
    raise typer.Exit(SOME_FAILED if failed else 0)


def explain(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="Its name, the beginning of it, or its last ten characters.")
    ],
    results: Results = RESULTS,
) -> None:
    """Set a run's protocol beside that of each published number of its method, and beside its authors' card.

    [bold]Examples[/]

    \b
    python run_bench.py explain 0123456789
    python run_bench.py explain cifar100-if100-ce-s0
    """
    from bench import records
    from bench.cards import card_of
    from bench.cli.card_table import card_table
    from bench.leaderboard import gather, side_by_side
    from bench.report import text

    told = gather(records.Results(results)).explain(find_run(results, run).run_id)
    first, ours, theirs = told[0]
    if card := card_of(*(first[key] for key in ("method", "dataset", "imbalance_factor"))):
        console().print(card_table([card]))
    if first["published"] is None:
        console().print(f"nothing is published for {escape(first['title'])} on this data")
        return
    shown = table(first["source"], "", "measured", escape(first["reported_by"]), "")
    for field, mine, other, state in side_by_side(ours, theirs, first["ours"]):
        marked = f"[yellow]{state}[/]" if state.startswith("differs") else state
        shown.add_row(field, escape(mine), escape(other), marked)
    console().print(shown)
    console().print(f"gap {text.gap(first['d'])}: {first['verdict']}", highlight=False)
    for pair, *_ in told[1:]:
        beside = f"{text.printed(pair['published']):>6}  gap {text.gap(pair['d'])}, {pair['verdict']}"
        line = ": ".join([beside, *([", ".join(pair["differs"])] if pair["differs"] else [])])
        console().print(escape(f"{line}  ({pair['reported_by']})"), highlight=False, soft_wrap=True)


def score(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="npz with scores or predictions, or CSV.", show_default=False),
    ],
    dataset: Annotated[str, typer.Option("--dataset", help="As in [bold]list datasets[/].")],
    imbalance_factor: Annotated[float, typer.Option("--imbalance-factor", min=1)] = 100,
    name: Annotated[
        str | None, typer.Option("--name", help="What to call it; default: the name of the file.")
    ] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option("--protocol", metavar="FIELD=VALUE", help="What made it; may be repeated."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Write over what was scored under that name.")
    ] = False,
    results: Results = RESULTS,
    data: Data = DATA,
) -> None:
    """Score predictions of your own for a test set; `report` then shows them as external rows.

    A file holds scores (N, C) or class numbers (N,) for the test images, in their order.

    [bold]Examples[/]

    \b
    python run_bench.py score mine.npz --dataset digits --imbalance-factor 20
    python run_bench.py score mine.csv --dataset cifar100 --protocol epochs=200 --protocol backbone=resnet50
    """
    import numpy as np

    from bench.data import sources
    from bench.data.catalogue import DATASETS
    from bench.leaderboard import external
    from bench.report import text

    if dataset not in DATASETS:
        raise BenchError(f"--dataset: unknown data set {dataset!r}{did_you_mean(dataset, DATASETS)}")
    if name and len(files) > 1:
        raise BenchError(f"--name: {len(files)} files cannot share one name; leave it out")
    names = [name or file.stem.lower() for file in files]
    if twice := [file for file, called in zip(files, names, strict=True) if names.count(called) > 1]:
        raise BenchError(f"{twice[0]} and {twice[1]} would have one name; score them one by one, with --name")
    stated = dict(_stated(given) for given in protocol or ())
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
    """Render the leaderboard and the pages of what is measured, and say where they are."""
    from bench.leaderboard import gather
    from bench.report import render_index, render_runs

    board = gather(runs)
    index, *_ = render_index(board, reports)
    pages = render_runs(board, reports)
    out = console()
    out.print(f"report  {escape(str(index))}", soft_wrap=True, highlight=False)
    if pages:
        told = f"{escape(str(pages[0].parent))}: {len(pages)} pages"
        out.print(f"report  {told}", soft_wrap=True, highlight=False)
    tell(board.problems, "left out: ")


def tell(problems: Iterable[str], what: str = "") -> None:
    """Print what is wrong with what was read."""
    for problem in problems:
        console().print(f"[yellow]{what}{escape(problem)}[/]", soft_wrap=True, highlight=False)


def _stated(given: str) -> tuple[str, str]:
    field, sign, value = given.partition("=")
    if not sign:
        raise BenchError(f"--protocol {given}: write it as FIELD=VALUE")
    return field, value
