"""What a league says, in sentences made from its rows: who leads, by how much, and whether papers agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bench.leaderboard.compare import FEWEST_SEEDS, noise, tied
from bench.leaderboard.lines import Line
from bench.leaderboard.verdict import Verdict
from bench.report import text

_SEEDS = {1: "one seed", 2: "two seeds"}


def headline(lines: Sequence[Line]) -> str:
    """Name the best measured and the best published method of a league, with what the numbers rest on."""
    told = list(filter(None, (_measured(lines), _published(lines))))
    return f"{'; '.join(told)}." if told else "no accuracy over all classes is known."


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
    single = " (one seed each)" if {pair["n"] for pair in pairs} == {1} else ""
    return (
        f"Of {text.counted(len(ours), 'measured method')}, {len(pairs)} beside a published number: "
        f"{', '.join(verdicts)}{single}; measured minus published {spread}."
    )


def _measured(lines: Sequence[Line]) -> str:
    ours = [line for line in lines if line.kind != "published" and line.entry["accuracy"] is not None]
    if not ours:
        return "nothing measured here"
    first = max(ours, key=lambda line: (line.entry["accuracy"], line.key))
    steady = [line for line in ours if (line.entry["n"] or 0) >= FEWEST_SEEDS and line.runs]
    if first not in steady:
        few = _SEEDS.get(first.entry["n"], "external predictions")
        told = f"highest measured {_name(first)} {_score(first)}, {few}: not ranked"
        return f"{told}; {_best(steady)}" if steady else told
    return _best(steady)


def _best(steady: Sequence[Line]) -> str:
    """Name the best of several that were measured often enough, and all that noise does not tell from it."""
    ordered = sorted(steady, key=lambda line: (-line.entry["accuracy"], line.key))
    best = ordered[0]
    told = f"best measured {_name(best)} {_score(best)} (n = {best.entry['n']})"
    scores = {line.key: line.by_seed("accuracy") for line in steady}
    alike = set(tied(scores, dict.fromkeys(scores, noise(scores)))[best.key])
    if alike:
        return f"{told}, tied with {text.listed([_name(line) for line in ordered if line.key in alike])}"
    if len(ordered) > 1:
        lead = best.entry["accuracy"] - ordered[1].entry["accuracy"]
        return f"{told}, {text.number(lead)} ahead of {_name(ordered[1])}"
    return told


def _published(lines: Sequence[Line]) -> str:
    known = [line for line in lines if line.reported is not None and not line.doubtful]
    if not known:
        return ""
    first = max(known, key=lambda line: (line.reported, line.key))
    number = first.pair or first.entry
    by = "" if number["original"] else f", quoted by {number['reported_by']}"
    return f"best published {_name(first)} {text.printed(first.reported)}{by}"


def _name(line: Line) -> str:
    return str(line.entry["title"]) + (f" [{line.variant}]" if line.variant else "")


def _score(line: Line) -> str:
    return text.around(line.entry["accuracy"], line.entry["accuracy_std"])
