"""CUDA: distortions of a given strength, the curriculum that sets it, and the images it is set by."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fast_runs import lines, make_cell, training
from golden_values import golden
from PIL import Image, ImageFilter, ImageOps
from pillow_bytes import both, photographs, same

from bench import registry
from bench.data.augment import op, policy
from bench.data.augment.distortion import HIGHEST, KINDS, Distortion, distorted
from bench.data.augment.operations import Cutout
from bench.method import Clock
from methods.cuda import next_levels

torch.set_num_threads(1)

METHODS = [name for name in registry.methods() if name.endswith("_cuda")]


def test_the_authors_rule():
    g, recorded = golden("cuda_level_update_C10")
    levels = g["levels"].numpy()
    for number in range(4):
        correct, trials = (g[name][number].numpy() for name in ("correct", "trials"))
        found = next_levels(levels[number], correct, trials, recorded["accept_rate"])
        np.testing.assert_array_equal(found, levels[number + 1])


def test_a_class_that_is_not_shown_keeps_its_level():
    trials = np.zeros((2, HIGHEST + 1), np.int64)
    trials[0, 0] = 10
    assert next_levels(np.array([0, 4]), trials, trials, 0.6).tolist() == [1, 4]


def applied(place: int, level: int, photos: np.ndarray, sign: int = 1) -> torch.Tensor:
    """Apply one operation once, at a level, as `draw_at` would have it."""
    images, _ = both(photos)

    class Rigged:
        def integers(self, count, size):
            return np.full(size, place)

        def choice(self, signs, size):
            return np.full(size, sign)

    tables = Distortion().draw_at(Rigged(), np.full(len(photos), level), photos.shape[1])
    tables["kind"][:, 1:] = 0
    return Distortion()(images, {name: torch.from_numpy(rows) for name, rows in tables.items()})


def affine(*matrix):
    return lambda image, v: image.transform(image.size, Image.Transform.AFFINE, [m(v) for m in matrix])


def number(value):
    return lambda v: value


def itself(v):
    return v


def solarized_add(image, v):
    raised = np.clip(np.asarray(image).astype(int) + v, 0, 255).astype(np.uint8)
    return ImageOps.solarize(Image.fromarray(raised), 128)


#: Pillow's operations by their place, with their ranges.
PILLOW = {
    0: (lambda image, v: ImageOps.flip(image), 0, 1),
    1: (lambda image, v: ImageOps.mirror(image), 0, 1),
    2: (lambda image, v: image.filter(ImageFilter.EDGE_ENHANCE), 0, 1),
    4: (lambda image, v: image.filter(ImageFilter.SMOOTH), 0, 1),
    5: (lambda image, v: ImageOps.autocontrast(image), 0, 1),
    7: (lambda image, v: ImageOps.invert(image), 0, 1),
    8: (lambda image, v: image.filter(ImageFilter.GaussianBlur(v)), 0, 2),
    10: (lambda image, v: image.rotate(v), 0, 30),
    11: (lambda image, v: ImageOps.posterize(image, max(1, int(v))), 0, 4),
    12: (lambda image, v: ImageOps.solarize(image, v), 0, 256),
    13: (solarized_add, 0, 110),
    18: (affine(number(1), itself, number(0), number(0), number(1), number(0)), 0, 0.3),
    19: (affine(number(1), number(0), number(0), itself, number(1), number(0)), 0, 0.3),
    20: (affine(number(1), number(0), itself, number(0), number(1), number(0)), 0, 100),
    21: (affine(number(1), number(0), number(0), number(0), number(1), itself), 0, 100),
}


@pytest.mark.parametrize("level", [1, 5, 10])
@pytest.mark.parametrize("place", PILLOW)
def test_an_operation_is_pillow_s(place, level):
    photos = photographs(20, 32)
    how, low, high = PILLOW[place]
    value = level / 30 * (high - low) + low
    signs = (1, -1) if KINDS[place].signed else (1,)
    for sign in signs:
        same(applied(place, level, photos, sign), [how(Image.fromarray(p), sign * value) for p in photos])


@pytest.mark.parametrize("place", range(len(KINDS)))
def test_every_operation_does_something_or_leaves_bytes(place):
    photos = photographs(8, 32)
    before, _ = both(photos)
    after = applied(place, 5, photos)
    assert after.dtype == torch.uint8
    assert after.shape == before.shape
    assert not torch.equal(after, before)


def test_detail_is_pillow_s_to_a_level():
    photos = photographs(20, 32)
    theirs = np.stack([np.asarray(Image.fromarray(p).filter(ImageFilter.DETAIL)) for p in photos])
    ours = applied(3, 1, photos).permute(0, 2, 3, 1).numpy()
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_enlarging_shows_the_middle():
    ramp = np.broadcast_to(np.arange(0, 256, 8, dtype=np.uint8)[None, :, None], (32, 32, 3))
    shown = applied(9, 10, ramp[None].copy())[0, 0, 16].float()
    assert shown[0] > 8
    assert shown[-1] < 248
    assert (shown.diff() >= 0).all()


def test_level_0_changes_nothing_and_level_10_has_ten_operations():
    rng = np.random.default_rng(0)
    tables = Distortion().draw_at(rng, np.repeat(np.arange(11), 50), 32)
    assert [(rows > 0).sum(axis=1).tolist() for rows in tables["kind"].reshape(11, 50, HIGHEST)] == [
        [level] * 50 for level in range(11)
    ]
    images, _ = both(photographs(50, 32))
    none = {name: torch.from_numpy(rows[:50]) for name, rows in tables.items()}
    assert torch.equal(Distortion()(images, none), images)


def test_the_form_for_gpus_gives_the_same_bytes(monkeypatch):
    images, _ = both(photographs(24, 32))
    tables = Distortion().draw_at(np.random.default_rng(1), np.arange(24) % 11, 32)
    there = {name: torch.from_numpy(rows) for name, rows in tables.items()}
    by_subset = Distortion()(images, there)
    monkeypatch.setattr(op, "wants_static", lambda images: True)
    assert torch.equal(Distortion()(images, there), by_subset)


def test_cutout_comes_last():
    ops = distorted(policy("autoaugment_cutout")).colour_ops
    assert [type(one) for one in ops[1:]] == [Distortion, Cutout]
    assert isinstance(distorted(policy("crop_flip")).colour_ops[-1], Distortion)


def test_the_loader_distorts_by_class_and_by_chance(split, tmp_path):
    run = training(make_cell("ce_cuda"), split, tmp_path)
    levels = np.zeros(10, np.int64)
    levels[3] = 10
    run.loader.strengths["levels"] = levels
    positions, (tables,) = run.loader._drawn("shuffle", (), 0, 1)
    counts = (tables["distortion.kind"] > 0).sum(axis=1)
    own = split.labels[positions] == 3
    assert set(counts[~own]) == {0}
    assert set(counts[own]) == {0, 10}
    assert 0.2 < (counts[own] == 10).mean() < 0.8


def test_a_probe_shows_the_classes_and_strengths_asked_for(split, tmp_path):
    run = training(make_cell("ce_cuda", augmentation="none"), split, tmp_path)
    classes, strengths = np.array([9] * 6 + [0]), np.array([0, 0, 0, 0, 0, 10, 0])
    shown = torch.cat([*run.loader.probe(classes, strengths, 4)])
    again = torch.cat([*run.loader.probe(classes, strengths, 4)])
    other = torch.cat([*run.loader.probe(classes, strengths, 5)])
    assert torch.equal(shown, again)
    assert not torch.equal(shown, other)
    known = torch.cat([images for images, labels in run.loader.train_eval()])
    labels = torch.cat([labels for _, labels in run.loader.train_eval()])
    for image, label, strength in zip(shown, classes, strengths, strict=True):
        found = [torch.equal(image, one) for one in known[labels == label]]
        assert any(found) == (strength == 0)


@pytest.mark.parametrize("name", METHODS)
def test_levels_move_and_stay_within_their_range(name, split, tmp_path):
    run = training(make_cell(name, epochs=3, evaluate_every=3), split, tmp_path)
    lines(run)
    levels = run.method.levels
    assert levels.min() >= 0
    assert levels.max() <= 3
    assert levels.max() > 0


def test_a_replayed_step_reads_the_levels_of_its_epoch(split, tapes, tmp_path):
    plain = training(make_cell("ce_cuda", epochs=2), split, tmp_path / "a")
    expected = lines(plain)
    replayed = training(make_cell("ce_cuda", epochs=2), split, tmp_path / "b", play=tapes)
    assert [one["loss"] for one in lines(replayed)] == pytest.approx([t["loss"] for t in expected], rel=1e-3)
    assert torch.equal(plain.method.levels, replayed.method.levels)


def test_a_class_is_shown_more_often_the_stronger():
    method = registry.find("ce_cuda").build
    levels = torch.tensor([0, 2, 1])

    class Bare:
        class_counts, trials = torch.tensor([5, 3, 0]), 10

    bare = Bare()
    bare.levels = levels
    classes, strengths = method.probe(bare, Clock(0, 1, 0, 1))
    assert np.bincount(classes).tolist() == [10, 60]  # the third class has no image
    assert np.bincount(strengths[classes == 1]).tolist() == [10, 20, 30]
