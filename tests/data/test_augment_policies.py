"""Policies: their tables follow the papers' distributions, and images are changed one by one."""

from __future__ import annotations

import runpy

import numpy as np
import pytest
import torch
from project import ROOT
from torch import Tensor

from bench.data.augment import POLICIES, automatic, op, policy
from bench.data.augment.operations import Blur, Crop, Cutout, Flip, Jitter, ResizedCrop
from bench.errors import BenchError
from bench.vision import torchvision

BENCHMARK = runpy.run_path(str(ROOT / "benchmarks/augment.py"))
N = 20_000  # of a share p, five standard errors are below 0.018
every_policy = pytest.mark.parametrize("name", POLICIES)
every_size = pytest.mark.parametrize("size", [32, 8])


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def drawn(name: str, n: int, size: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Return photographs (n, 3, size, size) and a policy's tables for them."""
    images = BENCHMARK["images_of"](BENCHMARK["photographs"](n, size))
    return images, {k: torch.tensor(v) for k, v in policy(name).draw(rng(), n, size).items()}


def part(tables: dict[str, Tensor], start: int, stop: int) -> dict[str, Tensor]:
    return {key: rows[start:stop] for key, rows in tables.items()}


# -- applying ---------------------------------------------------------------------------------------
@every_size
@every_policy
def test_a_policy_is_pillow_image_by_image(name: str, size: int) -> None:
    photos = BENCHMARK["photographs"](120, size)
    assert BENCHMARK["difference"](name, photos, 50) == (0.0, 0)


@every_size
@every_policy
def test_batches_do_not_matter(name: str, size: int) -> None:
    images, tables = drawn(name, 41, size)
    before = images.clone()
    whole = policy(name).apply(images, tables)
    sevens = [policy(name).apply(images[i : i + 7], part(tables, i, i + 7)) for i in range(0, 41, 7)]
    assert torch.equal(torch.cat(sevens), whole)
    assert torch.equal(policy(name).apply(images[:1], part(tables, 0, 1)), whole[:1])
    assert torch.equal(images, before), "the images in memory are those of all epochs"
    assert whole.shape == images.shape
    assert name == "none" or not torch.equal(whole, images)


@every_policy
def test_the_form_for_gpus_gives_the_same_bytes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images, tables = drawn(name, 60, 32)
    by_subset = policy(name).apply(images, tables)
    monkeypatch.setattr(op, "wants_static", lambda images: True)
    assert torch.equal(policy(name).apply(images, tables), by_subset)


@every_policy
def test_the_form_for_gpus_never_asks_for_a_value(name: str) -> None:
    """A meta tensor has a shape and no values: whatever would wait for the device raises."""
    images, tables = drawn(name, 5, 32)
    on_meta = {key: rows.to("meta") for key, rows in tables.items()}
    assert policy(name).apply(images.to("meta"), on_meta).shape == images.shape


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_policy
def test_a_gpu_gives_the_same_bytes_inside_a_graph(name: str) -> None:
    images, tables = drawn(name, 60, 32)
    there, rows = images.cuda(), {key: t.cuda() for key, t in tables.items()}
    policy(name).apply(there, rows)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = policy(name).apply(there, rows)
    graph.replay()
    assert torch.equal(result.cpu(), policy(name).apply(images, tables))


@every_policy
def test_colour_follows_geometry(name: str) -> None:
    images, tables = drawn(name, 10, 32)
    chosen = policy(name)
    between = chosen.geometry(images, tables)
    assert torch.equal(chosen.colour(between, tables), chosen.apply(images, tables))


@every_policy
def test_tables_are_a_function_of_the_generator(name: str) -> None:
    first, again = (policy(name).draw(rng(), 50, 32) for _ in range(2))
    assert all(len(rows) == 50 for rows in first.values())
    assert all(np.array_equal(first[key], again[key]) for key in first)
    assert policy(name).draw(rng(), 0, 32).keys() == first.keys()


def test_an_unknown_policy_is_answered_with_the_nearest() -> None:
    with pytest.raises(BenchError, match=r"'autoaugmnt'; did you mean 'autoaugment'\?"):
        policy("autoaugmnt")


# -- drawing ----------------------------------------------------------------------------------------
def shares(values: np.ndarray, count: int) -> np.ndarray:
    return np.bincount(values.ravel(), minlength=count) / values.size


@pytest.mark.parametrize(("size", "places"), [(32, 9), (8, 3)])
def test_crop_and_cutout_scale_with_the_image(size: int, places: int) -> None:
    tables = Crop().draw(rng(), N, size) | Cutout().draw(rng(), N, size)
    for key, count in (("top", places), ("left", places), ("y", size), ("x", size)):
        assert len(shares(tables[key], count)) == count
        np.testing.assert_allclose(shares(tables[key], count), 1 / count, atol=0.018)
    white = torch.full((1, 3, size, size), 255, dtype=torch.uint8)
    for centre, side in ((size // 2, size // 2), (0, size // 4)):
        hole = Cutout()(white, {"y": torch.tensor([centre]), "x": torch.tensor([centre])}) == 0
        assert int(hole.sum()) == 3 * side * side, "in the middle whole, in a corner a quarter"


def test_flip_and_blur_happen_every_other_time() -> None:
    assert Flip().draw(rng(), N, 32)["chosen"].mean() == pytest.approx(0.5, abs=0.018)
    blur = Blur().draw(rng(), N, 32)
    assert blur["chosen"].mean() == pytest.approx(0.5, abs=0.018)
    assert 0.1 <= blur["radius"].min() < 0.11
    assert 1.99 < blur["radius"].max() <= 2.0


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.2, 1.0)])
def test_resized_crop_follows_torchvision(scale: tuple[float, float]) -> None:
    box = ResizedCrop(scale=scale).draw(rng(), N, 32)["box"]
    left, top, right, bottom = box.T
    assert min(left.min(), top.min()) == 0
    assert max(right.max(), bottom.max()) == 32
    torch.manual_seed(0)
    crop = torchvision.transforms.RandomResizedCrop
    image = torch.zeros(3, 32, 32)
    theirs = np.array([crop.get_params(image, scale, (3 / 4, 4 / 3)) for _ in range(4000)])
    ours = np.stack([top, left, bottom - top, right - left], axis=1)
    for mine, other in zip(ours.T, theirs.T, strict=True):
        steps = np.arange(33)
        gap = np.searchsorted(np.sort(mine), steps) / N - np.searchsorted(np.sort(other), steps) / 4000
        assert np.abs(gap).max() < 0.035, "Kolmogorov-Smirnov, one in a thousand"


