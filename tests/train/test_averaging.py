"""Averaged weights, clipped gradients and smoothed labels: options of the protocol that any run may take."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from fast_runs import make_cell, training, weights
from golden_values import check, golden
from small_runs import make_cell as cell_of
from small_runs import run

from bench.cell import Averaging, Optimizer, Protocol
from bench.errors import BenchError
from bench.method import Clock
from bench.rundir import RunDir, equal
from bench.train.averaging import Average
from methods.parts.weights import weighted_cross_entropy

torch.set_num_threads(1)


def with_protocol(cell, **changes):
    return cell.model_copy(update={"protocol": cell.protocol.model_copy(update=changes)})


def test_options_left_out_leave_the_id():
    assert Protocol().identity() == {}
    assert Optimizer().identity() == {}
    assert "averaging" in Protocol(averaging=Averaging(kind="swa")).identity()


def test_swa_is_the_mean_of_the_last_epochs(split, tmp_path):
    method = training(make_cell(), split, tmp_path).method
    average = Average(method, Averaging(kind="swa", start=0.5))
    seen = []
    for epoch in range(4):
        with torch.no_grad():
            for p in method.parameters():
                p.add_(epoch + 1.0)
        average.after_step()
        average.after_epoch(Clock(epoch, 4, epoch, 4))
        seen.append([p.detach().clone() for p in method.parameters()])
    for mean, *values in zip(average.means.values(), *seen[2:], strict=True):
        torch.testing.assert_close(mean, torch.stack(values).mean(0))


def test_ema_follows_each_step_and_forgets_where_it_began(split, tmp_path):
    method = training(make_cell(), split, tmp_path).method
    average = Average(method, Averaging(kind="ema", decay=0.5))
    name, parameter = next(iter(method.named_parameters()))
    expected = parameter.detach().clone()
    for step in range(5):
        with torch.no_grad():
            parameter.add_(1.0)
        average.after_step()
        expected.lerp_(parameter.detach(), 1 - min(0.5, (1 + step) / (10 + step)))
    torch.testing.assert_close(average.means[name], expected)


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_averaged_weights_are_scored_beside_the_last(kind, tmp_path):
    plain = cell_of(epochs=4)
    cell = with_protocol(plain, averaging=Averaging(kind=kind, decay=0.9, start=0.5))
    meta, without = run(cell, tmp_path, tmp_path), run(plain, tmp_path, tmp_path)
    assert meta["status"] == "done", meta["traceback"]
    assert meta["averaged"]["kind"] == kind
    assert meta["averaged"]["accuracy"] > 20
    assert meta["metrics"] == without["metrics"]
    assert "averaged" not in without
    assert meta["files"].keys() - without["files"].keys() == {"averaged.npz"}
    assert RunDir(tmp_path, cell.run_id).averaged.is_file()
    weights_of = {record["files"]["weights.safetensors"] for record in (meta, without)}
    assert len(weights_of) == 1  # the averaged ones are put away again


def test_a_resumed_run_has_the_same_average(tmp_path):
    cell = with_protocol(cell_of(epochs=4), averaging=Averaging(kind="swa", start=0.25))

    def stop(line):
        if line["epoch"] == 2:
            raise KeyboardInterrupt

    straight = run(cell, tmp_path / "a", tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(cell, tmp_path / "b", tmp_path, report=stop, checkpoint_seconds=0)
    assert equal(straight, run(cell, tmp_path / "b", tmp_path))


def test_the_whole_gradient_is_clipped(split, tmp_path):
    tiny = 1e-3
    run = training(make_cell(optimizer=Optimizer(lr=1.0, momentum=0.0, clip=tiny)), split, tmp_path)
    before = weights(run)
    batch = next(iter(run.loader.epoch(0, 1, "shuffle", {})))
    for group in run.optimizer.param_groups:
        group["weight_decay"], group["lr"] = 0.0, 1.0
    run._learn(batch, 1)
    assert (weights(run) - before).norm() == pytest.approx(tiny, rel=1e-3)


@pytest.mark.parametrize("name", ["ce", "balanced_softmax", "ce_drw"])
def test_labels_are_smoothed(name, split, tmp_path):
    run = training(make_cell(name, label_smoothing=0.1), split, tmp_path)
    batch = next(iter(run.loader.epoch(0, 1, "shuffle", {})))
    run.method.eval()
    outputs = run.method.head(run.method.backbone(batch.images))
    if name == "balanced_softmax":
        outputs = outputs + run.method.log_prior
    expected = F.cross_entropy(outputs, batch.labels, label_smoothing=0.1)
    torch.testing.assert_close(run.method.loss(batch), expected)


@pytest.mark.parametrize("name", ["ldam", "focal", "ncl", "supcon_pretrain"])
def test_who_knows_no_smoothed_labels_says_so(name, split, tmp_path):
    with pytest.raises(BenchError, match=r"takes no smoothed labels; leave protocol.label_smoothing out"):
        training(make_cell(name, label_smoothing=0.1), split, tmp_path)


def test_over_smoothed_labels():
    g, meta = golden("los_C10")
    check(
        lambda z: weighted_cross_entropy(
            z, g["labels"], torch.ones(10).double(), smoothing=meta["label_smooth"]
        ),
        g["logits"],
        g["loss"],
        g["grad_logits"],
        rtol=1e-9,
        grad_rtol=1e-9,
    )
