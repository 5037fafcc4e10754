"""docs/findings.md: every figure between markers is what the records say.

A marker is ``<!-- recipe: what -->figure<!-- / -->``; ``UPDATE_EXPECTED=1`` fills the figures anew. `what` is

* ``LABEL [COLUMN]``: the mean over seeds, in percent; with ``each`` the seeds' accuracies, with ``spread``
  their standard deviation, and with ``subset``, ``initialisation`` or ``rest`` the part of it that is due to
  the split seed, the seed or both together, ``share`` the subset's part of the variance in percent;
* ``LABEL - LABEL [COLUMN]``: the mean of the differences of paired seeds and its standard error;
  ``one+other`` in place of a recipe pairs the seeds of both;
* after a JSON file in place of a recipe, the keys to one of its values.

``LABEL@DATASET`` is a label of which a recipe has several data sets.
"""

from __future__ import annotations

import json
import math
import os
import re
from functools import cache

import pandas as pd
from project import ROOT

import bench
from bench.leaderboard.variance import components

FINDINGS = ROOT / "docs" / "findings.md"
MARKED = re.compile(r"<!-- (\S+): ([^>]+) -->(.*?)<!-- / -->")


@cache
def done() -> pd.DataFrame:
    runs = bench.load_results(ROOT / "results")
    return runs[runs["status"] == "done"]


def seeds(recipe: str, label: str, column: str = "accuracy") -> dict[tuple[int, int], float]:
    """By split seed and seed."""
    label, _, dataset = label.partition("@")
    rows = done()[(done()["recipe"] == recipe) & (done()["label"] == label)]
    rows = rows[rows["dataset"] == dataset] if dataset else rows
    repetitions = zip(rows["split_seed"].astype(int), rows["seed"].astype(int), strict=True)
    found = dict(zip(repetitions, rows[column].astype(float), strict=True))
    assert len(found) == len(rows) > 0, f"{recipe}: {label}: no runs, or of several data sets"
    return dict(sorted(found.items()))


def figure(source: str, what: str) -> str:
    if source.endswith(".json"):
        value = json.loads((ROOT / source).read_text(encoding="utf-8"))
        for key in what.split():
            value = value[int(key) if isinstance(value, list) else key]
        return str(value)
    if " - " in what:
        one, _, other, *column = what.split()
        pairs = [(seeds(name, one, *column), seeds(name, other, *column)) for name in source.split("+")]
        gaps = pd.Series(
            [ours[seed] - theirs[seed] for ours, theirs in pairs for seed in ours.keys() & theirs]
        )
        return f"{gaps.mean():+.1f}" + (
            f" ± {gaps.std() / math.sqrt(len(gaps)):.1f}" if len(gaps) > 1 else ""
        )
    label, *column = what.split()
    if column and column[0] in ("subset", "initialisation", "rest", "share"):
        parts = components(seeds(source, label))
        assert parts is not None
        if column[0] == "share":
            return f"{100 * parts.share_of_subset:.0f}"
        return f"{getattr(parts, column[0]):.1f}"
    kind = column[0] if column and column[0] in ("each", "spread") else ""
    scores = pd.Series(seeds(source, label, *([] if kind else column)))
    if kind == "each":
        return " ".join(f"{score:.1f}" for score in scores)
    return f"{scores.std() if kind else scores.mean():.1f}"


def test_every_figure_of_the_findings_is_that_of_the_records() -> None:
    text = FINDINGS.read_text(encoding="utf-8")
    filled = MARKED.sub(lambda m: f"<!-- {m[1]}: {m[2]} -->{figure(m[1], m[2])}<!-- / -->", text)
    assert text.count("<!-- / -->") == len(MARKED.findall(text)) > 40, "a marker is malformed"
    if os.environ.get("UPDATE_EXPECTED"):
        FINDINGS.write_text(filled, encoding="utf-8")
        text = filled
    wrong = {
        m[0]: m[1] for m in zip(MARKED.findall(text), MARKED.findall(filled), strict=True) if m[0] != m[1]
    }
    assert not wrong, "run this test with UPDATE_EXPECTED=1 and read what the text says around them"


def test_recipes_leave_findings_to_the_findings() -> None:
    reported = [file.name for file in (ROOT / "recipes").rglob("*.yaml") if "+-" in file.read_text()]
    assert not reported
