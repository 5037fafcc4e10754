"""Measured against published: which numbers are compared, and how their protocols differ."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.leaderboard.entries import Entry
from bench.leaderboard.grouping import grouped
from bench.leaderboard.protocols import FIELDS, JUDGED
from bench.leaderboard.stated import OPEN
from bench.leaderboard.verdict import Verdict, verdict
from bench.published import TRUST

#: A measured entry beside one published number, or beside none; see `compared`.
Pair = dict[str, Any]

#: Marks a field that the published row does not state itself.
BY_CARD = " (by the authors' card)"

#: What a pair takes from the measured entry, and from the published one.
_OURS = ("key", "title", "method", "dataset", "imbalance_factor", "n")
_THEIRS = ("selection", "reported_by", "source", "original", "year", "trust", "note", "doubtful")


def compared(entries: Iterable[Entry]) -> dict[str, list[Pair]]:
    """Pair every measured entry with every published number of its method, data set and imbalance factor.

    A number of the best epoch on the test set is compared with our best on test (`ours` is "best_test"), any
    other with our last epoch. `differs`, `unstated` and `by_card` name protocol fields that differ, that the
    source leaves open although most state them, and that it leaves to its authors' card. If the choice of
    epoch is not stated, or was made on a validation set that we lack, "selection" is in `unstated`.

    Returns:
        The pairs of each measured entry by its key; it is judged by the first: most fields that the source
        itself states alike, then fewest known differences, not doubtful, the authors' own, most reliably
        read, latest. An entry without published numbers has one pair, "no published number".
    """
    every = list(entries)
    known = (one for one in every if one["kind"] == "published" and one["accuracy"] is not None)
    numbers = grouped(known, _cell)
    found = {}
    for entry in every:
        if entry["kind"] == "measured":
            pairs = [_pair(entry, number) for number in numbers.get(_cell(entry), ())]
            found[entry["key"]] = sorted(pairs, key=_preference) or [_alone(entry)]
    return found


def side_by_side(
    entry: Mapping[str, Any], number: Mapping[str, Any], ours: str
) -> list[tuple[str, str, str, str]]:
    """Return rows of field, measured value, published value and state.

    The state is "same", "differs", "not stated", or "" where nothing is compared; it marks fields by the
    authors' card. The accuracy is that of the compared epoch, the shot groups are of the last epoch.

    Args:
        entry, number: a measured and a published entry.
        ours: that of their pair.
    """
    rows = [(name, entry[name], number[name], _state(entry[name], number[name])) for name in JUDGED]
    rows.append(("selection", ours, number["selection"], _state(ours, number["selection"])))
    by_card = _by_card(number)
    rows = [(*row, state + BY_CARD if row[0] in by_card else state) for *row, state in rows]
    rows.append(("seeds", entry["n"], number["n"], ""))
    accuracy = entry["best_accuracy"] if ours == "best_test" else entry["accuracy"]
    rows.append(("accuracy", accuracy, number["accuracy"], ""))
    rows += [(name, entry[name], number[name], "") for name in ("many", "medium", "few")]
    return [(name, _written(mine), _written(theirs), state) for name, mine, theirs, state in rows]


def words(fields: Iterable[str]) -> str:
    """Write protocol fields by their labels."""
    return ", ".join("choice of epoch" if name == "selection" else FIELDS[name].label for name in fields)


def near(pairs: Sequence[Pair]) -> list[Pair]:
    """Return the pairs with the same known differences as the first, lowest number first."""
    alike = [pair for pair in pairs if pair["differs"] == pairs[0]["differs"]]
    return sorted(alike, key=lambda pair: pair["published"])


def sound(pairs: Sequence[Pair]) -> list[Pair]:
    """Return the pairs that are near, without doubtful numbers unless the first is one."""
    return [pair for pair in near(pairs) if not pair["doubtful"] or pair is pairs[0]]


def disagreement(pairs: Sequence[Pair]) -> str:
    """Write how many reports of the first pair's protocol give which verdict; "" if none contradict."""
    counts = Counter(pair["verdict"] for pair in sound(pairs))
    if len(counts.keys() & {Verdict.REPRODUCED, Verdict.ABOVE, Verdict.BELOW}) < 2:
        return ""
    return f"of {counts.total()} reports: {', '.join(f'{counts[v]} {v}' for v in Verdict if counts[v])}"


def _cell(entry: Entry) -> tuple[Any, ...]:
    return entry["dataset"], entry["imbalance_factor"], entry["literature"]


def _pair(entry: Entry, number: Entry) -> Pair:
    states = {name: _state(entry[name], number[name]) for name in JUDGED}
    best = number["selection"] == "best_test" and entry["best_accuracy"] is not None
    ours, metric = ("best_test", "best_accuracy") if best else ("last", "accuracy")
    mean, std, n = entry[metric], entry[f"{metric}_std"], entry["n"] or 0
    d = None if mean is None else mean - number["accuracy"]
    s = None if std is None else std / math.sqrt(n)
    differs = [name for name, state in states.items() if state == "differs"]
    unstated = [name for name, state in states.items() if state == "not stated" and FIELDS[name].marked]
    if number["selection"] != ours:
        unstated.append("selection")
    return {
        **{name: entry[name] for name in _OURS},
        "ours": ours,
        "measured": mean,
        "s": s,
        "published": number["accuracy"],
        "d": d,
        "verdict": verdict(d, s, n, differs),
        "differs": differs,
        "unstated": unstated,
        "by_card": _by_card(number),
        "place": number["key"],
        "label": number["title"],
        **{name: number[name] for name in _THEIRS},
    }


def _alone(entry: Entry) -> Pair:
    """Return the pair of an entry without published numbers."""
    return {
        **{name: entry[name] for name in _OURS},
        **{"ours": "last", "measured": entry["accuracy"], "verdict": Verdict.NONE},
        **{"differs": [], "unstated": [], "by_card": []},
        **dict.fromkeys(("s", "published", "d", "place", "label", *_THEIRS)),
    }


def _preference(pair: Pair) -> tuple[Any, ...]:
    unlike = len({*pair["differs"], *pair["unstated"], *pair["by_card"]})
    reliability = (not pair["original"], TRUST.index(pair["trust"]), -(pair["year"] or 0))
    source = (pair["reported_by"], pair["published"], pair["place"])
    return unlike, len(pair["differs"]), bool(pair["doubtful"]), *reliability, *source


def _state(ours: Any, theirs: Any) -> str:
    if ours is None or theirs in OPEN:
        return "not stated"
    return "same" if ours == theirs else "differs"


def _by_card(number: Mapping[str, Any]) -> list[str]:
    return (number["by_card"] or "").split()


def _written(value: Any) -> str:
    return "n/a" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
