"""Other draws of a tail than the papers': profiles, split seeds, orders of classes, noisy labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import Bench
from hypothesis import given, settings
from hypothesis import strategies as st
from leaderboard_fakes import run
from pydantic import ValidationError
from records_factory import make_cell

from bench.cell import STANDARD, DataSet
from bench.data.sets.catalogue import DATASETS
from bench.data.split import longtail
from bench.data.split.load import load
from bench.errors import BenchError
from bench.gridfile import write_grid
from bench.leaderboard.protocols import FIELDS
from bench.recipe import grid_file
from bench.recipe import load as read
from bench.result import series

DIGITS = DATASETS["digits"]
NAMES = tuple(map(str, range(10)))


def drawn(**changes) -> DataSet:
    return DataSet(**{**DIGITS.model_dump(), **changes})


def test_the_papers_draw_has_the_id_that_it_had():
    same = {"profile": "exponential", "split_seed": 0, "class_order": 0, "label_noise": 0.0}
    assert make_cell(dataset=drawn(**same)).id == make_cell(dataset=DIGITS).id
    others = [{"profile": "step"}, {"split_seed": 1}, {"class_order": 1}, {"label_noise": 0.2}]
    cells = [make_cell(dataset=drawn(**other)) for other in ({}, *others)]
    assert len({cell.id for cell in cells}) == len({series(cell) for cell in cells}) == 5


def test_another_draw_is_another_tail_of_the_protocol():
    assert drawn().tail == drawn(profile="natural").tail == STANDARD
    text = drawn(profile="step", split_seed=2, class_order=1, label_noise=0.2).tail
    assert text == "step, split 2, class order 1, label noise 0.2"
    assert FIELDS["tail"].league
    assert FIELDS["tail"].judged
    assert FIELDS["tail"].of(run()) == STANDARD


# -- profiles -------------------------------------------------------------------------------------
@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(longtail.PROFILES)), st.integers(100, 2000), st.floats(1, 100), st.integers(2, 300)
)
def test_every_profile_falls_from_the_largest_to_the_smallest(profile, n_max, factor, classes):
    counts = longtail.PROFILES[profile](n_max, factor, classes)
    assert counts[0] == n_max
    assert counts[-1] in (int(n_max / factor), int(n_max * (1 / factor)))
    assert (np.diff(counts) <= 0).all()


def test_a_pareto_tail_is_close_to_imagenet_lt():
    counts = longtail.pareto(1280, 256, 1000)
    sizes = [len(classes) for classes in longtail.shot_groups(counts, DIGITS.shots).values()]
    assert sizes == [349, 488, 163]  # ImageNet-LT: 385, 479, 136
    assert counts.sum() == pytest.approx(115_846, rel=0.1)
    quantiles = np.sort(np.random.default_rng(0).pareto(6, 200_000))[::-1] + 1
    expected = quantiles[[1_000, 20_000, 100_000]] - 1
    shape = longtail.pareto(10_000_000, 1e6, 1000)[[5, 100, 500]]
    np.testing.assert_allclose(shape / shape[1], expected / expected[1], rtol=0.05)


# -- subsets --------------------------------------------------------------------------------------
def test_a_split_seed_draws_another_subset_of_the_same_sizes():
    splits = [load(drawn(split_seed=seed), 20.0, Path()) for seed in (0, 1, 1)]
    assert splits[0].class_counts.tolist() == splits[1].class_counts.tolist()
    assert splits[0].positions.tolist() != splits[1].positions.tolist()
    assert splits[1].fingerprint == splits[2].fingerprint
    assert splits[0].fingerprint["train"] != splits[1].fingerprint["train"]
    assert splits[0].fingerprint["test"] == splits[1].fingerprint["test"]


def test_what_is_held_out_is_never_in_the_tail_of_its_draw():
    def pixels(images) -> set[bytes]:
        return {image.numpy().tobytes() for image in images}

    first, second = (load(drawn(split_seed=seed, held_out=5, n_max=100), 20.0, Path()) for seed in (0, 1))
    for split in (first, second):
        assert not pixels(split.images[split.positions]) & pixels(split.test_images)
    assert first.fingerprint["test"] != second.fingerprint["test"]
    assert first.key != second.key  # or a device would keep the images of the other draw


# -- order of classes -----------------------------------------------------------------------------
def test_a_class_order_gives_the_same_counts_to_other_classes():
    available = np.full(10, 120)
    first, second, third = (
        longtail.class_counts(drawn(class_order=order), 20.0, available, NAMES) for order in (0, 1, 2)
    )
    assert first.tolist() == longtail.exponential(120, 20.0, 10).tolist()
    assert sorted(first) == sorted(second) == sorted(third)
    assert len({tuple(counts) for counts in (first, second, third)}) == 3
    order = np.random.RandomState(1).permutation(10)
    assert second[order].tolist() == first.tolist()


def test_shot_groups_follow_the_counts_of_a_class_order():
    split = load(drawn(class_order=3), 20.0, Path())
    assert np.bincount(split.labels).tolist() == split.class_counts.tolist()
    many = longtail.shot_groups(split.class_counts, DIGITS.shots)["many"]
    assert {int(split.class_counts[c]) for c in many} == {120}


# -- noisy labels ---------------------------------------------------------------------------------
def test_noise_replaces_its_share_of_labels_by_all_others_alike():
    labels = np.repeat(np.arange(4), 20_000)
    noisy = longtail.with_noise(labels, 0.3, 4)
    changed = noisy != labels
    assert changed.mean() == pytest.approx(0.3, abs=0.01)
    for c in range(4):
        into = np.bincount(noisy[changed & (labels == c)], minlength=4)
        assert into[c] == 0
        np.testing.assert_allclose(np.delete(into, c) / into.sum(), 1 / 3, atol=0.02)


def test_methods_see_noisy_labels_and_shot_groups_the_true_counts():
    clean, noisy, other = (
        load(drawn(label_noise=share, split_seed=seed), 20.0, Path())
        for share, seed in ((0.0, 0), (0.2, 0), (0.2, 1))
    )
    assert noisy.class_counts.tolist() == clean.class_counts.tolist()
    assert noisy.positions.tolist() == clean.positions.tolist()
    assert 0.1 < (noisy.labels != clean.labels).mean() < 0.3
    assert noisy.epoch_counts.tolist() == np.bincount(noisy.labels, minlength=10).tolist()
    assert noisy.epoch_counts[-1] > noisy.class_counts[-1]  # what leaves the head comes to the tail
    assert noisy.test_labels.tolist() == clean.test_labels.tolist()
    assert len({split.fingerprint["train"] for split in (clean, noisy, other)}) == 3


def test_a_class_that_noise_empties_is_named():
    with pytest.raises(BenchError, match=r"label_noise 0\.9\d* leaves class \d without a label; lower it"):
        longtail.with_noise(np.arange(3), 0.999, 3, split_seed=1)


# -- recipes --------------------------------------------------------------------------------------
RECIPE = "methods: {ce: {}}\ngrid:\n  dataset: digits\n  imbalance_factor: 20\n  backbone: resnet8_cifar\n"


def test_the_draws_are_axes(tmp_path):
    axes = "  class_order: [0, 1]\n  label_noise: [0, 0.2]\n  profile: [exponential, pareto]\n"
    (tmp_path / "r.yaml").write_text(RECIPE + axes + "  split_seed: [0, 2]\n")
    tails = [point.cell.dataset.tail for point in read(tmp_path / "r.yaml").points]
    assert len(set(tails)) == 16
    assert tails[0] == STANDARD
    assert tails[-1] == "pareto, split 2, class order 1, label noise 0.2"
    chosen = read(tmp_path / "r.yaml").only(["split_seed=2", "profile=pareto", "label_noise=0"])
    assert [point.cell.dataset.tail for point in chosen.points] == [
        "pareto, split 2",
        "pareto, split 2, class order 1",
    ]
    (tmp_path / "plain.yaml").write_text(RECIPE)
    assert read(tmp_path / "plain.yaml").points[0].cell.id == read(tmp_path / "r.yaml").points[0].cell.id


def test_plan_and_status_show_the_split_seed_where_there_are_several(tmp_path: Path, bench: Bench):
    for name, seeds in (("one", "[1]"), ("two", "[0, 2]")):
        recipe, results = tmp_path / f"{name}.yaml", tmp_path / "results"
        recipe.write_text(f"{RECIPE}  split_seed: {seeds}\n")
        write_grid(results, name, grid_file(read(recipe)))
        plan = bench("plan", recipe, "--results", results, "--data", tmp_path / "data", "--gpus", "none")[1]
        status = bench("status", name, "--results", results, "--data", tmp_path / "data")[1]
        for out in (plan, status):
            assert ("split" in out.partition("state")[2].splitlines()[0]) == (name == "two"), out
        rows = json.loads(bench("status", name, "--json", "--results", results)[1])
        assert [row["split_seed"] for row in rows] == json.loads(seeds)


def test_a_data_set_can_say_them_too(tmp_path):
    own = "datasets: {mine: {base: digits, split_seed: 3, label_noise: 0.1}}\n"
    (tmp_path / "r.yaml").write_text(own + RECIPE.replace("digits", "mine"))
    (point,) = read(tmp_path / "r.yaml").points
    assert point.cell.dataset.tail == "split 3, label noise 0.1"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("  split_seed: [-1]\n", "split_seed"),
        ("  label_noise: [1]\n", "label_noise"),
        ("  profile: [steep]\n", "profile"),
    ],
)
def test_a_draw_that_is_none_is_refused_at_its_place(tmp_path, line, message):
    (tmp_path / "r.yaml").write_text(RECIPE + line)
    with pytest.raises(BenchError, match=rf"r\.yaml:6: .*{message}.* should be"):
        read(tmp_path / "r.yaml")


def test_a_natural_tail_has_nothing_to_draw():
    for field, message in (("class_order", "permutes nothing"), ("split_seed", "draws nothing")):
        with pytest.raises(ValidationError, match=message):
            drawn(profile="natural", n_max=None, **{field: 1})
    drawn(profile="natural", n_max=None, split_seed=1, held_out=3)
    drawn(profile="natural", n_max=None, split_seed=1, label_noise=0.1)
