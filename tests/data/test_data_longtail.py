"""The long tail is the papers': counts, picks, and errors where a set cannot give it."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from golden_values import golden
from project import ROOT, SHARED

from bench.cell import DataSet, ShotRule
from bench.data.split import longtail
from bench.errors import BenchError

CIFAR_LABELS = SHARED / "data" / "cifar_index.npz"
GOLDEN, _ = golden("classic_cifar_lt_counts")
SIZES = {"cifar10": (5000, 10), "cifar100": (500, 100)}


def data_set(**fields) -> DataSet:
    return DataSet(**{"name": "toy", "source": "folder", **fields})


@pytest.mark.parametrize("name", [name for name in GOLDEN if name.startswith("out_")])
def test_counts_are_the_papers(name):
    _, cifar, profile, factor = name.split("_")
    rule = {"exp": longtail.exponential, "step": longtail.step}[profile]
    n_max, classes = SIZES[cifar]
    assert rule(n_max, float(factor[2:]), classes).tolist() == GOLDEN[name].tolist()


def test_totals_are_the_papers():
    totals = {
        name: [longtail.exponential(*size[:1], factor, *size[1:]).sum() for factor in (10, 50, 100, 200)]
        for name, size in SIZES.items()
    }
    assert totals["cifar10"] == [20431, 13996, 12406, 11203]
    assert totals["cifar100"] == [19573, 12608, 10847, 9502]


def test_a_balanced_set_is_the_imbalance_factor_one():
    assert longtail.exponential(7, 1.0, 4).tolist() == [7, 7, 7, 7]
    assert longtail.step(7, 1.0, 5).tolist() == [7, 7, 7, 7, 7]


@pytest.mark.skipif(not CIFAR_LABELS.exists(), reason="the labels of CIFAR-10 are not here")
def test_picks_are_the_papers():
    with np.load(CIFAR_LABELS) as index:
        labels = index["cifar10_train_labels"]
    counts = longtail.exponential(5000, 100.0, 10)
    positions = longtail.select(labels, counts)
    assert positions[:5].tolist() == [4030, 38518, 48266, 45556, 6312]
    assert hashlib.sha256(positions.astype("<i8").tobytes()).hexdigest()[:16] == "4bf45bff8878d278"


def test_picks_follow_one_legacy_generator_over_the_classes():
    labels = np.random.default_rng(0).integers(0, 4, 200)
    counts = np.array([20, 9, 4, 1])
    kept = np.random.get_state()
    np.random.seed(0)
    expected = []
    for c in range(4):
        indices = np.where(labels == c)[0]
        np.random.shuffle(indices)
        expected += indices[: counts[c]].tolist()
    np.random.set_state(kept)
    picked = longtail.select(labels, counts)
    assert picked.tolist() == expected
    assert picked.dtype == np.int64
    assert np.random.get_state()[2] == kept[2]  # nobody else's generator has moved


def test_a_class_left_empty_is_named():
    with pytest.raises(BenchError, match=r"toy: .*1000 leaves class 2 'truck' without.*lower"):
        longtail.class_counts(data_set(n_max=100), 1000.0, np.array([200, 200, 200]), ["cat", "dog", "truck"])


def test_a_class_with_too_few_images_is_named():
    with pytest.raises(
        BenchError, match=r"class 1 'dog' has 20 images.*need 31; lower n_max, or .* profile 'natural'"
    ):
        longtail.class_counts(data_set(), 10.0, np.array([100, 20, 100]), ["cat", "dog", "truck"])


def test_n_max_is_the_largest_class_unless_given():
    available, names = np.array([90, 100, 100]), ["a", "b", "c"]
    with pytest.raises(BenchError, match="class 0 'a' has 90 images, but n_max 100"):
        longtail.class_counts(data_set(), 10.0, available, names)
    assert longtail.class_counts(data_set(n_max=90), 9.0, available, names).tolist() == [90, 30, 10]
    step = data_set(n_max=80, profile="step")
    assert longtail.class_counts(step, 10.0, available, names).tolist() == [80, 8, 8]


def test_a_natural_set_keeps_every_image_and_takes_no_factor():
    available, names = np.array([3, 50, 7]), ["a", "b", "c"]
    natural = data_set(profile="natural")
    assert longtail.class_counts(natural, 1.0, available, names).tolist() == [3, 50, 7]
    labels = np.repeat([1, 0, 2], [50, 3, 7])
    assert sorted(longtail.select(labels, available)) == list(range(60))
    with pytest.raises(BenchError, match=r"natural.*imbalance_factor"):
        longtail.class_counts(natural, 10.0, available, names)
    with pytest.raises(BenchError, match="leave out n_max"):
        longtail.class_counts(data_set(profile="natural", n_max=3), 1.0, available, names)
    held = data_set(profile="natural", held_out=2)
    assert longtail.class_counts(held, 1.0, available, names).tolist() == [1, 48, 5]
    with pytest.raises(BenchError, match="without an image; lower held_out"):
        longtail.class_counts(data_set(profile="natural", held_out=3), 1.0, available, names)


def test_a_fingerprint_tells_positions_labels_and_pixels_apart():
    rng = np.random.default_rng(0)
    positions, labels = np.arange(6), np.arange(6) % 3
    pixels = rng.integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    known = longtail.fingerprint(positions, labels, pixels)
    assert len(known) == 16
    assert int(known, 16) >= 0
    one_level = pixels.copy()
    one_level[5, 3, 3, 2] ^= 1
    others = {
        longtail.fingerprint(positions[::-1], labels, pixels),
        longtail.fingerprint(positions, labels[::-1], pixels),
        longtail.fingerprint(positions, labels, one_level),
        longtail.fingerprint(positions, labels, pixels.reshape(6, 2, 8, 3)),
    }
    assert len(others | {known}) == 5
    elsewhere = np.asfortranarray(pixels)  # how it lies in memory is not what it is
    assert longtail.fingerprint(positions.astype(np.int32), labels, elsewhere) == known


def test_shot_groups_draw_the_line_where_the_field_does():
    counts = np.array([101, 100, 20, 19, 0])
    groups = longtail.shot_groups(counts, ShotRule())
    assert groups == {"many": [0], "medium": [1, 2], "few": [3, 4]}
    assert longtail.shot_groups(counts, ShotRule(many_above=99, few_below=21)) == {
        "many": [0, 1],
        "medium": [],
        "few": [2, 3, 4],
    }


@pytest.mark.parametrize(
    ("factor", "sizes"), [(10, (69, 31, 0)), (50, (41, 41, 18)), (100, (35, 35, 30)), (200, (30, 31, 39))]
)
def test_shot_groups_of_cifar100_have_the_known_sizes(factor, sizes):
    groups = longtail.shot_groups(longtail.exponential(500, factor, 100), ShotRule())
    assert tuple(map(len, groups.values())) == sizes


def test_telling_what_a_tail_is_needs_no_torch():
    code = (
        "import sys, bench.data.split.longtail, bench.data.sets.catalogue; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
