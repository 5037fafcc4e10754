"""The verdict, the number it is held against, and its explanation."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leaderboard_fakes import NUMBER, board_of, literature, run, table, whole_literature

from bench.errors import BenchError
from bench.leaderboard import Verdict, side_by_side, verdict
from bench.leaderboard.check import disagreement, near, sound
from bench.leaderboard.protocols import JUDGED
from bench.leaderboard.stated import filled
from bench.result import Result

#: The machine may be busy.
steady = settings(deadline=None)

gaps = st.floats(-100, 100)
errors = st.floats(0, 50)
seeds = st.integers(2, 100)


# -- the verdict ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("d", "s", "n", "expected"),
    [
        (0.5, 0.25, 3, Verdict.REPRODUCED),
        (-0.5, 0.25, 3, Verdict.REPRODUCED),
        (52.3 - 51.8, 0.1, 3, Verdict.REPRODUCED),  # 0.5 but for binary fractions
        (0.1, 0.26, 3, Verdict.INCONCLUSIVE),
        (0.51, 0.0, 3, Verdict.ABOVE),
        (-0.51, 0.0, 3, Verdict.BELOW),
        (-1.0, 0.25, 3, Verdict.INCONCLUSIVE),  # exactly 0.5 + 2 s
        (-1.01, 0.25, 3, Verdict.BELOW),
        (1.01, 0.25, 3, Verdict.ABOVE),
        (0.5, None, 1, Verdict.CLOSE),
        (-0.2, None, 1, Verdict.CLOSE),
        (-30.0, None, 1, Verdict.INCONCLUSIVE),
        (30.0, None, 1, Verdict.INCONCLUSIVE),
        (None, 0.1, 3, Verdict.NONE),
        (float("nan"), 0.1, 3, Verdict.NONE),
        (0.0, None, 0, Verdict.NONE),
        (0.0, None, 3, Verdict.INCONCLUSIVE),
    ],
)
def test_verdicts(d: float | None, s: float | None, n: int, expected: Verdict) -> None:
    assert verdict(d, s, n) is expected


@steady
@given(gaps, errors, st.integers(1, 100), st.lists(st.sampled_from(JUDGED), min_size=1))
def test_a_known_difference_of_protocol_decides_alone(d: float, s: float, n: int, differs: list[str]) -> None:
    assert verdict(d, s, n, differs) is Verdict.DIFFERS


@steady
@given(gaps, errors, seeds)
def test_above_and_below_mirror_each_other(d: float, s: float, n: int) -> None:
    mirror = {Verdict.ABOVE: Verdict.BELOW, Verdict.BELOW: Verdict.ABOVE}
    result = verdict(d, s, n)
    assert verdict(-d, s, n) is mirror.get(result, result)


@steady
@given(gaps, errors, seeds)
def test_a_verdict_of_several_seeds_is_the_rule_s(d: float, s: float, n: int) -> None:
    result = verdict(d, s, n)
    if result is Verdict.REPRODUCED:
        assert abs(d) <= 0.5 + 1e-6
        assert s <= 0.25 + 1e-6
    elif result in (Verdict.ABOVE, Verdict.BELOW):
        assert abs(d) > 0.5 + 2 * s
        assert (d > 0) == (result is Verdict.ABOVE)
    else:
        assert result is Verdict.INCONCLUSIVE
        assert abs(d) <= 0.5 + 2 * s + 1e-6


@steady
@given(gaps, errors, errors)
def test_more_noise_never_makes_a_verdict_surer(d: float, s: float, more: float) -> None:
    if verdict(d, s, 3) is Verdict.INCONCLUSIVE and abs(d) > 0.5 + 1e-6:
        assert verdict(d, s + more, 3) is Verdict.INCONCLUSIVE


@steady
@given(gaps)
def test_one_seed_is_never_conclusive(d: float) -> None:
    assert verdict(d, None, 1) in (Verdict.CLOSE, Verdict.INCONCLUSIVE)


# -- what is held against what --------------------------------------------------------------------
def judged(folder: Path, runs: list[Result], *numbers: dict[str, str]) -> tuple[pd.DataFrame, bool]:
    rows, below = board_of(runs, literature(folder, *numbers)).check()
    return pd.DataFrame(rows), below


def three(mean: float, **changes: Any) -> list[Result]:
    return table(*(run(seed=i, accuracy=mean + gap, **changes) for i, gap in enumerate((-0.1, 0.0, 0.1))))


@pytest.mark.parametrize(
    ("mean", "expected"), [(52.2, "reproduced"), (53.0, "above"), (51.0, "below"), (50.9, "below")]
)
def test_a_cell_is_judged_by_its_mean(tmp_path: Path, mean: float, expected: str) -> None:
    found, below = judged(tmp_path, three(mean), {})
    assert found["verdict"].tolist() == [expected]
    assert found["d"].iloc[0] == pytest.approx(mean - 52)
    assert found["s"].iloc[0] == pytest.approx(0.1 / 3**0.5)
    assert below == (expected == "below")


def test_a_method_that_nobody_published_has_no_verdict(tmp_path: Path) -> None:
    found, below = judged(tmp_path, three(10.0, method="mine"), {})
    assert found["verdict"].tolist() == ["no published number"]
    assert not below


@pytest.mark.parametrize(
    ("field", "theirs"),
    [
        ("backbone", "resnet34"),
        ("width_class", "4x-wide"),
        ("epochs", "400"),
        ("augmentation", "std"),
        ("experts", "3"),
        ("pretraining", "clip"),
        ("extra_data", "text"),
        ("data_copy", "glmc_subset"),
    ],
)
def test_a_known_field_that_differs_is_named_and_an_unstated_one_matches_with_a_mark(
    tmp_path: Path, field: str, theirs: str
) -> None:
    found, below = judged(tmp_path, three(40.0), {field: theirs})
    assert found["verdict"].iloc[0] == "protocol differs"
    assert found["differs"].iloc[0] == [field]
    assert not below

    found, below = judged(tmp_path, three(40.0), {field: ""})
    assert found["verdict"].iloc[0] == "below"
    assert (found["differs"].iloc[0], found["unstated"].iloc[0]) == ([], [field])
    assert below


def test_another_weight_decay_is_named_and_an_unstated_one_is_not_marked(tmp_path: Path) -> None:
    found, below = judged(tmp_path, three(40.0), {"weight_decay": "0.0005"})
    assert found["differs"].iloc[0] == ["weight_decay"]
    assert not below
    for stated in ("0.0002", ""):
        found, below = judged(tmp_path, three(40.0), {"weight_decay": stated})
        assert (found["differs"].iloc[0], found["unstated"].iloc[0]) == ([], [])
        assert below


def test_a_table_that_mixes_policies_does_not_state_them(tmp_path: Path) -> None:
    found, _ = judged(tmp_path, three(52.0), {"augmentation": "mixed"})
    assert found["unstated"].iloc[0] == ["augmentation"]


def test_our_copy_of_the_data_differs_from_the_original(tmp_path: Path) -> None:
    copy = {"dataset": "cifar100_jpeg", "copy_of": "cifar100", "copy_kind": "JPEG quality 75"}
    found, below = judged(tmp_path, three(40.0, **copy), {})
    assert found["differs"].iloc[0] == ["data_copy"]
    assert not below


@pytest.mark.parametrize(
    ("selection", "ours", "measured", "unstated"),
    [
        ("last", "last", 52.0, []),
        ("best_test", "best_test", 52.6, []),
        ("best_val", "last", 52.0, ["selection"]),
        ("", "last", 52.0, ["selection"]),
    ],
)
def test_best_on_test_is_compared_with_best_on_test(
    tmp_path: Path, selection: str, ours: str, measured: float, unstated: list[str]
) -> None:
    found, _ = judged(tmp_path, three(52.0, best_accuracy=52.6), {"selection": selection})
    row = found.iloc[0]
    assert (row["ours"], row["unstated"]) == (ours, unstated)
    assert row["measured"] == pytest.approx(measured)


def test_without_our_best_on_test_the_last_is_compared_and_marked(tmp_path: Path) -> None:
    found, _ = judged(tmp_path, three(52.0), {"selection": "best_test"})
    assert (found["ours"].iloc[0], found["unstated"].iloc[0]) == ("last", ["selection"])


REFERENCES = [
    {"value": "50.1", "original": "no"},
    {"value": "50.2", "epochs": "400"},
    {"value": "50.3", "epochs": ""},
    {"value": "50.4", "note": "doubtful: a typo"},
    {"value": "50.5", "trust": "third-party notes"},
    {"value": "50.6"},
    {"value": "50.7", "year": "2020"},
]


def test_the_reference_is_chosen_by_protocol_and_source_and_never_by_value(tmp_path: Path) -> None:
    (pairs,) = board_of(three(50.0), literature(tmp_path, *REFERENCES)).pairs.values()
    assert [pair["published"] for pair in pairs] == [50.6, 50.7, 50.5, 50.1, 50.4, 50.3, 50.2]
    alike = [pair["published"] for pair in near(pairs)]
    assert alike == [50.1, 50.3, 50.4, 50.5, 50.6, 50.7]  # all but the one of 400 epochs
    assert [pair["published"] for pair in sound(pairs)] == [50.1, 50.3, 50.5, 50.6, 50.7]
    assert disagreement(pairs) == "of 5 reports: 3 reproduced, 1 below, 1 inconclusive"
    assert disagreement(pairs[:1]) == ""


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(tmp_path_factory: pytest.TempPathFactory, random: Random) -> None:
    folder = tmp_path_factory.mktemp("order")
    rows = [run(seed=i, accuracy=50 + i) for i in range(3)] + [run("ce", seed=i) for i in range(2)]
    known = literature(folder, *REFERENCES, {"method": "ce"})
    one = board_of(rows, known).pairs
    other = board_of(random.sample(rows, len(rows)), random.sample(known, len(known))).pairs
    assert one == other


def test_the_literature_s_own_numbers_are_found() -> None:
    rows = [run(method, seed, 60.0, epochs=200) for method in ("bcl", "ce") for seed in range(3)]
    found, below = board_of(rows, whole_literature()).check()
    (ce,) = [pair for pair in found if pair["method"] == "ce"]
    assert (ce["published"], ce["reported_by"]) == (44.6, "DBM (AAAI25)")
    assert not below


# -- what the authors' card fills in ---------------------------------------------------------------
#: Methods with cards for CIFAR, ProCo with two, of 200 and 400 epochs; and one without.
CARDS = "method,title,aliases,stages\nbccl,BCCL,,\nbcl,BCL,,\nmislas,MiSLAS,,mislas_stage_1>mislas\n"
CARDS += "proco,ProCo,,\nbirds,Birds,,\n"


def carded(folder: Path, **states: str) -> dict[str, Any]:
    """A number of BCCL's authors, with its changes."""
    (number,) = literature(folder, {"method": "bccl"} | states, methods=CARDS)
    return number


