"""Sentences about a league: which method leads, by how much, and whether published numbers agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bench.leaderboard.check import disagreement
from bench.leaderboard.compare import FEWEST_SEEDS, noise, tied
from bench.leaderboard.leagues import headline_of
from bench.leaderboard.lines import Line
from bench.leaderboard.verdict import Verdict
from bench.report import text

_SEEDS = {1: "one seed", 2: "two seeds"}


def headline(lines: Sequence[Line]) -> str:
    """Name the best measured and the best published method of a league, with n and source."""
    return f"{'; '.join(filter(None, (_measured(lines), _published(lines))))}."


def agreement(lines: Sequence[Line]) -> str:
    """Compare the measured numbers of a league with the published ones; empty if none is measured."""
    ours = [line for line in lines if line.kind == "measured"]
    pairs = [line.pair for line in ours if line.pair and line.judged]
    if not pairs:
        return "No published number has this protocol, so none is held against these." if ours else ""
    counts = Counter(pair["verdict"] for pair in pairs)
    verdicts = [f"{counts[v]} {v}" for v in Verdict if counts[v]]
    gaps = sorted(pair["d"] for pair in pairs)
    spread = text.gap(gaps[0]) + (f" to {text.gap(gaps[-1])}" if len(gaps) > 1 else "")
    if against := sum(bool(disagreement(line.pairs)) for line in ours if line.judged):
        verdicts.append(f"{against} with reports that contradict it")
    single = {pair["n"] for pair in pairs} == {1}
    seeds = f" (one seed{' each' if len(pairs) > 1 else ''})" if single else ""
    methods = len({line.entry["title"] for line in ours})
    rows = text.counted(len(ours), "measured method")
    if methods < len(ours):
        rows = f"{len(ours)} measured rows of {text.counted(methods, 'method')}"
    return (
        f"Of {rows}, {len(pairs)} beside a published number: "
        f"{', '.join(verdicts)}{seeds}; measured minus published {spread}."
    )


def _measured(lines: Sequence[Line]) -> str:
    name = headline_of(line.entry for line in lines)
    ours = [line for line in lines if line.kind != "published" and line.entry[name] is not None]
    if not ours:
        return "nothing measured here"
    ours = sorted(ours, key=lambda line: (-line.entry[name], line.key))
    ranked = [line for line in ours if line.runs and line.entry["n"] >= FEWEST_SEEDS]
    if ours[0] in ranked:
        return _best(ranked, name, aside=ours[: len(ranked)] != ranked)
    few = _SEEDS.get(ours[0].entry["n"] if ours[0].runs else 0, "external predictions")
    highest = f"highest measured {ours[0].title} {_written(ours[0], name)}, {few}: not ranked"
    return f"{highest}; {_best(ranked, name)}" if ranked else highest


def _best(ranked: Sequence[Line], name: str, aside: bool = False) -> str:
    """Name the first of the lines of enough seeds, and all whose difference to it may be noise.

    Args:
        aside: whether lines of fewer seeds are among them.
    """
    best = ranked[0]
    sentence = f"best measured {best.title} {_written(best, name)} (n = {best.entry['n']})"
    values = {line.key: line.by_seed(name) for line in ranked}
    ties = set(tied(values, dict.fromkeys(values, noise(values)))[best.key])
    if ties:
        return f"{sentence}, tied with {text.listed([line.title for line in ranked if line.key in ties])}"
    if len(ranked) > 1:
        lead = text.number(best.entry[name] - ranked[1].entry[name])
        return f"{sentence}, {lead} ahead of {ranked[1].title}{' (n < 3 aside)' if aside else ''}"
    return sentence


def _published(lines: Sequence[Line]) -> str:
    known = [line for line in lines if not line.doubtful and line.reported is not None]
    if not known:
        return ""
    best = max(known, key=lambda line: (line.reported or 0, line.key))
    number = best.pair or best.entry
    by = "" if number["original"] else f", quoted by {number['reported_by']}"
    return f"best published {best.title} {text.printed(best.reported)}{by}"


def _written(line: Line, name: str) -> str:
    """Write the metric that ranks a line, by name if it is not the accuracy."""
    value = text.around(line.entry[name], line.entry[f"{name}_std"])
    return value if name == "accuracy" else f"{value} {name} accuracy"
