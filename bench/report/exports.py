"""The leaderboard for programs and papers: a table for CSV and JSON, and BibTeX of its methods."""

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

#: Columns of the published number that judges a measured entry, by key of the pair.
_JUDGED = {
    "ours": "compared",
    "published": "published",
    "d": "gap",
    "verdict": "verdict",
    "reported_by": "judged_by",
}

_CITED = ("title", "venue", "year", "paper")


def table(board: Board) -> pd.DataFrame:
    """Return all entries, one per row, with protocol, rank in the league and verdict."""
    types = COLUMNS | {"rank": "Int64", "of": "Int64"}
    types |= {"compared": "string", "published": "Float64", "gap": "Float64", "verdict": "string"}
    types |= dict.fromkeys(("judged_by", "differs", "unstated"), "string")
    rows = []
    for entry in board.entries:
        pair = board.pairs.get(entry["key"], [{}])[0]
        row = entry | {name: pair.get(key) for key, name in _JUDGED.items()}
        row |= {name: " ".join(pair[name]) if pair else None for name in ("differs", "unstated")}
        rows.append(row)
    return pd.DataFrame(rows, columns=list(types)).astype(types)


def json_lines(board: Board) -> str:
    """Write the table as a JSON list of objects, one per line, without unknown values."""
    rows = [{key: value for key, value in row.items() if value is not None} for row in to_rows(table(board))]
    return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n"


def bibtex(board: Board) -> str:
    """Cite the methods with a known venue, year or link; authors are never guessed."""
    known = {row.pop("method"): row for row in to_rows(board.methods.reset_index()[["method", *_CITED]])}
    for name, facts in {m.run.cell.method.name: m.run.record["method"] for m in reversed(board.done)}.items():
        published = known.get(name, {})
        known[name] = {fact: published.get(fact) or facts.get(fact) for fact in _CITED}
    head = "% Methods of the leaderboard, by its names. Authors are left out: they stand behind the links.\n"
    return head + "".join(citation(name, known[name]) for name in sorted(known))


def citation(name: str, facts: Mapping[str, Any]) -> str:
    """Cite a method as BibTeX; empty without venue, year and link."""
    if not any(facts[field] for field in ("venue", "year", "paper")):
        return ""
    lines = [f"  title = {{{{{latex(facts['title'])}}}}}"]
    lines += [f"  howpublished = {{{latex(facts['venue'])}}}"] if facts["venue"] else []
    lines += [f"  year = {{{facts['year']}}}"] if facts["year"] else []
    lines += [f"  url = {{{link(facts['paper'])}}}"] if link(facts["paper"]) else []
    return f"\n@misc{{{name},\n" + ",\n".join(lines) + "\n}\n"
