"""The `data` commands: show, check and pack the images of a data set."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from bench.cli.common import DATA, SOME_FAILED, Data, console, print_line, progress_bars, table
from bench.errors import BenchError, did_you_mean, first_of, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.cell import DataSet


class _ShowByDefault(TyperGroup):
    """Reads `data NAME` as `data show NAME`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["show", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_ShowByDefault,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Show the images of a data set ([bold]data NAME[/]), check them, or pack them.",
)

Name = Annotated[
    str, typer.Argument(help="A name of [bold]list datasets[/], or of the recipe.", show_default=False)
]
FromRecipe = Annotated[
    Path | None, typer.Option("--recipe", metavar="FILE", help="The recipe that defines the data set.")
]


@app.command()
def show(
    name: Name,
    download: Annotated[bool, typer.Option("--download", help="Download it if it is missing.")] = False,
    factors: Annotated[
        list[float] | None,
        typer.Option("--imbalance-factor", min=1, help="Show the long tail of this factor; may be repeated."),
    ] = None,
    recipe: FromRecipe = None,
    data: Data = DATA,
) -> None:
    """Count the images of a data set, and say which published data set they are.

    For each imbalance factor (default: those of the recipe) it shows counts, fingerprint, and whether the
    papers drew the same images. The word `show` may be left out.

    [bold]Examples[/]

    \b
    python run_bench.py data digits
    python run_bench.py data cifar10 --download
    python run_bench.py data cifar100 --data ~/images
    python run_bench.py data cifar10 --imbalance-factor 100
    python run_bench.py data mine --recipe recipes/mine.yaml
    """
    dataset = _find(name, recipe)
    _show(dataset, data, download)
    factors = factors or _factors(dataset, recipe)
    for factor in factors:
        _show_tail(dataset, factor, data)
    if not factors:
        print_line("--imbalance-factor 100, for example, shows a long tail of it", "dim", wrap=True)


def _show(dataset: DataSet, data: Path, download: bool = False) -> None:
    """Count the images of a data set; images of list files need not exist."""
    import numpy as np

    from bench.data.read import folder
    from bench.data.read.listing import listed
    from bench.data.read.sources import read

    passed_over: list[str] = []
    if dataset.on_disk:
        lists = listed(dataset, data)
        class_names = lists.class_names
        labels = {part: listing.labels for part, listing in lists.parts.items()}
    else:
        images = read(dataset, data, download=download)
        class_names = images.class_names
        labels = {"train": images.train_labels, "test": images.test_labels}
    if dataset.source == "folder" and dataset.folder:
        parts = folder.list_tree(folder.below(data, dataset.folder, dataset.name), dataset.parts)
        passed_over = folder.passed_over([path for part in parts.values() for path in part.passed_over])
    columns = ("images", "classes", "largest", "smallest")
    shown = table(f"{dataset.name}: {dataset.title}", "", *columns, "size", numbers=columns)
    for part, of_part in labels.items():
        counts = np.bincount(of_part)
        counts = counts[counts > 0]
        size = f"{dataset.image_size}x{dataset.image_size}"
        numbers = (len(of_part), len(counts), counts.max(), counts.min())
        shown.add_row(part, *(f"{number:,}" for number in numbers), size)
    console().print(shown)
    print_line(f"{len(class_names)} classes: {first_of(class_names, 20)}", wrap=True)
    _print_lines("remark", [printable(line) for line in passed_over], "yellow")


def _show_tail(dataset: DataSet, factor: float, data: Path) -> None:
    """Print counts and fingerprint of a long tail, and which published one it is."""
    import numpy as np

    from bench.cell import STANDARD
    from bench.data.sets import content, subsets
    from bench.data.split.longtail import shot_groups

    found = content.look(dataset, factor, None, data)
    counts = np.array(found.class_counts)
    groups = {name: len(classes) for name, classes in shot_groups(counts, dataset.shots).items()}
    lines = [
        f"{counts.sum():,} training images, {counts.max():,} to {counts.min():,} of a class",
        ", ".join(f"{name} {classes}" for name, classes in groups.items()) + " classes",
        "fingerprint " + ", ".join(f"{part} {code}" for part, code in found.fingerprint.items()),
    ]
    if dataset.tail != STANDARD:
        lines.append(f"not drawn by the papers' rule: {dataset.tail}")
    known = subsets.recognise(found.image_hashes, found.class_counts, factor)
    if known is not None:
        lines.append(known.describe())
    elif found.image_hashes:
        lines.append("not the images of a published long tail that is known here")
    title = "its own tail" if dataset.profile == "natural" else f"imbalance factor {factor:g}"
    console().print(f"\n{title}", style="bold", highlight=False)
    for line in lines:
        print_line(f"  {line}")


def _factors(dataset: DataSet, recipe: Path | None) -> list[float]:
    """Return the imbalance factors to show by default: those of the recipe, 1 for a natural tail."""
    if dataset.profile == "natural":
        return [1.0]
    if recipe is None:
        return []
    from bench.recipe.files import read

    root = read(recipe)[0].mapping
    axes = [root["grid"]] if "grid" in root else []
    axes += root["zip"].elements if "zip" in root else []
    nodes = [axis.mapping["imbalance_factor"] for axis in axes if "imbalance_factor" in axis.mapping]
    values = [value.plain for node in nodes for value in node.elements]
    return sorted({float(value) for value in values if isinstance(value, int | float) and value >= 1})


