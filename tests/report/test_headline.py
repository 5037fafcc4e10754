"""A league's headline: who leads, by how much, on what evidence, and whether published numbers agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from leaderboard_fakes import board_of, literature, run

from bench.report.headline import agreement, headline
from bench.result import Result


def series(method: str, *accuracies: float) -> list[Result]:
    return [run(method, seed, accuracy) for seed, accuracy in enumerate(accuracies)]


def lines(folder: Path, *methods: list[Result], numbers: Any = ()) -> Any:
    """Return the lines of the league that these make."""
    known = literature(folder, *numbers) if numbers else []
    tab = board_of([one for runs in methods for one in runs], known).opening
    return tab.leagues[tab.opening]


def test_the_best_is_named_with_its_lead(tmp_path: Path) -> None:
    league = lines(tmp_path, series("bccl", 52.1, 52.3, 52.5), series("bcl", 49.9, 50.1, 50.3))
    assert headline(league) == "best measured BCCL 52.30 ± 0.20 (n = 3), 2.20 ahead of BCL."


def test_a_lead_says_that_rows_of_fewer_seeds_are_left_aside(tmp_path: Path) -> None:
    league = lines(
        tmp_path, series("bccl", 52.1, 52.3, 52.5), series("bcl", 49.9, 50.1, 50.3), series("ce", 51.0)
    )
    assert headline(league).endswith("2.20 ahead of BCL (n < 3 aside).")


def test_what_noise_does_not_tell_from_the_best_is_tied(tmp_path: Path) -> None:
    league = lines(
        tmp_path,
        series("bccl", 52.1, 52.3, 52.5),
        series("bcl", 52.6, 51.9, 52.0),
        series("ce", 38, 38.4, 38.5),
    )
    assert headline(league) == "best measured BCCL 52.30 ± 0.20 (n = 3), tied with BCL."


def test_one_seed_or_two_are_not_ranked(tmp_path: Path) -> None:
    league = lines(tmp_path, series("bccl", 52.3), series("bcl", 50.0, 50.2, 50.4))
    assert headline(league) == (
        "highest measured BCCL 52.30, one seed: not ranked; best measured BCL 50.20 ± 0.20 (n = 3)."
    )
    league = lines(tmp_path, series("bccl", 52.3, 52.5))
    assert headline(league) == "highest measured BCCL 52.40 ± 0.14, two seeds: not ranked."


def test_the_best_published_is_named_with_who_quotes_it_and_never_a_doubtful_one(tmp_path: Path) -> None:
    numbers = [
        {"method": "bcl", "value": "51.9"},
        {"method": "ride", "value": "52.8", "original": "no", "reported_by": "Somebody"},
        {"method": "crt", "value": "99", "note": "doubtful"},
    ]
    league = lines(tmp_path, numbers=numbers)
    assert headline(league) == "nothing measured here; best published RIDE 52.8, quoted by Somebody."
    assert agreement(league) == ""


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [
        ([52.3], "1 close, n = 1 (one seed); measured minus published +0.30."),
        ([52.2, 52.3, 52.4], "1 reproduced; measured minus published +0.30."),
        ([49.0, 49.1, 49.2], "1 below; measured minus published −2.90."),
    ],
)
def test_agreement_counts_verdicts_of_the_same_protocol(
    tmp_path: Path, seeds: list[float], expected: str
) -> None:
    numbers = [{"method": "bcl", "value": "52"}, {"method": "ce", "value": "99", "epochs": "160"}]
    league = lines(tmp_path, series("bcl", *seeds), series("ce", 39.0), numbers=numbers)
    assert agreement(league) == f"Of 2 measured methods, 1 beside a published number: {expected}"


def test_a_verdict_that_other_reports_contradict_is_counted_as_such(tmp_path: Path) -> None:
    numbers = [{"method": "bcl", "value": value, "reported_by": value} for value in ("49", "52")]
    league = lines(tmp_path, series("bcl", 50.4, 50.5, 50.6), numbers=numbers)
    assert "1 above, 1 with reports that contradict it;" in agreement(league)


def test_a_league_of_ours_alone_says_that_nothing_judges_it(tmp_path: Path) -> None:
    assert agreement(lines(tmp_path, series("bcl", 52.0))).startswith("No published number has this protocol")
