"""Batches hold the images they say, made by the tables drawn for them, whatever the batch size."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.cell import BackboneChoice, Cell, MethodChoice, Protocol
from bench.data.feed import memory as module
from bench.data.feed.memory import MemoryLoader
from bench.data.feed.samplers import order
from bench.data.sets.catalogue import DATASETS
from bench.data.split.load import Split, load
from bench.errors import BenchError
from bench.method import Batch, View
from bench.randomness import generator

DIGITS = DATASETS["digits"]
SEED = 3


@pytest.fixture(scope="module")
def split() -> Split:
    return load(DIGITS, 10.0, Path())


class Brighten:
    """A stand-in policy whose every step can be read from its pixels: add in geometry, invert in colour."""

    def at(self, epoch: int, epochs: int) -> Brighten:
        return self

    def draw(self, rng: np.random.Generator, n: int, image_size: int) -> dict[str, np.ndarray]:
        return {"by": rng.integers(0, 100, n).astype(np.uint8), "side": np.full(n, image_size)}

    def geometry(self, images: torch.Tensor, tables: dict[str, torch.Tensor]) -> torch.Tensor:
        assert images.dtype == torch.uint8
        assert (tables["side"] == images.shape[-1]).all()
        return images + tables["by"].view(-1, 1, 1, 1)

    def colour(self, images: torch.Tensor, tables: dict[str, torch.Tensor]) -> torch.Tensor:
        return 255 - images


@pytest.fixture
def brighten(monkeypatch) -> list[str]:
    """Every policy is the stand-in; the names asked for are returned."""
    asked: list[str] = []
    monkeypatch.setattr(module, "policy", lambda name: asked.append(name) or Brighten())
    return asked


def make(
    split: Split,
    *views: View,
    mode: str = "exact",
    extra: str | None = None,
    device: str = "cpu",
    **protocol: Any,
) -> MemoryLoader:
    cell = Cell(
        method=MethodChoice(name="any"),
        dataset=split.dataset,
        imbalance_factor=10.0,
        backbone=BackboneChoice(name="any"),
        protocol=Protocol(**{"batch_size": 50, "augmentation": "none", **protocol}),
        seed=SEED,
        mode=mode,
    )
    return MemoryLoader(split, views or (View(),), cell, device, extra_sampler=extra)


def pixels(split: Split, images: torch.Tensor) -> torch.Tensor:
    """Undo the normalisation."""
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (split.dataset.mean, split.dataset.std))
    return ((images * std + mean) * 255).round().to(torch.uint8)


def joined(batches: list[Batch], view: int = 0) -> torch.Tensor:
    return torch.cat([batch.views[view] for batch in batches])


def test_an_epoch_is_the_subset_in_the_drawn_order(split):
    loader = make(split)
    batches = list(loader.epoch(2, 5, "shuffle"))
    assert len(batches) == loader.steps == -(-loader.size // 50)
    assert [len(b.labels) for b in batches] == [50] * (loader.steps - 1) + [loader.size % 50]
    positions = torch.cat([b.positions for b in batches])
    expected = order("shuffle", split.labels, generator("order", SEED, 2), 2, 5)
    assert positions.tolist() == expected.tolist()
    assert torch.cat([b.labels for b in batches]).tolist() == split.labels[expected].tolist()
    shown = pixels(split, joined(batches))
    assert torch.equal(shown, split.images[split.positions[expected]])
    assert all(b.extra is None and not b.draws and len(b.views) == 1 for b in batches)


def test_views_are_normalised_as_the_papers_do(split):
    from bench.vision import torchvision

    loader = make(split)
    batch = next(loader.epoch(0, 1, "shuffle"))
    image = split.images[split.positions[batch.positions[0]]].permute(1, 2, 0).numpy()
    transforms = torchvision.transforms
    official = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(split.dataset.mean, split.dataset.std)]
    )
    assert torch.equal(batch.images[0], official(image))


def test_each_view_has_tables_of_its_own_and_the_protocols_policy_is_main(split, brighten):
    views = (View(), View("simclr"), View("simclr"))
    loader = make(split, *views, augmentation="crop_flip")
    assert brighten == ["crop_flip", "simclr", "simclr"]
    batches = list(loader.epoch(1, 5, "shuffle"))
    originals = split.images[split.positions[torch.cat([b.positions for b in batches])]]
    for i in range(3):
        table = Brighten().draw(generator("view", i, SEED, 1), loader.size, 8)
        by = torch.from_numpy(table["by"]).view(-1, 1, 1, 1)
        assert torch.equal(pixels(split, joined(batches, i)), 255 - (originals + by))


def test_what_an_image_becomes_does_not_depend_on_the_batch_size(split, brighten):
    whole = joined(list(make(split, batch_size=1000).epoch(0, 1, "sqrt")))
    parts = joined(list(make(split, batch_size=7).epoch(0, 1, "sqrt")))
    assert torch.equal(whole, parts)


def test_epochs_and_seeds_differ_and_repeat(split, brighten):
    loader = make(split)
    first, again, second = (joined(list(loader.epoch(e, 9, "shuffle"))) for e in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_a_patch_is_cut_after_geometry_and_before_colour(split, brighten, monkeypatch):
    def crop(images: torch.Tensor, boxes: torch.Tensor, size: int) -> torch.Tensor:
        corner = (boxes[:, :2] * images.shape[-1]).round().long()
        each = [x[:, y0 : y0 + size, x0 : x0 + size] for x, (x0, y0) in zip(images, corner, strict=True)]
        return torch.stack(each)

    monkeypatch.setattr(module, "crop_boxes", crop)
    patch = View("simclr", patch_of=0, boxes="where", size=4)
    loader = make(split, View(), patch, batch_size=64)
    corners = generator("boxes").integers(0, 5, (loader.size, 2)) / 8
    boxes = np.concatenate([corners, corners + 0.5], axis=1)
    batches = list(loader.epoch(4, 9, "shuffle", {"where": boxes}))
    assert torch.equal(torch.cat([b.draws["where"] for b in batches]), torch.from_numpy(boxes))

    global_by, patch_by = (
        torch.from_numpy(Brighten().draw(generator("view", i, SEED, 4), loader.size, 8)["by"]) for i in (0, 1)
    )
    originals = split.images[split.positions[torch.cat([b.positions for b in batches])]]
    shaped = originals + global_by.view(-1, 1, 1, 1)
    expected = 255 - (crop(shaped, torch.from_numpy(boxes), 4) + patch_by.view(-1, 1, 1, 1))
    assert torch.equal(pixels(split, joined(batches, 1)), expected)


@pytest.mark.parametrize(
    "patch",
    [
        View(patch_of=1, boxes="b", size=4),
        View(patch_of=0, size=4),
        View(patch_of=0, boxes="b"),
    ],
)
def test_a_patch_that_cannot_be_cut_is_refused(split, patch):
    with pytest.raises(BenchError, match="view 1: a patch needs"):
        make(split, View(), patch)


def test_an_extra_batch_is_drawn_by_its_own_sampler_and_stream(split, brighten):
    loader = make(split, extra="reverse")
    draws = {"lam": np.arange(loader.size)}
    batches = list(loader.epoch(0, 1, "shuffle", draws))
    extras = [b.extra for b in batches if b.extra is not None]
    assert [len(e.labels) for e in extras] == [len(b.labels) for b in batches]
    positions = torch.cat([e.positions for e in extras])
    expected = order("reverse", split.labels, generator("extra", "order", SEED, 0), 0, 1)
    assert positions.tolist() == expected.tolist()
    labels = torch.cat([e.labels for e in extras])
    assert torch.equal(labels, torch.from_numpy(split.labels)[positions])
    assert torch.bincount(labels).argmax() > 4  # the tail leads
    table = Brighten().draw(generator("extra", "view", 0, SEED, 0), loader.size, 8)
    by = torch.from_numpy(table["by"]).view(-1, 1, 1, 1)
    originals = split.images[split.positions[positions]]
    assert torch.equal(pixels(split, joined(extras)), 255 - (originals + by))
    assert torch.cat([e.draws["lam"] for e in extras]).tolist() == list(range(loader.size))

    alone = list(make(split).epoch(0, 1, "shuffle"))  # the main batches do not feel it
    assert torch.equal(joined(batches), joined(alone))


def test_a_method_samples_as_it_names(split):
    labels = torch.cat([b.labels for b in make(split).epoch(3, 4, "progressive")])
    expected = order("progressive", split.labels, generator("order", SEED, 3), 3, 4)
    assert labels.tolist() == split.labels[expected].tolist()


def test_the_ragged_batch_goes_with_drop_last(split):
    loader = make(split, drop_last=True)
    batches = list(loader.epoch(0, 1, "shuffle"))
    assert loader.size % 50
    assert len(batches) == loader.steps == loader.size // 50
    assert {len(b.labels) for b in batches} == {50}
    assert make(split, batch_size=loader.size).steps == 1
    with pytest.raises(BenchError, match=r"drop_last leaves no batch: \d+ .* batch_size 4096"):
        make(split, drop_last=True, batch_size=4096)


def test_the_test_set_comes_whole_in_its_order_and_unaugmented(split, brighten):
    loader = make(split)
    images, labels = zip(*loader.test(), strict=True)
    assert [len(x) for x in images] == [100] * 5
    assert torch.equal(pixels(split, torch.cat(images)), split.test_images)
    assert torch.cat(labels).tolist() == split.test_labels.tolist()


def test_training_images_can_be_seen_as_in_a_test(split, brighten):
    loader = make(split)
    images, labels = zip(*loader.train_eval(), strict=True)
    assert torch.equal(pixels(split, torch.cat(images)), split.images[split.positions])
    assert torch.cat(labels).tolist() == split.labels.tolist()
    some = torch.tensor([5, 0, 5])
    assert torch.equal(loader.images_at(some), torch.cat(images)[some])


def test_a_fast_cell_has_its_channels_last_and_the_same_numbers(split, brighten):
    exact, fast = (list(make(split, mode=m).epoch(0, 1, "shuffle")) for m in ("exact", "fast"))
    assert exact[0].images.is_contiguous()
    assert fast[0].images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(joined(exact), joined(fast))
    tested = next(make(split, mode="fast").test())[0]
    assert tested.is_contiguous(memory_format=torch.channels_last)


def test_a_batch_is_its_own_and_the_data_stays_as_it_is(split):
    loader = make(split)
    before = split.images.clone(), split.test_images.clone()
    for batch in loader.epoch(0, 1, "shuffle"):
        batch.images.zero_()
    for images, _ in loader.test():
        images.zero_()
    assert torch.equal(split.images, before[0])
    assert torch.equal(split.test_images, before[1])
    assert make(split)._images is loader._images is split.images  # nothing is copied on the host


def test_images_go_to_a_device_once_and_leave_with_their_last_user(split):
    meta = torch.device("meta")  # a device without memory
    first, second = (module._on_device("set", "train", split.images, meta) for _ in range(2))
    other = module._on_device("set", "test", split.images, meta)
    assert first is second is not other
    assert first.device == meta
    del first, second, other
    gc.collect()
    assert not module._resident


def test_an_unknown_policy_or_sampler_is_named(split):
    with pytest.raises(BenchError, match="'crop_flp'; did you mean 'crop_flip'"):
        make(split, augmentation="crop_flp")
    with pytest.raises(BenchError, match="unknown sampler 'suffle'; did you mean 'shuffle'"):
        list(make(split).epoch(0, 1, "suffle"))


def test_a_real_policy_augments_each_image_by_itself(split):
    loader = make(split, augmentation="crop_flip")
    batch = next(loader.epoch(0, 1, "shuffle"))
    plain = loader.images_at(batch.positions)
    assert batch.images.shape == plain.shape
    changed = (batch.images != plain).flatten(1).any(1)
    assert changed.float().mean() > 0.5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_sees_the_same_batches(split):
    views = (View("crop_flip"), View("none"))
    here, there = (make(split, *views, device=device) for device in ("cpu", "cuda"))
    for mine, its in zip(here.epoch(0, 1, "sqrt"), there.epoch(0, 1, "sqrt"), strict=True):
        assert torch.equal(mine.positions, its.positions.cpu())
        for a, b in zip(mine.views, its.views, strict=True):
            torch.testing.assert_close(a, b.cpu(), rtol=1e-6, atol=1e-6)
    images, labels = next(there.test())
    assert len(images) == 500
    assert labels.tolist() == split.test_labels.tolist()
