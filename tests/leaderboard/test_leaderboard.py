"""Entries and leagues: what is put side by side, what is ranked together, and what never is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leaderboard_fakes import entries as entries_of
from leaderboard_fakes import literature, run, table, whole_literature
from project import ROOT
from records_factory import CIFAR10_JPEG, fail, finish, make_cell

from bench import leaderboard
from bench.leaderboard.cell_settings import variants
from bench.leaderboard.entries import entry
from bench.leaderboard.protocols import architecture, epochs_class
from bench.published import to_rows
from bench.records import Results


def only(entries: pd.DataFrame, kind: str = "measured") -> pd.Series:
    rows = entries[entries["kind"] == kind]
    assert len(rows) == 1
    return rows.iloc[0]


def average(entries: pd.DataFrame, fewest: int) -> list[tuple[str, float, int]]:
    return leaderboard.average_rank(to_rows(entries), fewest)


# -- entries --------------------------------------------------------------------------------------
def test_seeds_of_a_series_become_one_entry(tmp_path: Path) -> None:
    runs = table(*(run(seed=seed, accuracy=value, few=None) for seed, value in enumerate((51.0, 52.0, 53.0))))
    entry = only(entries_of(runs, literature(tmp_path)))
    assert (entry["n"], entry["accuracy"], entry["accuracy_std"]) == (3, 52, 1)
    assert pd.isna(entry["few"])
    assert pd.isna(entry["few_std"])
    assert (entry["augmentation"], entry["epochs_class"], entry["selection"]) == (
        "autoaug_cutout",
        "150-249",
        "last",
    )


def test_one_seed_has_no_spread(tmp_path: Path) -> None:
    entry = only(entries_of(table(run()), literature(tmp_path)))
    assert entry["n"] == 1
    assert pd.isna(entry["accuracy_std"])


def test_only_runs_that_are_done_make_entries(tmp_path: Path) -> None:
    runs = table(run(status="failed"), run(seed=1, status="running"))
    assert entries_of(runs, literature(tmp_path)).empty


def test_a_published_line_joins_its_shot_groups(tmp_path: Path) -> None:
    known = literature(tmp_path, {}, {"shots": "many", "value": "67.2"}, {"shots": "few", "value": "32.9"})
    entry = only(entries_of(table(), known), "published")
    assert (entry["accuracy"], entry["many"], entry["few"]) == (52, 67.2, 32.9)
    assert pd.isna(entry["medium"])
    assert entry["key"] == "published.csv:2"


def test_two_values_of_one_line_stay_two_entries(tmp_path: Path) -> None:
    entries = entries_of(table(), literature(tmp_path, {}, {"value": "53.9"}))
    assert entries["accuracy"].tolist() == [52, 53.9]


def test_the_whole_literature_is_entries() -> None:
    known = whole_literature()
    entries = entries_of(table(), known)
    assert entries[["accuracy", "many", "medium", "few"]].notna().sum().sum() == len(known)
    assert entries["key"].is_unique


def test_a_copy_of_the_data_goes_under_the_original_s_name_but_not_as_it(tmp_path: Path) -> None:
    copy = run(dataset="cifar100_jpeg", copy_of="cifar100", copy_kind="JPEG quality 75")
    entry = only(entries_of(table(copy), literature(tmp_path)))
    assert (entry["dataset"], entry["data_copy"]) == ("cifar100", "JPEG quality 75")


def test_a_comparable_copy_ranks_as_the_original_with_a_note_and_seeds_of_its_own(tmp_path: Path) -> None:
    rebuilt = {"dataset": "rebuilt", "copy_of": "cifar100", "copy_kind": "rebuilt files", "comparable": True}
    rows = [run(seed=seed) for seed in (0, 1)] + [run(seed=2, accuracy=53, **rebuilt)]
    entries = entries_of(table(*rows), literature(tmp_path))
    columns = [entries[name].tolist() for name in ("dataset", "data_copy", "n", "note", "rank")]
    assert sorted(zip(*columns, strict=True), key=lambda row: row[2]) == [
        ("cifar100", "original", 1, "rebuilt files", 1),
        ("cifar100", "original", 2, pd.NA, 2),
    ]


def test_other_pixels_under_one_name_are_never_averaged_nor_ranked_together(tmp_path: Path) -> None:
    rows = [run(seed=seed) for seed in (0, 1)] + [run(seed=2, fingerprint_train="0ddd0000", accuracy=99)]
    entries = entries_of(table(*rows), literature(tmp_path))
    assert sorted(zip(entries["data_copy"], entries["n"], strict=True)) == [
        ("original", 2),
        ("original (pixels 0ddd0000)", 1),
    ]
    assert entries["rank"].tolist() == [1, 1]


def test_of_two_fingerprints_as_frequent_the_order_of_rows_does_not_decide(tmp_path: Path) -> None:
    rows = [run(), run("ce", fingerprint_train="0ddd0000")]
    known = literature(tmp_path)
    one, other = (
        entries_of(table(*order), known).set_index("key")["data_copy"].to_dict()
        for order in (rows, rows[::-1])
    )
    assert one == other


def test_stages_count_their_longest_and_go_under_the_literature_s_name(tmp_path: Path) -> None:
    first = run("ce", epochs=200)
    second = run("crt", epochs=10, parent=first)
    alone = run("crt", 1, epochs=10)
    known = literature(tmp_path, {"method": "crt"})
    two, one = (only(entries_of(table(last), known)) for last in (second, alone))
    assert (two["epochs"], two["literature"]) == (200, "crt")
    assert (one["epochs"], pd.isna(one["literature"])) == (10, True)


def test_the_first_stage_of_two_is_not_what_was_published(tmp_path: Path) -> None:
    methods = "method,title,aliases,stages\ndscl,DSCL,,dscl>dscl_linear\n"
    known = literature(tmp_path, {"method": "dscl"}, methods=methods)
    first = run("dscl")
    entries = entries_of(table(first, run("dscl_linear", parent=first)), known)
    named = entries[entries["kind"] == "measured"].set_index("method")["literature"]
    assert named["dscl_linear"] == "dscl"
    assert pd.isna(named["dscl"])


def test_a_method_of_several_parents_goes_by_the_first(tmp_path: Path) -> None:
    methods = "method,title,aliases,stages\nlt_soups,LT-Soups,,clip>merge>lt_soups\n"
    known = literature(tmp_path, {"method": "lt_soups"}, methods=methods)
    first, second = run("clip", params={"part": 1}), run("clip", params={"part": 2})
    soup = run("lt_soups", parent=run("merge", parent=first, others=[second]))
    assert only(entries_of(table(soup), known))["literature"] == "lt_soups"


def test_a_part_of_the_training_images_is_another_tail_and_other_pixels_of_it(tmp_path: Path) -> None:
    known = literature(tmp_path, {})
    whole = [run(seed=seed) for seed in (0, 1)]
    parts = [run(seed=s, accuracy=20, subsample=1, fingerprint_train="cccc0000") for s in (0, 1, 2)]
    found = entries_of(table(*whole, *parts), known)
    ours = found[found["kind"] == "measured"].sort_values("accuracy")
    assert ours["tail"].tolist() == ["subsample 1", "standard"]
    assert ours["data_copy"].tolist() == ["original", "original"]
    assert ours["rank"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"backbone_options": {"width": 4}}, {"width_class": "4x-wide"}),
        ({"backbone_options": {"channels": [64, 128, 256]}}, {"width_class": "other"}),
        ({"params": {"experts": 3}}, {"experts": 3}),
        ({"params": {"networks": 2}, "experts": 2}, {"experts": 2}),
        ({"backbone": "resnext50_32x4d.tv_in1k"}, {"backbone": "resnext50_32x4d", "pretraining": "none"}),
        (
            {"backbone": "vit_base_patch16_clip_224.openai", "backbone_options": {"pretrained": True}},
            {"backbone": "vit_base_patch16", "pretraining": "clip"},
        ),
        (
            {"backbone": "resnet152", "backbone_options": {"pretrained": True}},
            {"pretraining": "other"},
        ),
        ({"augmentation": "crop_flip"}, {"augmentation": "std"}),
        ({"augmentation": "crop_flip_rotate"}, {"augmentation": "std"}),
        ({"augmentation": "my_own"}, {"augmentation": "my_own"}),
    ],
)
def test_a_run_is_reported_in_the_words_of_the_literature(
    tmp_path: Path, changes: dict[str, Any], expected: dict[str, object]
) -> None:
    entry = only(entries_of(table(run(**changes)), literature(tmp_path)))
    assert {name: entry[name] for name in expected} == expected


def test_a_natural_tail_takes_the_literature_s_factor() -> None:
    natural = run(dataset="imagenet_lt", imbalance_factor=1.0)
    balanced = run("ce", imbalance_factor=1.0)
    entries = entries_of(table(natural, balanced), whole_literature()).iloc[:2].set_index("dataset")
    assert entries.loc["imagenet_lt", "imbalance_factor"] == 256
    assert entries.loc["cifar100", "imbalance_factor"] == 1


def test_names_of_epochs_classes_and_architectures() -> None:
    assert [epochs_class(n) for n in (1, 30, 31, 90, 200, 400, 1200)] == [
        "<=30",
        "<=30",
        "31-79",
        "80-149",
        "150-249",
        "250-499",
        ">=500",
    ]
    assert epochs_class(None) is None
    assert architecture("vit_base_patch16_224.augreg_in21k") == "vit_base_patch16"


def test_real_records_become_entries(tmp_path: Path) -> None:
    for seed in range(3):
        finish(tmp_path, make_cell("ldam_drw", seed))
    finish(tmp_path, make_cell("ce", dataset=CIFAR10_JPEG))
    fail(tmp_path, make_cell("balanced_softmax"), "out of memory")
    entries = entries_of(Results(tmp_path), whole_literature())
    ours = entries[entries["kind"] == "measured"].set_index("method")
    assert sorted(ours.index) == ["ce", "ldam_drw"]
    assert ours.loc["ldam_drw", "n"] == 3
    assert ours.loc["ldam_drw", "best_accuracy"] > ours.loc["ldam_drw", "accuracy"]
    assert ours.loc["ce", "data_copy"] == "JPEG quality 75"


# -- leagues --------------------------------------------------------------------------------------
def board(folder: Path) -> pd.DataFrame:
    numbers = [
        {"value": "52"},
        {"value": "53.9", "epochs": "400"},
        {"value": "50", "method": "ce"},
        {"value": "61", "width_class": "4x-wide"},
        {"value": "48.6", "method": "ride", "experts": "3"},
        {"value": "51", "epochs": ""},
    ]
    return entries_of(table(run(accuracy=52.5), run("ce", accuracy=None)), literature(folder, *numbers))


def test_entries_are_ranked_only_within_their_league_measured_apart_from_published(tmp_path: Path) -> None:
    ranked = board(tmp_path)
    known = ranked[ranked["accuracy"].notna()]
    ranked = zip(known["rank"], known["of"], strict=True)
    ranks = dict(zip(zip(known["kind"], known["accuracy"], strict=True), ranked, strict=True))
    assert ranks == {
        ("measured", 52.5): (1, 1),
        ("published", 52): (1, 2),
        ("published", 50): (2, 2),
        ("published", 53.9): (1, 1),
        ("published", 61): (1, 1),
        ("published", 48.6): (1, 1),
        ("published", 51): (1, 1),
    }


def test_what_is_not_known_never_ranks(tmp_path: Path) -> None:
    ranked = board(tmp_path)
    unknown = ranked[ranked["accuracy"].isna()].iloc[0]
    assert pd.isna(unknown["rank"])
    assert unknown["of"] == 1


def test_ties_share_the_better_rank(tmp_path: Path) -> None:
    known = literature(
        tmp_path, {"value": "50"}, {"method": "ce", "value": "50"}, {"method": "ride", "value": "49"}
    )
    assert entries_of(table(), known)["rank"].tolist() == [1, 1, 3]


def test_average_rank_says_how_many_cells_it_rests_on(tmp_path: Path) -> None:
    numbers = [
        {"method": method, "value": value, "imbalance_factor": factor}
        for factor, values in {"10": "60 61 62", "50": "50 52 51", "100": "40 41"}.items()
        for method, value in zip(("ce", "bcl", "ride"), values.split(), strict=False)
    ]
    numbers.append({"method": "crt", "dataset": "cifar10"})  # alone in its league: ranks nothing
    entries = entries_of(table(), literature(tmp_path, *numbers))
    assert average(entries, 2) == [("bcl", (50 + 0 + 0) / 3, 3), ("ride", 25.0, 2), ("ce", 100.0, 3)]
    assert [cells for *_, cells in average(entries, 3)] == [2, 2, 2]
    assert average(entries, 5) == []


def test_average_ranks_join_measured_and_published_and_rank_as_the_league_does() -> None:
    def of(key: str, method: str, literature: str | None, balanced: float, kind: str = "measured") -> dict:
        values = {"accuracy": 100 - balanced, "balanced": balanced, "headline": "balanced"}
        own = {"key": key, "method": method, "literature": literature, "kind": kind}
        return entry(**own, **values, dataset="d", imbalance_factor=1.0)

    rows = leaderboard.ranked(
        [
            of("1", "dscl_linear", "dscl", 70.0),
            of("2", "dscl_linear", "pbsd", 50.0),
            of("3", "dscl", None, 60.0, "published"),
            of("4", "ce", "ce", 55.0),
            of("5", "dscl", None, 10.0),  # the first stage alone
        ]
    )
    assert leaderboard.average_rank(rows, 3) == [("dscl", 0.0, 1), ("ce", 50.0, 1), ("pbsd", 100.0, 1)]
    own = [row for row in rows if row["kind"] == "measured"]
    assert leaderboard.average_rank(own, 3) == []  # nothing is published there


def test_being_reported_often_neither_helps_nor_hurts(tmp_path: Path) -> None:
    numbers = [{"method": "bcl", "value": value} for value in ("50", "52", "99")] + [
        {"method": "ce", "value": "60"}
    ]
    entries = entries_of(table(), literature(tmp_path, *numbers))
    assert average(entries, 2) == [("ce", 0.0, 1), ("bcl", 100.0, 1)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.none() | st.integers(0, 100), st.sampled_from(["80-149", "150-249", None])), max_size=12
    ),
    st.randoms(use_true_random=False),
)
def test_ranking_depends_neither_on_order_nor_on_other_leagues(
    rows: list[tuple[int | None, str | None]], random: Random
) -> None:
    entries = [
        entry(key=number, dataset="d", imbalance_factor=1.0, accuracy=accuracy, epochs_class=name)
        for number, (accuracy, name) in enumerate(rows)
    ]
    ranks = {row["key"]: row["rank"] for row in leaderboard.ranked(entries)}
    shuffled = random.sample(entries, len(entries))
    assert ranks == {row["key"]: row["rank"] for row in leaderboard.ranked(shuffled)}
    for (accuracy, league), rank in zip(rows, ranks.values(), strict=True):
        rivals = [value for value, other in rows if other == league and value is not None]
        if accuracy is None:
            assert rank is None
        else:
            assert rank == 1 + sum(value > accuracy for value in rivals)


def test_the_whole_literature_ranks() -> None:
    entries = entries_of(table(), whole_literature())
    ranked = entries["accuracy"].notna() & ~entries["doubtful"].astype(bool)
    assert entries["rank"].notna().equals(ranked)
    found = average(entries, 5)
    assert all(np.isfinite(rank) and cells >= 1 for _, rank, cells in found)


def test_the_telling_wing_does_without_torch() -> None:
    code = "import sys, bench.leaderboard, bench.leaderboard.external, bench.leaderboard.reanalysis; "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_variant_has_two_settings_or_as_many_as_tell_cells_apart() -> None:
    cells = [
        run(epochs=epochs, augmentation=policy, subsample=part).cell
        for epochs, policy, part in ((10, "none", None), (10, "none", 4), (20, "crop_flip", 4))
    ]
    assert variants(cells[1:]) == ["epochs 10, augmentation none", "epochs 20, augmentation crop_flip"]
    assert variants([cells[0], cells[2]]) == [
        "epochs 10, augmentation none, 1 more",
        "epochs 20, augmentation crop_flip, 1 more",
    ]
    other = run(epochs=10, augmentation="none", shots={"many_above": 50}).cell
    assert variants([cells[0], other]) == ["shots.many_above 100", "shots.many_above 50"]
    assert variants(cells)[:2] == [
        "epochs 10, augmentation none, subsample none",
        "epochs 10, augmentation none, subsample 4",
    ]
