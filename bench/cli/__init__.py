"""The command line. Nothing that takes seconds to import is imported before a command needs it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from bench.cli import catalogue, data, leaderboard, plan, results, run, share, synthesize
from bench.cli.common import USER_MISTAKE
from bench.errors import BenchError

COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Train": (run.run, plan.plan, run.rerun, synthesize.synthesize),
    "Results": (results.status, results.report, results.evaluate, results.export, results.clean),
    "Share": (share.push, share.pull, share.check_submission),
    "Leaderboard": (leaderboard.check, leaderboard.explain, leaderboard.score),
    "Information": (catalogue.list,),
}

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from bench.version import version

        print(f"longtail-bench {version()}")
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print version and revision."),
    ] = False,
) -> None:
    """Train and compare methods for long-tailed image classification.

    A [bold]recipe[/] names methods, data sets, imbalance factors and seeds; [bold]run[/] trains every cell
    of that grid that is not trained yet. You can stop it at any time: the next [bold]run[/] continues.

    \b
    python run_bench.py list recipes
    python run_bench.py run quick
    python run_bench.py COMMAND --help
    """


for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.add_typer(data.app, name="data", rich_help_panel="Information")


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit: 0 success, 1 some runs failed, 2 wrong input, 130 stopped."""
    try:
        app(arguments)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
    raise SystemExit(USER_MISTAKE)
