"""LSC: shares of a test set estimated from its logits, and what is made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from golden_values import golden
from method_cells import COUNTS, cell_of
from torch import nn

from bench.cell import Protocol
from bench.data.sets.catalogue import DATASETS
from bench.errors import BenchError
from bench.metrics import agnostic
from bench.rundir import RunDir
from bench.train.adapting import accuracies
from bench.train.build import build
from bench.train.run import run_cell
from methods.lsc import fit, kept_for, label_shift, largest, shifted_sets, shifted_sizes
from methods.ncl import NCL

torch.set_num_threads(1)

CASES = ["forward", "uniform", "backward"]


def estimator_of(g: dict[str, torch.Tensor]) -> nn.Sequential:
    """The authors' estimator with its stored weights."""
    first, second = nn.Linear(30, 30), nn.Linear(30, 10)
    for layer, number in ((first, 1), (second, 2)):
        layer.weight.data, layer.bias.data = g[f"lde_w{number}"].float(), g[f"lde_b{number}"].float()
    return nn.Sequential(first, nn.ReLU(), second).requires_grad_(False)


@pytest.mark.parametrize("case", CASES)
def test_the_shares_are_the_authors(case: str) -> None:
    g, settings = golden("lsc_prior_C10")
    logits, wanted = g[f"{case}_logits"], g[f"{case}_prior"]
    prior = label_shift(
        estimator_of(g), logits, torch.ones(len(logits)), torch.arange(10), settings["train_topk"]
    )
    assert (prior is None) == (g[f"{case}_flag"] == 0)
    prior = torch.ones(10) if prior is None else prior
    torch.testing.assert_close(prior, wanted, rtol=1e-5, atol=1e-8)
    adjusted = logits[:16, 0] + prior.log() / settings["temper"]
    torch.testing.assert_close(adjusted, g[f"{case}_adjusted_first16_expert0"], rtol=1e-5, atol=1e-6)


def test_sizes_and_the_number_of_logits_kept_are_the_authors() -> None:
    g, _ = golden("lsc_prior_C10")
    sizes = shifted_sizes(500, 10, 100.0)
    assert len(sizes) == 2 * 990
    for factor, expected in zip(g["size_factors"].tolist(), g["sizes"], strict=True):
        number = round(10 * factor) - 10
        assert torch.equal(sizes[2 * number], expected)
        assert torch.equal(sizes[2 * number + 1], expected.flip(0))
    found = [kept_for(g["topk_logits"], g["topk_labels"], tol) for tol in g["topk_tols"].tolist()]
    assert found == g["topk_ks"].tolist()


def test_the_order_of_classes_is_that_of_their_counts() -> None:
    g, settings = golden("lsc_prior_C10")
    turn = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    plain = estimator_of(g)

    def turned(means: torch.Tensor) -> torch.Tensor:
        back = means.unflatten(-1, (3, 10))[..., turn.argsort()]
        return plain(back.flatten(-2))[..., turn]

    logits = g["forward_logits"]
    weights = torch.ones(len(logits))
    prior = label_shift(turned, logits[..., turn], weights, turn.argsort(), settings["train_topk"])  # type: ignore[arg-type]
    assert prior is not None
    torch.testing.assert_close(prior, g["forward_prior"][turn], rtol=1e-4, atol=1e-7)


def test_an_image_of_double_weight_is_two_images() -> None:
    g, _ = golden("lsc_prior_C10")
    logits, estimator, order = g["backward_logits"], estimator_of(g), torch.arange(10)
    twice = label_shift(estimator, torch.cat([logits, logits[:20]]), torch.ones(80), order, 4)
    weights = torch.ones(60)
    weights[:20] = 2
    torch.testing.assert_close(label_shift(estimator, logits, weights, order, 4), twice)


def test_largest_keeps_the_largest_and_nothing_else() -> None:
    logits = torch.tensor([[3.0, -1.0, 2.0, 0.5]])
    assert largest(logits, 2).tolist() == [[3.0, 0.0, 2.0, 0.0]]


def test_sets_have_the_sizes_they_are_drawn_with() -> None:
    labels = torch.tensor([0] * 5 + [2] * 3)
    rows = torch.eye(3)[labels]
    means, shares = shifted_sets(rows, labels, torch.tensor([[8, 4, 2], [0, 9, 1]]))
    torch.testing.assert_close(means, torch.tensor([[0.8, 0.0, 0.2], [0.0, 0.0, 1.0]]))
    torch.testing.assert_close(shares.float(), means)  # a class without rows is in no set


def known_world(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (600, 3, 10) of three networks that see the class through noise, and the labels."""
    made = torch.Generator().manual_seed(seed)
    labels = torch.arange(10).repeat_interleave(60)
    seen = 1.5 * torch.eye(10)[labels] + torch.randn(600, 10, generator=made)
    return seen[:, None] + torch.randn(600, 3, 10, generator=made) / 4, labels


def test_it_learns_shares_and_gains_on_test_sets_with_a_tail() -> None:
    method = build(cell_of("lsc"), np.arange(100, 0, -10))
    train, labels = known_world(0)
    means, shares = shifted_sets(largest(train, 3).flatten(1), labels, shifted_sizes(60, 10, 100.0)[::21])
    fit(method.estimator, means, shares, 200, 1e-2)
    method.kept.fill_(3)
    test, labels = known_world(1)
    found = accuracies(method, test, None, labels.numpy(), np.arange(100, 0, -10), seed=0)
    hits = (test.mean(dim=1).argmax(dim=1) == labels).double().view(10, 60).mean(dim=1).numpy()
    plain = {name: 100 * value for name, value in agnostic.track(hits, np.arange(100, 0, -10)).items()}
    assert found.keys() == plain.keys()
    assert found["forward 50"] > plain["forward 50"] + 1
    assert found["backward 50"] > plain["backward 50"] + 1
    assert found["uniform"] == pytest.approx(plain["uniform"])


def test_image_by_image_it_is_ncl() -> None:
    method = build(cell_of("lsc"), COUNTS).eval()
    assert isinstance(method.parent, NCL)
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(method(images), method.parent(images))
    assert method.member_logits(images).shape == (2, 3, 10)
    with pytest.raises(BenchError, match="as many networks"):
        build(cell_of("lsc"), COUNTS).start_from(build(cell_of("ce"), COUNTS))


def test_a_run_of_it_has_a_row_for_every_test_set(tmp_path: Path) -> None:
    changes = {"dataset": DATASETS["digits"], "imbalance_factor": 20.0, "protocol": Protocol(epochs=1)}
    cell = cell_of("lsc", epochs=1, largest_factor=3.0)
    assert cell.parent is not None
    parent = cell.parent.model_copy(update=changes)
    cell = cell.model_copy(update={**changes, "parent": parent})
    for one in (parent, cell):
        run_cell(one, tmp_path, tmp_path)
    records = [RunDir(tmp_path, one.run_id).read_record() for one in (parent, cell)]
    assert records[0]["test_agnostic"] is None
    assert records[1]["status"] == "done", records[1]["reason"]
    found = records[1]["test_agnostic"]["accuracy"]
    assert list(found) == list(agnostic.TEST_SETS)
    assert records[1]["metrics"]["accuracy"] == records[0]["metrics"]["accuracy"]
    assert all(0 <= value <= 100 for value in found.values())