def test_resized_crop_that_never_fits_is_the_whole_image() -> None:
    box = ResizedCrop(scale=(2.0, 2.0)).draw(rng(), 5, 32)["box"]
    assert (box == [0, 0, 32, 32]).all()


def test_jitter_uses_all_orders() -> None:
    tables = Jitter().draw(rng(), N, 32)
    order, values = tables["order"], tables["values"]
    happens = order.any(axis=1)
    assert happens.mean() == pytest.approx(0.8, abs=0.018)
    assert (np.sort(order[happens]) == [1, 2, 3, 4]).all()
    assert len(np.unique(order[happens], axis=0)) == 24
    for place in range(4):
        np.testing.assert_allclose(shares(order[happens][:, place], 5)[1:], 0.25, atol=0.018)
    np.testing.assert_allclose(values[:, :3].min(0), 0.6, atol=0.01)
    np.testing.assert_allclose(values[:, :3].max(0), 1.4, atol=0.01)
    assert set(values[:, 3]) == set(range(-25, 26))
    assert 4 not in Jitter(hue=0, probability=1).draw(rng(), N, 32)["order"]


@every_size
def test_autoaugment_draws_the_25_subpolicies(size: int) -> None:
    tables = automatic.AutoAugment().draw(rng(), N, size)
    kinds, kind = list(automatic.AUTOAUGMENT), tables["kind"]
    for turn in range(2):
        happens = sum(pair[turn][1] for pair in automatic.SUBPOLICIES) / 25
        assert (kind[:, turn] > 0).mean() == pytest.approx(happens, abs=0.018)
    rows = {name: tables["numbers"][kind == place] for place, name in enumerate(kinds)}
    turned = rows["move"][rows["move"][:, 1] != 0]
    angle = np.degrees(np.arctan2(turned[:, 3], turned[:, 0]))
    np.testing.assert_allclose(angle, 2 / 9 * 30, err_msg="of magnitude 2, to one side only")
    moved = rows["move"][rows["move"][:, 1] == 0][:, [2, 5]].sum(1) / size
    assert set(np.round(moved / (150 / 331) * 9)) == {-9, -8, -3, 3, 8, 9}
    assert (moved > 0).mean() == pytest.approx(0.5, abs=0.05)
    assert set(np.round(rows["shear_y"][:, 3] * 30, 6)) == {-8, -7, 7, 8}
    assert set(rows["posterize"][:, 0]) == {5}
    levels = np.linspace(256, 0, 10)
    assert set(rows["solarize"][:, 0]) == {0, levels[2], levels[3], levels[5], levels[8]}
    brighter = np.round((rows["brightness"][:, 0] - 1) * 10)
    assert set(brighter) == {-9, -7, -6, -3, 3, 6, 7, 9}


def test_autoaugment_frequencies_of_kinds() -> None:
    kind = automatic.AutoAugment().draw(rng(), N, 32)["kind"]
    of = {"invert": "solarize", "rotate": "move", "translate_x": "move", "translate_y": "move"}
    for place, name in enumerate(automatic.AUTOAUGMENT):
        expected = [
            p for pair in automatic.SUBPOLICIES for given, p, _ in pair if of.get(given, given) == name
        ]
        if name != "keep":
            assert (kind == place).mean() == pytest.approx(sum(expected) / 50, abs=0.01)


def test_randaugment_is_timms_old_dialect() -> None:
    tables = automatic.RandAugment().draw(rng(), N, 32)
    kinds, kind = list(automatic.RANDAUGMENT), tables["kind"]
    rows = {name: tables["numbers"][kind == place] for place, name in enumerate(kinds)}
    expected = dict.fromkeys(kinds, 1 / 30) | {
        "keep": 1 / 2,
        "linear": 5 / 60,
        "cubic": 5 / 60,
        "solarize": 2 / 30,  # and inversion
    }
    for place, name in enumerate(kinds):
        assert (kind == place).mean() == pytest.approx(expected[name], abs=0.01)
    kept = rows["solarize"][:, 0]
    assert (kept == 0).mean() == pytest.approx(1 / 2, abs=0.06), "inversions"
    assert (kept[kept > 0] == 256).mean() == pytest.approx(1 / 2, abs=0.09), "level 10: no change"
    assert set(rows["posterize"][:, 0]) <= {2, 3, 4}
    blends = np.concatenate([rows[n][:, 0] for n in ("brightness", "color", "contrast")])
    assert blends.max() == pytest.approx(1.9)
    assert (blends > 1.5).all()
    matrix = np.concatenate([rows["linear"], rows["cubic"]])
    shift = matrix[(matrix[:, 0] == 1) & (matrix[:, 1] == 0) & (matrix[:, 3] == 0)][:, [2, 5]]
    assert np.abs(shift).max() == pytest.approx(0.45 * 32)
    assert (shift.sum(1) > 0).mean() == pytest.approx(0.5, abs=0.06)
