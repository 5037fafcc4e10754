"""Conformance: what every registered method must hold, whoever wrote it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from method_cells import COUNTS, IMAGENET_STYLE, METHODS, SMALL, batch_for, cell_of, step

from bench.method import Clock
from bench.train.build import build
from bench.train.checkpoint import read_weights, write_weights

trained = pytest.mark.parametrize("name", [n for n, e in METHODS.items() if e.build.trains])
every = pytest.mark.parametrize("name", METHODS)


@every
def test_registry_entry_tells_the_reader_what_it_is(name):
    entry = METHODS[name]
    assert entry.title
    assert entry.family
    assert entry.summary
    assert entry.arguments.keys() >= entry.hyperparameters.model_fields.keys(), "say what each is, in Args"
    assert entry.paper.startswith("https://") or not entry.paper
    entry.hyperparameters()  # every hyper-parameter has a default


@every
@pytest.mark.parametrize(("backbone", "side"), [SMALL, IMAGENET_STYLE])
def test_scores_images_and_leaves_no_trace(name, backbone, side):
    method = build(cell_of(name, backbone), COUNTS).eval()
    before = {key: tensor.clone() for key, tensor in method.state_dict().items()}
    images = torch.randn(3, 3, side, side)
    with torch.inference_mode():
        scores = method(images)
        assert torch.equal(method(images), scores)
    assert scores.shape == (3, len(COUNTS))
    assert scores.isfinite().all()
    after = method.state_dict()
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())


#: Learning rates for a batch that is seen again and again, where 0.02 is too much.
RATES = {"ride_routed": 2e-4}  # it learns from logits, which are 30 times cosines

HARD = {
    "absent classes": (COUNTS, [4, 4, 8, 8, 4, 8]),
    "each class once": (COUNTS, list(range(10))),
    "one class": (COUNTS, [3, 3, 3, 3]),
    "ragged last": (COUNTS, [4, 1]),
    "two classes": (np.array([3, 50]), [0, 1, 1, 0]),
    "thousand classes": (np.arange(1000, 0, -1), [0, 999, 5, 5, 700, 999]),
}


@trained
@pytest.mark.parametrize("hard", HARD)
@pytest.mark.parametrize("epoch", [0, 9], ids=["first epoch", "last epoch"])
def test_hard_batches_give_finite_loss_and_gradients(name, hard, epoch):
    counts, labels = HARD[hard]
    method = build(cell_of(name), counts).train()
    for at in sorted({0, epoch}):
        clock = Clock(at, 10, at, 10)
        method.before_epoch(clock)
        loss = step(method, None, batch_for(method, labels, 16), clock)
        assert np.isfinite(loss)
    gradients = [p.grad for p in method.parameters() if p.grad is not None]
    assert gradients
    assert all(g.isfinite().all() for g in gradients)


@trained
def test_twenty_steps_on_a_fixed_batch_lower_the_loss(name):
    queue = {"queue": 16} if "queue" in METHODS[name].hyperparameters.model_fields else {}
    method = build(cell_of(name, **queue), COUNTS).train()
    optimizer = torch.optim.SGD(method.param_groups(), lr=RATES.get(name, 0.02), momentum=0.9)
    batch = batch_for(method, [0, 4, 4, 8, 8, 2, 6, 1] * 2, 16)
    clock = Clock(0, 10, 0, 200)  # held: what changes with time must not hide what the steps do
    method.before_epoch(clock)
    losses = [step(method, optimizer, batch, clock) for _ in range(20)]
    assert min(losses[-3:]) < max(losses[:2])  # the first step fills the queue, which makes the task harder


@every
def test_state_round_trip(name, tmp_path):
    method = build(cell_of(name), COUNTS).train()
    if method.trains:
        clock = Clock(0, 10, 0, 10)
        method.before_epoch(clock)
        step(
            method, torch.optim.SGD(method.param_groups(), lr=0.1), batch_for(method, [0, 4, 8, 4], 16), clock
        )
    checksum = write_weights(tmp_path / "weights.safetensors", method)
    copy = build(cell_of(name), COUNTS)
    read_weights(tmp_path / "weights.safetensors", copy, checksum)
    images = torch.randn(4, 3, 16, 16)
    with torch.inference_mode():
        assert torch.equal(method.eval()(images), copy.eval()(images))


@trained
def test_same_seed_same_steps_even_from_a_checkpoint(name, tmp_path):
    def run(resume_after: int | None) -> list[float]:
        method = build(cell_of(name), COUNTS)
        optimizer = torch.optim.SGD(method.param_groups(), lr=0.05, momentum=0.9)
        losses = []
        for epoch in range(4):
            if epoch == resume_after:
                state, momentum = method.state_dict(), optimizer.state_dict()
                method = build(cell_of(name), COUNTS)
                method.load_state_dict(state)
                optimizer = torch.optim.SGD(method.param_groups(), lr=0.05, momentum=0.9)
                optimizer.load_state_dict(momentum)
            clock = Clock(epoch, 4, epoch, 4)
            method.train()
            method.before_epoch(clock)
            losses.append(step(method, optimizer, batch_for(method, [0, 4, 8, 4, 2, 2], 16, epoch), clock))
        return losses

    straight = run(None)
    assert run(None) == straight
    assert run(2) == straight
