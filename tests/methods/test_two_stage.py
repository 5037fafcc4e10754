"""Two-stage methods: what they take of a parent, what they train, what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from method_cells import COUNTS, batch_for, cell_of, step
from small_runs import make_cell, run

from bench.data.split.load import load
from bench.errors import BenchError
from bench.method import Clock
from bench.registry import find
from bench.rundir import RunDir
from bench.train.build import build
from bench.train.evaluate import evaluate_run
from bench.train.run import load_trained
from methods.mislas import label_aware_smoothing
from methods.weight_balancing import binary_class_balanced_loss, within_norm

TRAINED = {
    "crt": {"head.weight", "head.bias"},
    "lws": {"head.scales"},
    "mislas": {"head.scales", "head.linear.weight", "head.linear.bias"},
    "disalign": {"head.scales", "head.shifts", "head.confidence.weight", "head.confidence.bias"},
    "weight_balancing": {"head.weight", "head.bias"},
}
SECOND_STAGES = [*TRAINED, "tau_norm", "ncm"]
BATCH = [0, 4, 4, 8, 8, 2, 6, 1]


def child_of(parent_name, name, **params):
    """A child and its parent, whose weights are not those that the child would have by itself."""
    cell = cell_of(name, **params).model_copy(update={"parent": cell_of(parent_name)})
    parent = build(cell.parent, COUNTS).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in parent.parameters():
        parameter.data *= 0.7 + 0.1 * torch.randn(parameter.shape, generator=generator)
    return build(cell, COUNTS, lambda _, built: built.load_state_dict(parent.state_dict())), parent


def train_a_step(method):
    clock = Clock(0, 10, 0, 10)
    method.train()
    method.before_epoch(clock)
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.5)
    step(method, optimizer, batch_for(method, BATCH, 16), clock)


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("batch_norm", ["train", "eval"])
def test_a_step_changes_only_what_the_stage_trains(name, batch_norm):
    method, _ = child_of("ce", name, batch_norm=batch_norm)
    before = {key: tensor.clone() for key, tensor in method.state_dict().items()}
    train_a_step(method)
    changed = {key for key, tensor in method.state_dict().items() if not torch.equal(tensor, before[key])}
    statistics = {key for key in changed if key.startswith("backbone.")}
    assert all("running_" in key or "num_batches" in key for key in statistics)
    assert bool(statistics) == (batch_norm == "train")
    assert changed - statistics - {"class_weights.now"} == TRAINED[name]


@pytest.mark.parametrize("name", ["lws", "mislas", "weight_balancing"])
def test_an_untrained_stage_scores_as_its_parent(name):
    method, parent = child_of("ce", name)
    images = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(method.eval()(images), parent(images))


def test_untrained_disalign_scales_all_scores_of_an_image_alike():
    method, parent = child_of("ce", "disalign")
    images = torch.randn(4, 3, 16, 16)
    ratio = (method.eval()(images) / parent(images)).detach()
    assert ((ratio > 1) & (ratio < 2)).all()
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))


def test_crt_starts_with_a_new_classifier():
    method, parent = child_of("ce", "crt")
    assert not torch.equal(method.head.weight, parent.head.weight)
    features = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(method.eval().backbone(features), parent.backbone(features))


def test_tau_norm_at_0_drops_the_bias_and_at_1_the_lengths():
    method, parent = child_of("ce", "tau_norm", tau=0.0)
    assert torch.equal(method.head.weight, parent.head.weight)
    assert method.head.bias is None
    method, parent = child_of("ce", "tau_norm", tau=1.0)
    torch.testing.assert_close(method.head.weight.norm(dim=1), torch.ones(10))


def test_mislas_has_two_rates():
    method, _ = child_of("mislas_stage_1", "mislas", lr_factor=0.25)
    groups = method.param_groups()
    assert [group.get("lr_factor", 1.0) for group in groups] == [0.25, 1.0]
    assert [sum(p.numel() for p in group["params"]) for group in groups] == [64 * 10 + 10, 10]


def test_smoothing_of_equal_counts_is_the_tails():
    smoothing = label_aware_smoothing(torch.tensor([7, 7, 7]), 0.4, 0.1, "concave")
    torch.testing.assert_close(smoothing, torch.full((3,), 0.1))


def test_weight_balancing_keeps_the_parents_limit():
    method, parent = child_of("ce", "weight_balancing", limit=0.1)
    norms = parent.head.weight.norm(dim=1)
    limit = norms.min() + 0.1 * (norms.max() - norms.min())
    assert (norms > limit * 1.01).any()
    for _ in range(2):
        train_a_step(method)
        assert (method.head.weight.norm(dim=1) <= limit * 1.0001).all()
    assert torch.equal(method.max_norm, limit.detach())


def test_shortening_leaves_short_and_empty_rows():
    weight = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    expected = torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]])
    torch.testing.assert_close(within_norm(weight, torch.tensor(1.0)), expected)


def test_binary_loss_of_certain_mistakes_has_finite_gradients():
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    loss = binary_class_balanced_loss(logits, torch.tensor([1]), torch.ones(2))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_ncm_scores_by_distance_and_puts_absent_classes_last():
    method, _ = child_of("ce", "ncm")
    rng = np.random.default_rng(0)
    labels = torch.tensor([0, 0, 2, 2, 9, 9])
    tone = torch.linspace(-1, 1, 10)[labels].view(-1, 1, 1, 1)
    images = tone + torch.from_numpy(rng.normal(0, 0.1, (6, 3, 16, 16))).float()
    method.before_training(iter([(images[:4], labels[:4]), (images[4:], labels[4:])]))
    with torch.no_grad():
        scores = method.eval()(images)
        features = method.backbone(images)
    assert torch.equal(scores.argmax(dim=1), labels)
    absent = [c for c in range(10) if c not in labels]
    assert scores[:, absent].eq(-4).all()
    assert (scores[:, [0, 2, 9]] > -4).all()
    units = torch.nn.functional.normalize(features - features.mean(dim=0))
    expected = -(units[0] - units[:2].mean(dim=0)).square().sum()
    torch.testing.assert_close(scores[0, 0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SECOND_STAGES)
def test_a_parent_of_several_experts_is_refused(name):
    with pytest.raises(BenchError, match=r"backbone of RIDE is not the one|no single backbone"):
        child_of("ride", name)


@pytest.mark.parametrize("name", sorted(set(SECOND_STAGES) - {"crt", "ncm"}))
def test_a_cosine_classifier_is_refused(name):
    with pytest.raises(BenchError, match="LDAM has no linear classifier"):
        child_of("ldam", name)


@pytest.mark.parametrize("name", ["crt", "ncm"])
def test_a_backbone_is_enough_where_the_classifier_is_new(name):
    child_of("ldam", name)


@pytest.mark.parametrize("name", SECOND_STAGES)
def test_every_second_stage_needs_a_parent(name):
    entry = find(name)
    assert entry.build.needs_parent
    assert find(entry.build.usual_parent).build.trains


def accuracy_by_class_means(results: Path, data: Path, cell) -> float:
    """Percent correct on the test set by class means, worked out from the parent's weights alone."""
    split = load(cell.dataset, cell.imbalance_factor, data)
    parent = build(cell.parent, split.class_counts)
    load_trained(results, cell.parent, parent)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (cell.dataset.mean, cell.dataset.std))

    def features(images):
        with torch.no_grad():
            rows = (images.float() / 255 - mean) / std
            return parent.eval().backbone(rows).double().numpy()

    train, test = features(split.images[split.positions]), features(split.test_images)
    centre = train.mean(axis=0)
    train, test = ((x - centre) / np.linalg.norm(x - centre, axis=1, keepdims=True) for x in (train, test))
    means = np.stack([train[split.labels == c].mean(axis=0) for c in range(10)])
    nearest = ((test[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    return 100 * float((nearest == split.test_labels).mean())


def test_runs_from_parent_to_record(tmp_path):
    parent = make_cell("ce", epochs=2)
    run(parent, tmp_path, tmp_path)
    child = make_cell("ncm", parent)
    record = run(child, tmp_path, tmp_path)
    assert record["status"] == "done", record["traceback"]
    assert record["metrics"]["epoch"] is None
    assert record["method"]["scores"] == "distances"
    expected = accuracy_by_class_means(tmp_path, tmp_path, child)
    assert record["metrics"]["accuracy"] == pytest.approx(expected, abs=0.5)  # scores are half precision
    scored_again = evaluate_run(RunDir(tmp_path, child.run_id), tmp_path)
    assert scored_again["per_class"] == record["metrics"]["per_class"]
    for name in ("tau_norm", "lws", "weight_balancing", "disalign"):
        record = run(make_cell(name, parent, epochs=1), tmp_path, tmp_path)
        assert record["status"] == "done", record["traceback"]


def test_mislas_runs_its_two_stages(tmp_path):
    parent = make_cell("mislas_stage_1", epochs=1)
    for cell in (parent, make_cell("mislas", parent, epochs=1)):
        record = run(cell, tmp_path, tmp_path)
        assert record["status"] == "done", record["traceback"]