def judged_by(number: dict[str, Any], runs: list[Result]) -> dict[str, Any]:
    ((pair,), _) = board_of(runs, [number]).check()
    return pair


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("backbone", "resnet32_cifar"),
        ("width_class", "standard"),
        ("epochs", 200),
        ("augmentation", "autoaug_cutout"),
        ("pretraining", "none"),
        ("selection", "best_test"),
    ],
)
def test_the_authors_card_says_what_their_row_leaves_unstated(
    tmp_path: Path, field: str, expected: Any
) -> None:
    number = carded(tmp_path, **{"selection": "best_test", field: ""})
    assert filled(number) == {field: expected}
    pair = judged_by(number, three(50.0, method="bccl", best_accuracy=52.0))
    assert (pair["differs"], pair["unstated"], pair["by_card"]) == ([], [], [field])
    assert (pair["measured"], pair["verdict"]) == (52.0, "reproduced")


def test_what_the_card_says_can_differ(tmp_path: Path) -> None:
    pair = judged_by(carded(tmp_path, epochs=""), three(40.0, method="bccl", epochs=400))
    assert (pair["verdict"], pair["differs"], pair["by_card"]) == ("protocol differs", ["epochs"], ["epochs"])


def test_the_row_s_own_protocol_goes_before_the_card(tmp_path: Path) -> None:
    """The card that agrees with the row is taken; where none does, the row stays as it is."""
    of_proco = {"method": "proco", "width_class": ""}
    assert filled(carded(tmp_path, **of_proco, epochs="400")) == {"width_class": "standard"}
    assert filled(carded(tmp_path, **of_proco, epochs="300")) == {}
    assert filled(carded(tmp_path, width_class="", backbone="resnet34")) == {}
    assert filled(carded(tmp_path, width_class="", selection="last")) == {"width_class": "standard"}