@app.command(hidden=True)
def subsets(data: Data = DATA) -> None:
    """Print the hashes of the papers' subsets, made of the official files: the content of `subsets.csv`."""
    import csv
    import sys

    from bench.data.sets.subsets import COLUMNS, rows

    lines = csv.writer(sys.stdout, lineterminator="\n")
    lines.writerow(COLUMNS)
    lines.writerows(rows(data))


@app.command()
def check(
    name: Name,
    root: Annotated[
        Path | None, typer.Option("--root", metavar="DIR", help="The folder of its images and lists.")
    ] = None,
    decode: Annotated[
        bool, typer.Option("--decode", help="Also decode every image, which takes long.")
    ] = False,
    recipe: FromRecipe = None,
    data: Data = DATA,
) -> None:
    """Check the lists, folders and images of a data set: do they agree, and are they as published?

    [bold]Examples[/]

    \b
    python run_bench.py data check imagenet_lt --root ~/imagenet
    python run_bench.py data check places_lt
    python run_bench.py data check mine --recipe recipes/mine.yaml --decode
    """
    from bench.data.sets.check import check as check_dataset

    dataset = _find(name, recipe)
    if dataset.source in ("digits", "cifar10", "cifar100"):
        _show(dataset, data)  # reading checks it
        return
    root = root or data / str(dataset.folder)
    with _bar("images checked") as report:
        findings = check_dataset(dataset, root, data_dir=data, decode=decode, report=report)
    columns = ("images", "classes", "largest", "smallest", "many", "medium", "few")
    shown = table(f"{name}: {dataset.title}", "", "list", *columns, "files there", "", numbers=columns)
    for part in findings.parts:
        sizes = (part.images, part.classes, part.most, part.least, *part.shots)
        there = findings.present.get(part.part)
        found = "not counted" if there is None else f"{there:,}"
        shown.add_row(part.part, part.file.name, *(f"{n:,}" for n in sizes), found, part.verdict)
    if findings.parts:
        console().print(shown)
    _print_lines("fault", findings.faults, "red")
    _print_lines("remark", findings.remarks, "yellow")
    _print_lines("remedy", findings.remedies, "green")
    if findings.faults:
        raise typer.Exit(SOME_FAILED)


@app.command()
def prepare(
    name: Name,
    short_side: Annotated[
        int | None, typer.Option("--short-side", min=8, help="Shrink the shorter side to this many pixels.")
    ] = None,
    recipe: FromRecipe = None,
    data: Data = DATA,
) -> None:
    """Pack the images of a data set into shards, which are faster to read than single files.

    Runs use the shards automatically. Shrunk images are another data set, as their pixels differ: a recipe
    uses them with [bold]short_side[/]. You can stop this command; the same command continues.

    [bold]Examples[/]

    \b
    python run_bench.py data prepare imagenet_lt
    python run_bench.py data prepare imagenet_lt --short-side 256
    """
    from bench.data.read.listing import listed
    from bench.data.read.readers import KINDS, items
    from bench.data.read.shards import folder_of, pack

    dataset = _find(name, recipe)
    if not dataset.on_disk:
        raise BenchError(f"{name} is not streamed but read into memory, so there is nothing to pack")
    lists = listed(dataset, data)
    for part, listing in lists.parts.items():
        target = folder_of(data, str(dataset.folder), listing, short_side, dataset.upright)
        files = listing.files(lists.root)
        contents = None
        if dataset.source in KINDS:
            contents = (item.content for item in items(dataset, lists.root, part))
        with _bar(f"{part}: images packed", len(files)) as report:
            size = pack(files, target, short_side, report, os.cpu_count() or 1, dataset.upright, contents)
        print_line(f"{part}  {len(files):,} images, {size / 2**30:.2f} GiB  {target}")
    if short_side not in (None, dataset.short_side):
        lines = (
            "for a recipe:",
            "datasets:",
            f"  {name}_{short_side}:",
            f"    base: {name}",
            f"    short_side: {short_side}",
            f"    copy_of: {dataset.copy_of or name}",
            f"    copy_kind: shorter side {short_side}",
        )
        print_line("\n".join(lines))


def _print_lines(kind: str, lines: Sequence[str], colour: str) -> None:
    """Print lines, with their kind in its colour before each."""
    for line in lines:
        console().print(f"[{colour}]{kind}[/]  ", end="")
        print_line(line)


def _find(name: str, recipe: Path | None) -> DataSet:
    """Return a built-in data set, or one of the recipe's."""
    from bench.data.sets.catalogue import DATASETS

    known = DATASETS
    if recipe is not None:
        from bench.recipe.axes import read_datasets
        from bench.recipe.files import read

        known = read_datasets(read(recipe)[0].mapping.get("datasets"))
    if name not in known:
        hint = "" if recipe else "; if a recipe defines it, add --recipe FILE"
        raise BenchError(f"unknown data set {name!r}{did_you_mean(name, known)}{hint}")
    return known[name]


@contextmanager
def _bar(title: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar, and yield the function that advances it."""
    with progress_bars(transient=True) as bars:
        task = bars.add_task(title, total=total)
        yield lambda n: bars.advance(task, n)
