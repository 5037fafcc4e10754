"""The `list` command: methods, data sets, backbones and recipes."""

from __future__ import annotations

import builtins
import json
from collections.abc import Iterable, Sequence
from enum import StrEnum
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from bench.cli.common import WIDTH, AsJson, Methods, Wide, console, show, table
from bench.cli.tables import GAP
from bench.errors import BenchError, did_you_mean

if TYPE_CHECKING:
    from bench.registry import MethodSpec

Row = dict[str, Any]

#: Keys that are shown of a single item only.
ALONE = ("about", "params", "cards")

#: The folder of recipes that others include.
SHARED = "shared"

#: The columns that fit a terminal of usual width; other kinds show all.
NARROW = {
    "methods": ("name", "title", "venue"),
    "datasets": ("name", "title", "image_size", "profile", "n_max"),
    "recipes": ("name", "title"),
}


class Kind(StrEnum):
    """What can be listed."""

    METHODS = "methods"
    DATASETS = "datasets"
    BACKBONES = "backbones"
    RECIPES = "recipes"


def list(
    kind: Annotated[Kind, typer.Argument(show_default=False)],
    pattern: Annotated[str, typer.Argument(help="Names to show; may contain * and ? (in quotes).")] = "*",
    methods: Methods = None,
    wide: Wide = False,
    as_json: AsJson = False,
) -> None:
    """List methods, data sets, backbones or recipes. One name alone is shown with all details.

    [bold]Examples[/]

    \b
    python run_bench.py list methods
    python run_bench.py list methods ldam_drw    # with its hyper-parameters
    python run_bench.py list methods 'ldam*' --wide
    python run_bench.py list backbones 'resnet*_cifar'
    python run_bench.py list recipes
    """
    rows = {
        Kind.METHODS: lambda: _methods(methods or ()),
        Kind.DATASETS: _datasets,
        Kind.BACKBONES: _backbones,
        Kind.RECIPES: _recipes,
    }[kind]()
    chosen = [row for row in rows if fnmatch(row["name"], pattern)]
    if not chosen:
        near = did_you_mean(pattern, [row["name"] for row in rows])
        near = near[:100] or f"; `list {kind}` shows them"
        raise BenchError(f"none of the {len(rows)} {kind} is called {pattern!r}{near}")
    if kind is Kind.METHODS and (wide or as_json or len(chosen) == 1):
        chosen = [_registered(row["name"], alone=len(chosen) == 1) for row in chosen]
    if as_json:
        print(json.dumps(chosen, indent=1))
    elif len(chosen) == 1:
        _show_one(chosen[0])
    else:
        columns = [name for name in chosen[0] if name not in ALONE]
        if not wide:
            columns = [name for name in columns if name in NARROW.get(kind, columns)]
        cells = [[_text(row[name]) for name in columns] for row in chosen]
        widths = {name: max(map(len, texts)) for name, *texts in zip(columns, *cells, strict=True)}
        left = WIDTH - sum(width + GAP for name, width in widths.items() if name != "title")
        title = f"{len(chosen)} of {len(rows)} {kind}"
        shown = table(title, *columns, folded={} if wide else {"title": max(20, left)})
        for texts in cells:
            shown.add_row(*map(escape, texts))
        show(shown, wide)


def _show_one(row: Row) -> None:
    facts = table("", "", "")
    facts.show_header = False
    for name, value in row.items():
        if name not in ("params", "cards") and value not in (None, False, ""):
            facts.add_row(name, escape(_text(value)))
    console().print(facts)
    if row.get("params"):
        params = table("params", "name", "default", "type", "meaning")
        for name, of in row["params"].items():
            default = json.dumps(of["default"])  # as a recipe writes it
            params.add_row(name, *map(escape, (default, of["type"], of["about"])))
        console().print(params)
    if row.get("cards"):
        from bench.cards import cards_of
        from bench.cli.card_table import card_table

        console().print(card_table(cards_of(row["name"])))


def _methods(files: Iterable[Path]) -> Sequence[Row]:
    from bench import registry

    known = registry.described(files)
    return [{"name": name, "title": facts.title, "venue": facts.published} for name, facts in known.items()]


def _registered(name: str, *, alone: bool) -> Row:
    """Describe a method; `alone` also by its views, for which it is built."""
    from bench import registry
    from bench.cards import cards_of

    spec = registry.find(name)
    return {
        "name": spec.name,
        "title": spec.title,
        "family": spec.family,
        "venue": spec.published,
        **({"views": _views(spec)} if alone else {}),
        "parent": spec.build.needs_parent,
        "golden": spec.golden,
        "reconstruction": spec.reconstruction,
        "captured": spec.build.capturable,
        "pretrained": spec.pretrained,
        "paper": spec.paper.removeprefix("https://"),
        "about": spec.summary,
        "params": _params(spec),
        "cards": [card.model_dump(mode="json") for card in cards_of(spec.name)],
    }


def _params(spec: MethodSpec) -> dict[str, Row]:
    import inspect

    meanings = spec.arguments
    return {
        name: {
            "default": field.default,
            "type": inspect.formatannotation(field.annotation).replace("typing.", ""),
            "about": meanings.get(name, ""),
        }
        for name, field in spec.hyperparameters.model_fields.items()
    }


def _views(spec: MethodSpec) -> Sequence[str]:
    """Name the augmentation policies of a method's views, which may depend on its hyper-parameters."""
    import numpy as np

    from bench import backbones

    params = spec.hyperparameters().model_dump()
    try:
        method = spec.build(
            lambda **options: backbones.create("resnet8_cifar", **options), np.arange(100, 0, -10), **params
        )
    except Exception:  # it needs another kind of backbone, or has a fault that `run` reports
        return [view.policy for view in spec.build.views]
    return [view.policy for view in method.views]


def _datasets() -> Sequence[Row]:
    from bench.data.sets.catalogue import DATASETS

    columns = ("name", "title", "source", "image_size", "profile", "n_max")
    return [{key: getattr(dataset, key) for key in columns} for dataset in DATASETS.values()]


def _backbones() -> Sequence[Row]:
    import bench.backbones  # noqa: F401 - it registers the CIFAR ResNets
    from bench.vision import timm

    pretrained = set(timm.list_models(pretrained=True))
    with_weights = {name.partition(".")[0] for name in pretrained}
    return [{"name": name, "pretrained": name in with_weights} for name in timm.list_models()]


def _recipes() -> Sequence[Row]:
    """List the recipes in the working directory, or else those of this project; shared parts are left out."""
    from bench.recipe.files import FOLDER, read, recipes
    from bench.shipped import RECIPES

    rows = []
    home = Path(FOLDER) if Path(FOLDER).is_dir() else RECIPES
    for path in recipes(home):
        if path.parent.name == SHARED:
            continue
        try:
            tree, notes = read(path)
            title = str(tree.plain.get("title", ""))
        except BenchError as error:
            title, notes = "cannot be read", str(error)
        rows.append({"name": path.stem, "file": path.as_posix(), "title": title, "notes": notes})
    return [row | {"notes": row["notes"].partition("\n\n")[0]} for row in rows]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, builtins.list):
        return ", ".join(dict.fromkeys(value))
    return "" if value is None else str(value)