@pytest.mark.parametrize("change", [{"original": "no"}, {"dataset": "birds"}, {"method": "birds"}])
def test_a_card_speaks_of_its_authors_rows_and_its_data_alone(tmp_path: Path, change: dict[str, str]) -> None:
    assert filled(carded(tmp_path, **{"width_class": ""} | change)) == {}


def test_a_card_of_re_implementations_says_nothing_of_the_authors_row(tmp_path: Path) -> None:
    assert filled(carded(tmp_path, method="bcl", width_class="")) == {}


def test_a_table_that_mixes_augmentations_leaves_them_to_the_card(tmp_path: Path) -> None:
    assert filled(carded(tmp_path, augmentation="mixed")) == {"augmentation": "autoaug_cutout"}


def test_the_longest_of_several_cards_tells_the_epochs(tmp_path: Path) -> None:
    number = carded(tmp_path, method="mislas", augmentation="std", epochs="", selection="")
    assert filled(number) == {"epochs": 200, "selection": "best_test"}


def test_what_the_source_states_itself_is_the_surer_reference(tmp_path: Path) -> None:
    rows = {"method": "bccl", "epochs": "", "value": "51"}, {"method": "bccl", "value": "51.5"}
    known = literature(tmp_path, *rows, methods=CARDS)
    (pairs,) = board_of(three(50.0, method="bccl"), known).pairs.values()
    assert [pair["published"] for pair in pairs] == [51.5, 51]


