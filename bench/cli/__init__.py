"""The command line. Nothing that takes seconds to import is imported before a command needs it."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from bench.cli import catalogue, data, leaderboard, plan, results, run, synthesize
from bench.cli.common import USER_MISTAKE
from bench.errors import BenchError

COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Train": (run.run, plan.plan, run.rerun, synthesize.synthesize),
    "Results": (results.status, results.report, results.evaluate, results.export, results.clean),
    "Leaderboard": (leaderboard.check, leaderboard.explain, leaderboard.score),
    "Look around": (catalogue.list,),
}

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"longtail-bench {version('longtail-bench')}")
        except PackageNotFoundError:  # run from a folder, not installed
            text = (Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8")
            print(f"longtail-bench {tomllib.loads(text)['project']['version']}")
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train methods for long-tailed recognition side by side, and report what came out.

    A [bold]recipe[/] names methods, data sets, imbalance factors and seeds; [bold]run[/] trains every cell
    of that grid that is not trained yet. Stop it whenever you like: the next [bold]run[/] goes on.

    \b
    python run_bench.py list recipes
    python run_bench.py run quick
    python run_bench.py COMMAND --help
    """


for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.add_typer(data.app, name="data", rich_help_panel="Look around")


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit: 0 all well, 1 some runs failed, 2 a mistake of the user, 130 stopped."""
    try:
        app(arguments)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
    raise SystemExit(USER_MISTAKE)
