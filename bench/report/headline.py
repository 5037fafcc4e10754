"""What a league says, in sentences made from its rows: who leads, by how much, and whether papers agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bench.leaderboard.compare import FEWEST_SEEDS, noise, tied
from bench.leaderboard.leagues import headline_of
from bench.leaderboard.lines import Line
from bench.leaderboard.verdict import Verdict
from bench.report import text

_SEEDS = {1: "one seed", 2: "two seeds"}


def headline(lines: Sequence[Line]) -> str:
    """Name the best measured and the best published method of a league, with what the numbers rest on."""
    told = list(filter(None, (_measured(lines), _published(lines))))
    return f"{'; '.join(told)}."


def agreement(lines: Sequence[Line]) -> str:
    """Say how the measured numbers of a league compare with the published ones; empty if none is measured."""
    ours = [line for line in lines if line.kind == "measured"]
    pairs = [line.pair for line in ours if line.pair and line.judged]
    if not pairs:
        return "No published number has this protocol, so none is held against these." if ours else ""
    counts = Counter(pair["verdict"] for pair in pairs)
    verdicts = [f"{counts[v]} {v}" for v in Verdict if counts[v]]
    gaps = sorted(pair["d"] for pair in pairs)
    spread = text.gap(gaps[0]) + (f" to {text.gap(gaps[-1])}" if len(gaps) > 1 else "")
    single = {pair["n"] for pair in pairs} == {1}
    seeds = f" (one seed{' each' if len(pairs) > 1 else ''})" if single else ""
    return (
        f"Of {text.counted(len(ours), 'measured method')}, {len(pairs)} beside a published number: "
        f"{', '.join(verdicts)}{seeds}; measured minus published {spread}."
    )


def _measured(lines: Sequence[Line]) -> str:
    name = headline_of(line.entry for line in lines)
    ours = [line for line in lines if line.kind != "published" and line.entry[name] is not None]
    if not ours:
        return "nothing measured here"
    ours = sorted(ours, key=lambda line: (-line.entry[name], line.key))
    steady = [line for line in ours if line.runs and line.entry["n"] >= FEWEST_SEEDS]
    if ours[0] in steady:
        return _best(steady, name, aside=ours[: len(steady)] != steady)
    few = _SEEDS.get(ours[0].entry["n"] if ours[0].runs else 0, "external predictions")
    told = f"highest measured {_name(ours[0])} {_score(ours[0], name)}, {few}: not ranked"
    return f"{told}; {_best(steady, name)}" if steady else told


def _best(steady: Sequence[Line], name: str, aside: bool = False) -> str:
    """Name the first of lines that were measured often enough, and all that noise does not tell from it.

    Args:
        aside: whether others, of too few seeds, stand among them.
    """
    best = steady[0]
    told = f"best measured {_name(best)} {_score(best, name)} (n = {best.entry['n']})"
    scores = {line.key: line.by_seed(name) for line in steady}
    alike = set(tied(scores, dict.fromkeys(scores, noise(scores)))[best.key])
    if alike:
        return f"{told}, tied with {text.listed([_name(line) for line in steady if line.key in alike])}"
    if len(steady) > 1:
        lead = best.entry[name] - steady[1].entry[name]
        return f"{told}, {text.number(lead)} ahead of {_name(steady[1])}{' (n < 3 aside)' if aside else ''}"
    return told


def _published(lines: Sequence[Line]) -> str:
    known = {line.key: line.reported for line in lines if not line.doubtful}
    values = {key: value for key, value in known.items() if value is not None}
    if not values:
        return ""
    key = max(values, key=lambda key: (values[key], key))
    (first,) = [line for line in lines if line.key == key]
    number = first.pair or first.entry
    by = "" if number["original"] else f", quoted by {number['reported_by']}"
    return f"best published {_name(first)} {text.printed(values[key])}{by}"


def _name(line: Line) -> str:
    return str(line.entry["title"]) + (f" [{line.variant}]" if line.variant else "")


def _score(line: Line, name: str) -> str:
    """Write what ranks a line; what is not the plain accuracy is called so."""
    said = text.around(line.entry[name], line.entry[f"{name}_std"])
    return said if name == "accuracy" else f"{said} {name} accuracy"