def test_a_field_by_the_card_is_marked_where_protocols_stand_side_by_side(tmp_path: Path) -> None:
    runs = three(51.0, method="bccl", epochs=400)
    ((pair, ours, theirs),) = board_of(runs, [carded(tmp_path, epochs="")]).explain(runs[0].run_id)
    rows = {name: tuple(rest) for name, *rest in side_by_side(ours, theirs, pair["ours"])}
    assert rows["epochs"] == ("400", "200", "differs (by the authors' card)")
    assert rows["width_class"] == ("standard", "standard", "same")


def test_the_literature_is_filled_from_cards_and_never_overruled() -> None:
    numbers = whole_literature()
    found = [(number, filled(number)) for number in numbers]
    assert all(number[name] in (None, "mixed") for number, fields in found for name in fields)
    assert all(number["original"] for number, fields in found if fields)
    assert any(fields for _, fields in found)


# -- explain --------------------------------------------------------------------------------------
def test_both_protocols_stand_side_by_side(tmp_path: Path) -> None:
    runs = three(51.0, best_accuracy=51.5, few=30.0)
    numbers = {"augmentation": "std", "experts": "", "selection": "best_test"}, {"method": "ce"}
    (explained,) = board_of(runs, literature(tmp_path, *numbers)).explain(runs[0].run_id)
    pair, ours, theirs = explained
    assert pair["verdict"] == "protocol differs"
    rows = {name: tuple(rest) for name, *rest in side_by_side(ours, theirs, pair["ours"])}
    assert rows["augmentation"] == ("autoaug_cutout", "std", "differs")
    assert rows["experts"] == ("1", "n/a", "not stated")
    assert rows["epochs"] == ("200", "200", "same")
    assert rows["selection"] == ("best_test", "best_test", "same")
    assert rows["seeds"] == ("3", "n/a", "")
    assert rows["accuracy"] == ("51.5", "52", "")  # the best epoch, as theirs
    assert rows["few"] == ("30", "n/a", "")
    assert set(JUDGED) <= set(rows)


def test_every_published_number_is_explained_the_reference_first(tmp_path: Path) -> None:
    runs = three(51.0)
    found = board_of(runs, literature(tmp_path, *REFERENCES)).explain(runs[0].run_id)
    assert [pair["published"] for pair, *_ in found][:2] == [50.6, 50.7]
    assert len(found) == len(REFERENCES)


def test_a_run_beside_which_nothing_is_published_is_explained_as_such(tmp_path: Path) -> None:
    runs = three(51.0, method="mine")
    ((pair, ours, theirs),) = board_of(runs, literature(tmp_path, NUMBER)).explain(runs[0].run_id)
    assert pair["verdict"] == "no published number"
    assert {state for *_, state in side_by_side(ours, theirs, pair["ours"])} <= {"not stated", ""}


def test_only_a_run_that_is_done_can_be_explained(tmp_path: Path) -> None:
    runs = [run(status="failed")]
    board = board_of(runs, literature(tmp_path, {}))
    with pytest.raises(BenchError, match="the run is failed"):
        board.explain(runs[0].run_id)
    with pytest.raises(BenchError, match=r"no such run; did you mean 'cifar100-if100-bcl"):
        board.explain(runs[0].run_id[:-1] + "x")


def test_what_is_scored_on_held_out_training_images_is_no_result(tmp_path: Path) -> None:
    runs = [run(), run(seed=1, held_out=500)]
    board = board_of(runs, literature(tmp_path, {}))
    assert [entry["n"] for entry in board.entries if entry["kind"] == "measured"] == [1]
    with pytest.raises(BenchError, match="evaluated on held-out training images"):
        board.explain(runs[1].run_id)
