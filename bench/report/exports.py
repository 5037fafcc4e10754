"""The leaderboard for programs and papers: the tidy table as CSV and JSON, and BibTeX of its methods."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from bench.leaderboard import Board
from bench.leaderboard.entries import COLUMNS
from bench.published import to_rows
from bench.report.page import latex
from bench.report.text import link

#: What is told of the published number that a measured entry is judged by.
_JUDGED = {
    "ours": "compared",
    "published": "published",
    "d": "gap",
    "verdict": "verdict",
    "reported_by": "judged_by",
}

_CITED = ("title", "venue", "year", "paper")


def table(board: Board) -> pd.DataFrame:
    """Return all entries, one per row: their league, rank in it, and the verdict on measured ones."""
    types = COLUMNS | {"rank": "Int64", "of": "Int64"}
    types |= {"compared": "string", "published": "Float64", "gap": "Float64", "verdict": "string"}
    types |= dict.fromkeys(("judged_by", "differs", "unstated"), "string")
    rows = []
    for entry in board.entries:
        pair = board.pairs.get(entry["key"], [{}])[0]
        told = {name: pair.get(key) for key, name in _JUDGED.items()}
        told |= {name: " ".join(pair[name]) if pair else None for name in ("differs", "unstated")}
        rows.append(entry | told)
    return pd.DataFrame(rows, columns=list(types)).astype(types)


def json_lines(board: Board) -> str:
    """Write the same table as a JSON list of objects, one per line, which leave out what is not known."""
    rows = [{key: value for key, value in row.items() if value is not None} for row in to_rows(table(board))]
    return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n"


def bibtex(board: Board) -> str:
    """Cite the methods of which a venue, year or link is known; authors are never guessed."""
    known = {row.pop("method"): row for row in to_rows(board.methods.reset_index()[["method", *_CITED]])}
    for told in {one.run.cell.method.name: one.run.record["method"] for one in reversed(board.done)}.values():
        earlier = known.get(told["name"], {})
        known[told["name"]] = {name: earlier.get(name) or told.get(name) for name in _CITED}
    head = "% Methods of the leaderboard, by its names. Authors are left out: they stand behind the links.\n"
    return head + "".join(citation(name, known[name]) for name in sorted(known))


def citation(name: str, facts: Mapping[str, Any]) -> str:
    """Cite one method as BibTeX, as far as its facts are known."""
    if not any(facts[field] for field in ("venue", "year", "paper")):
        return ""
    lines = [f"  title = {{{{{latex(facts['title'])}}}}}"]
    lines += [f"  howpublished = {{{latex(facts['venue'])}}}"] if facts["venue"] else []
    lines += [f"  year = {{{facts['year']}}}"] if facts["year"] else []
    lines += [f"  url = {{{link(facts['paper'])}}}"] if link(facts["paper"]) else []
    return f"\n@misc{{{name},\n" + ",\n".join(lines) + "\n}\n"
