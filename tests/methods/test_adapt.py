"""Weights of experts learnt from unlabelled test images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from golden_values import golden

from bench.cell import BackboneChoice, Cell, Protocol
from bench.data.feed.memory import MemoryLoader
from bench.data.sets.catalogue import DATASETS
from bench.data.split.load import load
from bench.method import View
from bench.metrics import agnostic
from bench.metrics.agnostic import TEST_SETS
from bench.registry import find
from bench.rundir import RunDir, cell_from
from bench.train import adapting
from bench.train.run import run_cell
from methods.parts import adjusted_experts
from methods.parts.expert_weights import expert_weights


def test_the_authors_weights():
    g, meta = golden("sade_test_weights_C10")
    views = g["view_logits"].numpy()
    batches, size = views.shape[1:3]
    views = views.reshape(2, batches * size, *views.shape[3:])
    options = {
        "rate": meta["lr"],
        "momentum": meta["momentum"],
        "decay": meta["weight_decay"],
        "batch": size,
    }
    expected = g["weights"].numpy()
    for epochs in (1, meta["epochs"]):
        found = expert_weights(views, epochs=epochs, **options)
        np.testing.assert_allclose(found, expected[epochs * batches - 1], rtol=1e-5)


@pytest.fixture
def views() -> np.ndarray:
    """Two views of 60 images of six classes: the first expert sees the first three, the second the others."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 6
    logits = rng.normal(0, 1.5, (2, 60, 2, 6))
    for expert, own in enumerate((labels < 3, labels >= 3)):
        logits[:, own, expert, labels[own]] += 6
    return logits


def test_the_expert_of_the_frequent_classes_gains(views):
    labels = np.arange(60) % 6
    forward, backward = (np.repeat(np.arange(60), np.where(labels < 3, *pair)) for pair in ((10, 1), (1, 10)))
    assert expert_weights(views[:, forward])[0] > 0.55
    assert expert_weights(views[:, backward])[1] > 0.55
    assert expert_weights(views).sum() == pytest.approx(1)


def test_an_expert_that_is_not_wanted_ends_the_learning():
    rng = np.random.default_rng(1)
    views = np.zeros((2, 40, 2, 4))
    views[:, :, 0, 0] = 6
    views[:, :, 1] = rng.normal(0, 8, (2, 40, 4))
    short = [expert_weights(views, rate=20.0, batch=1000, epochs=epochs) for epochs in (1, 2, 50)]
    assert min(short[2]) < 0.05
    ended = next(
        n for n in range(1, 51) if min(expert_weights(views, rate=20.0, batch=1000, epochs=n)) < 0.045
    )
    np.testing.assert_array_equal(short[2], expert_weights(views, rate=20.0, batch=1000, epochs=ended))


# -- in a run -------------------------------------------------------------------------------------
DIGITS = DATASETS["digits"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[str, dict]:
    """Records of runs of two epochs, by method."""
    root = tmp_path_factory.mktemp("adapting")
    found = {}
    for name in ("sade", "dirmixe", "ce"):
        cell = Cell(
            method=find(name).choose(),
            dataset=DIGITS,
            imbalance_factor=20.0,
            backbone=BackboneChoice(name="resnet8_cifar"),
            protocol=Protocol(epochs=2, batch_size=64, augmentation="crop_flip"),
            mode="exact",
        )
        run_cell(cell, root, root)
        found[name] = RunDir(root, cell.run_id).read_record()
        assert found[name]["status"] == "done", found[name]["reason"]
    return found


def test_a_run_of_a_method_that_adapts_has_both_kinds_of_numbers(trained):
    assert trained["ce"]["test_agnostic"] is None
    for name in ("sade", "dirmixe"):
        meta = trained[name]["test_agnostic"]
        assert list(meta["accuracy"]) == list(TEST_SETS)
        assert all(0 <= value <= 100 for value in meta["accuracy"].values())


def test_equal_weights_have_what_does_not_adapt(trained, monkeypatch, tmp_path):
    """With the weights left where they start the accuracies are those of the plain mean of the experts."""
    seen = []

    def unmoved(views):
        seen.append(views.shape)
        return np.full(3, 1 / 3)

    monkeypatch.setattr(adjusted_experts, "expert_weights", unmoved)
    cell = cell_from(trained["sade"]["cell"])
    run_cell(cell, tmp_path, tmp_path)
    record = RunDir(tmp_path, cell.run_id).read_record()
    metrics, counts = record["metrics"], np.array(record["data"]["class_counts"])
    expected = agnostic.track(np.array(metrics["per_class"]), counts)
    # but for images whose best scores are equal once they are rounded for the store
    assert record["test_agnostic"]["accuracy"] == pytest.approx(expected, abs=0.5)
    assert dict(zip(TEST_SETS, seen, strict=True))["uniform"] == (2, 500, 3, 10)


def test_the_drawn_test_sets_have_the_sizes_of_sade_s():
    """CIFAR-100's 100 images of each class at ratio 50: from 100 down to 2."""
    labels, counts = np.repeat(np.arange(100), 100), np.arange(100)[::-1]
    forward = adapting.drawn_counts(labels, counts, 50.0)
    assert forward.tolist() == [int(100 * (1 / 50) ** (c / 99)) for c in range(100)]
    assert forward[[0, -1]].tolist() == [100, 2]
    assert adapting.drawn_counts(labels, counts, 1 / 50).tolist() == forward[::-1].tolist()
    assert adapting.drawn_counts(labels, counts, 1.0).tolist() == [100] * 100


def test_a_test_view_is_the_test_set_in_its_order(trained):
    loader = MemoryLoader(load(DIGITS, 20.0, Path()), (View(),), cell_from(trained["ce"]["cell"]), "cpu")
    plain = torch.cat([images for images, _ in loader.test()])
    assert torch.equal(torch.cat(list(loader.test_view("none", 0))), plain)
    one, again, other = (torch.cat(list(loader.test_view("crop_flip", view))) for view in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
