"""Options and tables that several commands use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from bench.cli.tables import FittingTable

if TYPE_CHECKING:
    from rich.progress import Progress

#: Exit codes; 2 is also that of a wrong option.
SOME_FAILED, USER_MISTAKE, INTERRUPTED = 1, 2, 130

#: Colours of the states of a run.
COLOURS = {
    "done": "green",
    "stale": "red",
    "failed": "red",
    "unreadable": "red",
    "running": "cyan",
    "queued": "blue",
}

Recipe = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="A recipe: its file or its name, for example quick.")
]
Run = Annotated[
    str,
    typer.Argument(metavar="RUN", help="A run's name, the beginning of it, or its last ten characters."),
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only", metavar="KEY=VALUE", help="Only these cells; may be repeated, then all must match."
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the recipe; may be repeated."),
]
Methods = Annotated[
    list[Path] | None,
    typer.Option("--methods", metavar="FILE", help="A Python file with your own methods; may be repeated."),
]
Log = Annotated[
    list[str] | None,
    typer.Option(
        "--log",
        metavar="LOGGER",
        help="Also log to tensorboard, wandb, mlflow or trackio (wandb:project=lt); may be repeated; "
        "none: ignore the recipe's loggers.",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        min=1,
        help="Simultaneous runs [dim](default: one per core, or what the GPUs have room for)[/]",
    ),
]
Gpus = Annotated[
    str | None, typer.Option("--gpus", metavar="0,1", help="GPUs, or 'none' [dim](default: all)[/]")
]
PerGpu = Annotated[
    int | None,
    typer.Option(
        "--per-gpu",
        "--runs-per-gpu",
        min=1,
        help="Runs that share a GPU [dim](default: as many as are faster together; on a cluster: 1)[/]",
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        envvar="LONGTAIL_COMPILE",
        help="Compile the backbone for training, which changes only the speed.",
    ),
]
Results = Annotated[Path, typer.Option("--results", metavar="DIR", help="The results folder.")]
Data = Annotated[Path, typer.Option("--data", metavar="DIR", envvar="LONGTAIL_DATA", help="The data folder.")]
Reports = Annotated[Path, typer.Option("--reports", metavar="DIR", help="The folder of the pages.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Wide = Annotated[bool, typer.Option("--wide", help="Show all columns.")]

#: Width of a usual terminal; tables fit it unless --wide asks for all columns.
WIDTH = 80

#: How many characters at the end of a run's name identify it.
SHORT = 10

RESULTS, DATA, REPORTS = Path("results"), Path("data"), Path("reports")


def console() -> Console:
    """Return the terminal; without one, lines are 200 characters wide."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=200)


def table(
    title: str, *columns: str, numbers: tuple[str, ...] = (), folded: Mapping[str, int] | None = None
) -> FittingTable:
    """Return an empty table.

    Args:
        numbers: columns to align to the right.
        folded: columns to fold, with their width.
    """
    made = FittingTable(title=escape(title), title_justify="left", header_style="bold")
    for column in columns:
        made.add_column(
            column,
            justify="right" if column in numbers else "left",
            overflow="fold",
            max_width=(folded or {}).get(column),
        )
    return made


def show(shown: FittingTable, wide: bool = False) -> None:
    """Print a table: all of it, or without lines and no wider than a usual terminal."""
    out = console()
    if wide:
        out.print(shown)
    else:
        out.print(shown.narrow(), width=min(WIDTH, out.width))


def print_line(text: str, style: str | None = None, *, wrap: bool = False) -> None:
    """Print text without markup in one line, however long; `wrap` breaks it at the terminal's width."""
    console().print(text, style=style, soft_wrap=not wrap, highlight=False, markup=False)


def progress_bars(transient: bool = False) -> Progress:
    """Return progress bars with number and remaining time."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console(), transient=transient)


def coloured(status: str) -> str:
    """Return a run's state as markup."""
    return f"[{COLOURS.get(status, 'yellow')}]{status}[/]"
