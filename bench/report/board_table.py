"""The leaderboard's tables: lines with their rank and verdict; all verdicts; average ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bench.leaderboard import FEWEST, average_rank
from bench.published import plain
from bench.report import board_cells as cells
from bench.report.board import Board
from bench.report.lines import SCORES, Line, Tab, strong, ties
from bench.report.page import Column, Table, Value
from bench.report.text import number, order
from bench.report.widening import choices, places, protocol

#: Methods that met fewer leagues stand at the end: a rank in one is chance.
FEW_CELLS = 3

#: What each column says to who points at it.
HINTS = {
    "rank": "among the rows shown; equal numbers share the better rank, and what is n/a has none. In "
    "brackets: of one seed, which ranks nothing",
    "method": "what was measured leads to its page: configuration, curves, classes, protocol. Below it: who "
    "reports the number; several reports of one method and protocol are one row",
    "n": "how many seeds; n/a where a source does not say",
    "accuracy": "test accuracy in percent after the last epoch, mean ± standard deviation over seeds. "
    "Bold: the best measured over several seeds, all whose paired difference to it over common seeds may be "
    "noise (95 % t interval), and the best published. Italics: one seed, which is never bold. Of several "
    "reports it is the authors' own, else the median; the range stands below, its sources on hover",
    "shots": "mean accuracy of the classes with this many training images",
    "best": "the epoch that scored best on the test set, as papers often report it, and by how much choosing "
    "it flatters the last epoch",
    "published": "the published number nearest in protocol, and the range of all reports as near. A field of "
    "the protocol that its source does not state counts as the same, and is marked",
    "gap": "measured minus published, in points, and the verdict. Reproduced: at most 0.5, the standard "
    "error at most 0.25. Above, below: more than 0.5 and two standard errors. Inconclusive: the seeds are "
    "too few or too unlike to say. Protocol differs: in the fields named, so nothing follows",
    "balanced": "mean over classes of their accuracies",
    "worst_class": "the lowest accuracy of a class",
    "ece": "expected calibration error: how far confidence is from accuracy, 15 bins",
    "time": "on the device for one run and what it starts from, mean over seeds; it depends on the machine",
    "parameters": "all that the method learns; its scores may need fewer",
    "year": "when the number was published",
    "protocol": "in which fields a row differs from the league you opened; empty if in none",
}


def board_table(tab: Tab, lines: Sequence[Line], *, whole: bool = False) -> Table:
    """Return the table of a tab's lines, of one league or, for a page that widens it, of the `whole` tab."""
    columns, rows = _columns(tab, lines, whole), []
    bold = {score: _bold(lines, score) for score in SCORES}
    tied = {score: _tied(lines, score) if whole else {} for score in SCORES}
    for line in lines:
        scores = {s: cells.score(line, s, line.key in bold[s], tied[s].get(line.key, {})) for s in SCORES}
        made = scores | {
            "rank": cells.rank(line),
            "method": cells.method(line),
            "best": cells.best(line),
            "published": cells.published(line),
            "gap": cells.gap(line),
            "time": cells.time(line),
            "year": cells.year(line),
            "protocol": Value(protocol(line.league)),
        }
        made |= {name: cells.whole(line, name) for name in ("n", "parameters")}
        made |= {name: cells.share(line, name) for name in ("balanced", "worst_class", "ece")}
        rows.append([made[column.name] for column in columns])
    if not whole:
        return Table(columns, rows)
    at = [{"data-at": place} for place in places(lines, choices(tab))]
    return Table(columns, rows, kinds=[line.kind for line in lines], data=at)


def verdict_table(board: Board) -> Table:
    """Return every measured series beside the published number it is judged by."""
    columns = [
        Column("method", HINTS["method"], numeric=False),
        Column("data", "data set and imbalance factor", numeric=False),
        Column("n", HINTS["n"]),
        Column("measured", "mean of what is like the published number: last epoch, or best on test"),
        Column("published", HINTS["published"]),
        Column("gap", HINTS["gap"]),
    ]
    rows = []
    for tab in board.tabs:
        for line in tab.lines:
            if line.pair is None or line.pair["d"] is None:
                continue
            published = cells.published(line)
            by = ("plain", line.pair["reported_by"])
            rows.append(
                [
                    cells.method(line),
                    Value(tab.title.replace(" imbalance factor", "")),
                    cells.whole(line, "n"),
                    Value(number(line.pair["measured"]), order(line.pair["measured"])),
                    replace(published, notes=(by, *published.notes)),
                    cells.gap(line),
                ]
            )
    return Table(columns, rows)


def rank_table(board: Board) -> Table:
    """Return the average ranks of methods across leagues, with the number of leagues they rest on."""
    known = plain(board.entries[["method", "title"]].drop_duplicates("method"))
    titles = {row["method"]: row["title"] for row in known}
    titles |= dict(zip(board.literature["method"], board.literature["title"], strict=True))
    ranks = sorted(plain(average_rank(board.entries)), key=lambda row: row["cells"] < FEW_CELLS)
    columns = [
        Column("method", numeric=False),
        Column("average rank", "mean of its ranks within leagues, 1 is best"),
        Column("leagues", f"how many leagues of {FEWEST} methods or more it was ranked in"),
    ]
    rows = [
        [
            Value(titles[row["method"]]),
            Value(f"{row['average_rank']:.2f}", round(row["average_rank"], 6)),
            Value(str(row["cells"]), row["cells"]),
        ]
        for row in ranks
    ]
    return Table(columns, rows)


def _columns(tab: Tab, lines: Sequence[Line], whole: bool) -> list[Column]:
    """Return the columns in which any of the lines has something to say."""
    kinds = {line.kind for line in lines}
    measured, literature = "measured" in kinds, "published" in kinds
    ours = whole and kinds != {"published"}
    compared = any(line.pair and line.pair["d"] is not None for line in lines)
    hidden = ("balanced", "worst_class", "ece", *(("parameters", "year") if compared else ()))
    heads = {
        "rank": "#",
        "method": "method",
        "n": "n",
        "accuracy": "accuracy (last epoch)",
        **{
            score: head
            for score, head in tab.shots.items()
            if any(line.entry[score] is not None for line in lines)
        },
        "best": "best on test (selection optimism)" * measured,
        "published": "published" * compared,
        "gap": "gap" * compared,
        "balanced": "balanced" * ours,
        "worst_class": "worst class" * ours,
        "ece": "ECE" * ours,
        "time": "device time" * measured,
        "parameters": "parameters" * (measured and whole),
        "year": "year" * (literature and whole),
        "protocol": "protocol" * whole,
    }
    return [
        Column(
            head,
            HINTS.get(name, HINTS["shots"]),
            numeric=name not in ("method", "protocol"),
            headline=name == "accuracy",
            name=name,
            hidden=name in hidden,
        )
        for name, head in heads.items()
        if head
    ]


def _bold(lines: Sequence[Line], score: str) -> set[str]:
    leagues = dict[object, list[Line]]()
    for line in lines:
        leagues.setdefault(line.league, []).append(line)
    return {key for members in leagues.values() for key in strong(members, score)}


def _tied(lines: Sequence[Line], score: str) -> dict[str, Mapping[str, str]]:
    """Tell scripts from which rows noise does not let a row be told, for bold in widened leagues."""
    numbers = {line.key: str(number) for number, line in enumerate(lines)}
    return {
        key: {"data-ties": " ".join(numbers[other] for other in keys)}
        for key, keys in ties(lines, score).items()
    }
