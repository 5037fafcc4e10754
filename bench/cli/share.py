"""The commands `push`, `pull` and `check-submission`: the Hugging Face Hub, and submitted records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from bench.cli.common import (
    DATA,
    RESULTS,
    SOME_FAILED,
    Data,
    Methods,
    Results,
    Run,
    console,
    print_line,
)
from bench.errors import BenchError


def push(
    run: Run,
    to: Annotated[str, typer.Option("--to", metavar="USER/REPO", help="A model repository of the Hub.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write the folder, and send nothing.")] = False,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", metavar="DIR", help="The folder to write; default: results/hub/RUN."),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Create the repository as private.")] = False,
    licence: Annotated[
        str,
        typer.Option(
            "--licence", "--license", metavar="ID", help="Licence of the weights, by the Hub's name."
        ),
    ] = "mit",
    methods: Methods = None,
    results: Results = RESULTS,
) -> None:
    """Send a finished run to the Hugging Face Hub: weights, logits, record and a model card.

    timm loads it too if its model is a plain classifier. Needs weights, which git does not keep.

    [bold]Examples[/]

    \b
    python run_bench.py push digits-if20-ce-s0 --to me/digits-lt-ce --dry-run
    python run_bench.py push 0123456789 --to me/cifar100-lt-bcl --private
    """
    from bench import records, registry
    from bench.hub import upload, with_weights
    from bench.hub.folder import write

    if to.count("/") != 1 or not all(to.split("/")):
        raise BenchError(f"--to {to}: write user/repo")
    registry.load_files(methods or ())
    found = records.Results(results).find(run)
    with_weights(found)
    target = folder or results / "hub" / found.run_id
    if target.exists() and any(target.iterdir()) and not (target / "record.json").exists():
        raise BenchError(f"--folder {target}: has other files in it; name an empty one")
    with_timm = write(found, target, to, licence)
    for file in sorted(target.iterdir()):
        print_line(f"{file.stat().st_size / 1e6:9.2f} MB  {file}")
    print_line(
        "loads with bench.load_model" + (" and with timm" if with_timm else "; no plain timm classifier")
    )
    if found.cell.method.name in registry.sources():
        print_line(f"{found.cell.method.name} is your own method: loading it needs your file, too")
    if dry_run:
        print_line("nothing was sent")
    else:
        print_line(f"sent to {upload(target, to, private)}")


def pull(
    source: Annotated[
        str, typer.Argument(metavar="USER/REPO", help="A repository that `push` made, or a folder it wrote.")
    ],
    revision: Annotated[
        str | None, typer.Option("--revision", metavar="R", help="A branch, tag or commit.")
    ] = None,
    results: Results = RESULTS,
) -> None:
    """Download a run from the Hugging Face Hub, and check it against its record.

    [bold]Examples[/]

    \b
    python run_bench.py pull me/cifar100-lt-bcl
    python run_bench.py pull results/hub/digits-if20-ce-s0-f8c9 --results elsewhere
    """
    from bench.hub import download, install

    folder = Path(source) if Path(source).is_dir() else download(source, revision)
    print_line(f"run     {install(folder, results).path}")


def check_submission(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files of results/records.")],
    results: Results = RESULTS,
    data: Data = DATA,
) -> None:
    """Check submitted records (files of `export`) before they are merged: data, protocol, versions.

    Runs whose identical record is in the results are skipped. Exits with 1 if a run has a fault.

    [bold]Examples[/]

    \b
    python run_bench.py check-submission cifar100-resnet32_cifar.jsonl
    python run_bench.py check-submission results/records/*.jsonl --results ../main/results
    """
    from bench.records import Results as Runs
    from bench.stale import Now
    from bench.submission import check

    runs, now = Runs(results), Now(data)
    checked = [found for file in files for found in check(file, runs, now)]
    for found in checked:
        mark = "[red]refused[/]" if found.faults else "[green]sound  [/]"
        console().print(f"{mark} {escape(found.run_id)}", soft_wrap=True, highlight=False)
        for line in (*found.faults, *found.remarks):
            print_line(f"        {line}")
    bad = sum(bool(found.faults) for found in checked)
    print_line(f"{len(checked)} runs to take, {bad} of them with a fault")
    raise typer.Exit(SOME_FAILED if bad else 0)
