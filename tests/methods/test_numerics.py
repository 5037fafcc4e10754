"""No method dies of a batch of one image, of equal images, or of scores that lie far apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from method_cells import COUNTS, IMAGENET_STYLE, METHODS, batch_for, cell_of
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.method import Batch, Clock, Method
from bench.train.build import build
from bench.train.run import run_cell
from methods.ncl import collaborative_loss
from methods.shike import shike_loss

FAR = 1e4
TRAINED = [name for name, entry in METHODS.items() if entry.build.trains]
#: Hyper-parameters that drive scores apart, of methods whose classifier is no layer of its own.
SCALES = {"scale": FAR, "temperature": 1 / FAR}
#: Methods whose loss sees no logits, or products of unit vectors alone.
BOUNDED = {"etf_dr", "livt_pretrain"}


def equal_images(batch: Batch) -> Batch:
    views = tuple(torch.full_like(view, 0.3) for view in batch.views)
    return Batch(views, batch.labels, batch.positions, batch.draws, batch.extra)


def drive_apart(method: Method) -> list[int]:
    """Let the scores of each classifier differ by `FAR`; return what gets an element whenever one did."""
    seen: list[int] = []

    def scaled(layer: nn.Module, inputs: Any, scores: Any) -> Any:
        if not isinstance(scores, Tensor) or scores.dim() < 2 or scores.shape[-1] != method.num_classes:
            return None
        seen.append(1)
        values = scores.detach().float()
        return scores * (FAR / (values.amax(-1) - values.amin(-1)).amax().clamp(min=1e-3)).to(scores.dtype)

    for layer in method.modules():
        own = list(layer.parameters(recurse=False))
        if own and not list(layer.children()) and not isinstance(layer, _BatchNorm):
            layer.register_forward_hook(scaled)
    return seen


def survives(method: Method, labels: list[int], bfloat16: bool, equal: bool = False) -> None:
    """Make the first two steps of the first and of the last epoch; all has to be finite."""
    method.train()
    for epoch in (0, 9):
        clock = Clock(epoch, 10, epoch, 10)
        method.before_epoch(clock)
        for seed in range(2):
            batch = batch_for(method, labels, 16, seed)
            batch = equal_images(batch) if equal else batch
            method.before_step(clock, batch)
            method.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                loss = method.loss(batch)
            loss.backward()
            assert loss.isfinite()
            named = [(name, p.grad) for name, p in method.named_parameters() if p.grad is not None]
            assert not [name for name, gradient in named if not gradient.isfinite().all()]
            method.after_step(clock, batch)


every = pytest.mark.parametrize("name", TRAINED)
precision = pytest.mark.parametrize("bfloat16", [False, True], ids=["float32", "bfloat16"])


@every
@precision
def test_a_batch_of_one_image(name: str, bfloat16: bool) -> None:
    survives(build(cell_of(name), COUNTS), [4], bfloat16)


@every
@precision
def test_equal_images(name: str, bfloat16: bool) -> None:
    survives(build(cell_of(name), COUNTS), [4, 4, 8, 8, 2, 2], bfloat16, equal=True)


@every
@precision
def test_scores_that_lie_far_apart(name: str, bfloat16: bool) -> None:
    known = METHODS[name].hyperparameters.model_fields
    method = build(cell_of(name), COUNTS)
    seen = drive_apart(method)
    survives(method, [4, 4, 8, 8, 2, 1], bfloat16)
    scales = {key: value for key, value in SCALES.items() if key in known and known[key].default is not None}
    assert seen or scales or name in BOUNDED
    if scales:
        survives(build(cell_of(name, **scales), COUNTS), [4, 4, 8, 8, 2, 1], bfloat16)


def test_one_image_whose_last_map_is_one_pixel_takes_the_running_statistics() -> None:
    method = build(cell_of("ce", IMAGENET_STYLE[0]), COUNTS).train()
    layers = {name: module for name, module in method.named_modules() if isinstance(module, _BatchNorm)}
    before = {name: layer.running_mean.clone() for name, layer in layers.items()}  # type: ignore[union-attr]
    method.loss(batch_for(method, [4], 32)).backward()
    still = {name for name, layer in layers.items() if torch.equal(layer.running_mean, before[name])}  # type: ignore[arg-type]
    assert any("layer4" in name for name in still)
    assert not any("layer1" in name for name in still), "a map of many pixels has statistics"
    assert all(layer.training for layer in layers.values())


@pytest.mark.parametrize("name", ["gml", "paco"])
def test_a_run_whose_last_batch_is_one_image(name: str, tmp_path: Any) -> None:
    from bench.cell import Protocol
    from bench.data.sets.catalogue import DATASETS
    from bench.data.split.load import load
    from bench.rundir import RunDir

    cell = cell_of(name, epochs=1).model_copy(
        update={"dataset": DATASETS["digits"], "imbalance_factor": 20.0}
    )
    images = len(load(cell.dataset, 20.0, tmp_path).labels)
    size = next(size for size in range(90, images) if images % size == 1)
    protocol = Protocol(epochs=1, batch_size=size)
    parent = None
    if cell.parent is not None:
        parent = cell.parent.model_copy(
            update={"dataset": cell.dataset, "imbalance_factor": 20.0, "protocol": protocol}
        )
        run_cell(parent, tmp_path, tmp_path)
    cell = cell.model_copy(update={"protocol": protocol, "parent": parent})
    run_cell(cell, tmp_path, tmp_path)
    record = RunDir(tmp_path, cell.run_id).read_record()
    assert (record["status"], record["reason"]) == ("done", None)


@pytest.mark.parametrize("loss", [collaborative_loss, shike_loss])
@pytest.mark.parametrize("gap", [100.0, 300.0, FAR])
def test_the_gradient_of_a_divergence_where_a_probability_is_0(loss: Any, gap: float) -> None:
    """Against double precision, in which a gap of 300 does not underflow yet."""
    logits = torch.zeros(2, 1, 4)
    logits[0, 0, 1], logits[1, 0, 2] = gap, gap / 2
    found = logits.clone().requires_grad_()
    loss(found, torch.tensor([1]), 0.6).backward()
    expected = logits.double().requires_grad_()
    loss(expected, torch.tensor([1]), 0.6).backward()
    assert found.grad is not None
    assert expected.grad is not None
    assert found.grad.isfinite().all()
    torch.testing.assert_close(found.grad.double(), expected.grad, rtol=1e-3, atol=1e-3)
