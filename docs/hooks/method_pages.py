"""A page for each method, of what its code, its paper, its cards and the leaderboard have of it."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.leaderboard.board import Board
    from bench.registry import MethodSpec

GROUPS = ("accuracy", "many", "medium", "few")
PROTOCOL, SCORES = ("data", "protocol"), ("accuracy", "many / medium / few")


def method_pages(root: Path) -> dict[str, str]:
    """Return the pages of all methods, and of their list, by their place on the site."""
    from bench import registry
    from bench.leaderboard import gather
    from bench.records import Results

    known, board = registry.methods(), gather(Results(root / "results"))
    pages = {f"methods/{name}.md": "\n".join(_page(spec, board)) for name, spec in known.items()}
    return {"methods/index.md": "\n".join(_list(known.values()))} | pages


def _list(specs: Iterable[MethodSpec]) -> Iterator[str]:
    ordered = sorted(specs, key=lambda spec: (spec.family, spec.title.lower()))
    yield "# Methods\n"
    yield f"{len(ordered)} methods by family; `python run_bench.py list methods` shows them in a terminal.\n"
    yield "*Golden*: the loss is tested against values of the authors' code. *Reconstruction*: there is no"
    yield "public code, or details are missing. *Pretrained*: it starts from weights trained on other data.\n"
    for family, members in groupby(ordered, key=lambda spec: spec.family):
        yield f"## {family.capitalize()}\n"
        rows = [
            [f"[{_cell(spec.title)}]({spec.name}.md)", f"`{spec.name}`", spec.published, _marks(spec)]
            for spec in members
        ]
        yield from _table(("method", "name in recipes", "published", ""), rows)


def _page(spec: MethodSpec, board: Board) -> Iterator[str]:
    from bench.cards import cards_of
    from bench.controls import controls

    yield f"# {spec.title}\n"
    facts = [f"`{spec.name}` in recipes", spec.family, spec.published, _marks(spec)]
    yield " · ".join(filter(None, facts)) + (f" · [paper]({spec.paper})" if spec.paper else "") + "\n"
    yield from _texts(spec)
    yield "## Parameters\n"
    rows = [
        [
            f"`{name}`",
            f"`{json.dumps(field.default)}`",
            f"`{_type(field.annotation)}`",
            spec.arguments.get(name, ""),
        ]
        for name, field in spec.hyperparameters.model_fields.items()
    ]
    yield from _table(("name", "default", "type", "what it is"), rows, "It has none.")
    yield "## What its authors trained with\n"
    for card in cards_of(spec.name):
        yield from _table(
            (f"card `{card.name}`", ""), [[about, text] for about, text in card.lines().items()]
        )
    if not cards_of(spec.name):
        yield "There is no card.\n"
    if known := controls().get(spec.name):
        yield "## Controls\n"
        yield "`controls: true` in a recipe trains these, too: the same training without one part.\n"
        changes = [[f"`{name}`", f"`{_short(control)}`"] for name, control in known.items()]
        yield from _table(("control", "what differs"), changes)
    yield "## Measured\n"
    yield from _measured(spec.name, board)
    yield "## Published\n"
    yield from _published(spec.name, board)


def _texts(spec: MethodSpec) -> Iterator[str]:
    """Show what the class says, and below it the equations: what the public functions of its file say."""
    text = inspect.getdoc(spec.build) or ""
    yield re.split(r"\n(?:Args|Attributes|Raises|Returns):\n", text)[0].replace("*", r"\*") + "\n"
    module = sys.modules[spec.build.__module__]
    functions = [
        one
        for name, one in vars(module).items()
        if inspect.isfunction(one) and one.__module__ == module.__name__ and not name.startswith("_")
    ]
    if functions:
        yield f"In `{module.__name__.replace('.', '/')}.py`:\n"
        yield "```text"
        for one in functions:
            said = "\n    ".join(inspect.cleandoc(one.__doc__ or "").splitlines())
            yield f"{one.__name__}({', '.join(inspect.signature(one).parameters)})\n    {said}\n"
        yield "```\n"


def _measured(name: str, board: Board) -> Iterator[str]:
    from bench.leaderboard.check import words
    from bench.report import text

    rows = []
    variants = {line.key: line.variant for line in board.lines}
    for named in board.controls.of.values():
        variants |= {key: f"control {control}" for control, key in named.items() if key not in variants}
    for entry in _sorted(board, "measured", "method", name):
        pair = board.pairs[entry["key"]][0]
        differs = f": {words(pair['differs'])}" if pair["differs"] else ""
        beside = f" ({text.printed(pair['published'])}, {pair['reported_by']})" if pair["published"] else ""
        scores = [text.around(entry[group], entry[f"{group}_std"]) for group in GROUPS]
        data, protocol = _protocol(entry)
        protocol = ", ".join(filter(None, (protocol, variants.get(entry["key"]))))
        verdict = f"{pair['verdict']}{differs}{beside}"
        rows.append([data, protocol, str(entry["n"]), *_scores(scores), verdict])
    yield from _table((*PROTOCOL, "n", *SCORES, "verdict"), rows, "Nothing is measured yet.")


def _published(name: str, board: Board) -> Iterator[str]:
    from bench.report import text

    rows = []
    for entry in _sorted(board, "published", "literature", name):
        scores = [text.printed(entry[group]) for group in GROUPS]
        rows.append([*_protocol(entry), *_scores(scores), entry["title"], entry["reported_by"]])
    empty = "The collected literature has no number for it."
    yield from _table((*PROTOCOL, *SCORES, "called", "reported by"), rows, empty)


def _sorted(board: Board, kind: str, key: str, name: str) -> list[dict[str, Any]]:
    found = [entry for entry in board.entries if entry["kind"] == kind and entry[key] == name]
    return sorted(found, key=lambda entry: (entry["dataset"], entry["imbalance_factor"] or 0, entry["key"]))


def _protocol(entry: dict[str, Any]) -> list[str]:
    data = " ".join([entry["dataset"], *([f"{factor:g}"] if (factor := entry["imbalance_factor"]) else [])])
    epochs = f"{entry['epochs']} epochs" if entry["epochs"] else None
    return [data, ", ".join(filter(None, (entry["backbone"], epochs, entry["augmentation"])))]


def _scores(scores: Sequence[str]) -> list[str]:
    """Keep each score in one line, and the shot groups in one column if there are any."""
    kept = [score.replace(" ", "\u00a0") for score in scores]
    return [kept[0], " / ".join(kept[1:]) if set(kept[1:]) != {"n/a"} else ""]


def _marks(spec: MethodSpec) -> str:
    marks = ("golden", "reconstruction", "pretrained")
    return ", ".join(mark for mark in marks if getattr(spec, mark))


def _type(annotation: Any) -> str:
    return inspect.formatannotation(annotation).replace("typing.", "")


def _short(control: Any) -> str:
    return json.dumps(control.model_dump(mode="json", exclude_defaults=True))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], empty: str = "") -> Iterator[str]:
    if not rows:
        yield f"{empty}\n"
        return
    yield f"| {' | '.join(heads)} |"
    yield f"|{' --- |' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(map(_cell, row))} |"
    yield ""


def _cell(text: str) -> str:
    text = re.sub(r"[ \n]+", " ", text)  # not the spaces that hold a number together
    return text if text.startswith("`") else text.replace("|", r"\|")  # code needs no escape
