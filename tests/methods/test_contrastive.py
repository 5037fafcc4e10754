"""What the contrastive losses and their memories must do, beside equalling the authors' values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench import backbones
from bench.method import Batch
from methods.bccl import ClassQueue, centroid_loss
from methods.bcl import balanced_contrast_loss
from methods.cgm_gcll import class_mixture_loss, graph_contrast_loss
from methods.gml import GML, class_slots, distillation_loss, mixture_contrast_loss
from methods.ldam import LDAM
from methods.parts.contrast import inner_products
from methods.parts.kmeans import kmeans
from methods.parts.prototypes import RunningPrototypes
from methods.supcon import supcon_loss


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double(), dim=-1)


@pytest.fixture
def scene():
    """Features (12, D), labels (12,), prototypes (6, D), log prior (6,); class 5 is absent."""
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 3, 4, 0, 1, 2, 4])
    prior = torch.tensor([50.0, 20, 9, 5, 3, 1]).double()
    return unit(12, 8), labels, unit(6, 8, seed=1), (prior / prior.sum()).log()


def shuffled(scene):
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    features, labels, prototypes, prior = scene
    return features[order], labels[order], prototypes, prior


LOSSES = {
    "bcl": lambda f, y, p, prior: balanced_contrast_loss(f, y, p, 0.1),
    "mixture": lambda f, y, p, prior: class_mixture_loss(f, y, p, prior, 0.1),
    "graph": lambda f, y, p, prior: graph_contrast_loss(
        torch.cat([f, p]), torch.ones(18, dtype=torch.bool), 4, 0.1, 0.1
    ),
    "supcon": lambda f, y, p, prior: supcon_loss(f[None], y, 0.1, 0.1),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_order_of_a_batch_does_not_matter(name, scene):
    torch.testing.assert_close(LOSSES[name](*scene), LOSSES[name](*shuffled(scene)))


def gml_loss(features, labels, keys, prior, temperature=0.1, same_image=-1):
    """Two keys for each class; the last class's are of the image `same_image`."""
    key_labels, images = torch.arange(6).repeat(2), torch.arange(12) + 100
    images[key_labels == 5] = same_image
    log_t = torch.as_tensor(temperature).log()
    cosines = inner_products(features, torch.cat([keys, keys.flip(1)]))
    other_image = torch.arange(len(labels))[:, None] != images
    return mixture_contrast_loss(cosines, labels, key_labels, other_image, log_t, prior)


PRECISE = LOSSES | {
    "gml": gml_loss,
    "centroids": lambda f, y, p, prior: centroid_loss(f, y, p[:, None].repeat(1, 3, 1)),
}


@pytest.mark.parametrize("name", PRECISE)
def test_similarities_are_not_rounded_by_autocast(name, scene):
    features, labels, prototypes, prior = (t.float() if t.is_floating_point() else t for t in scene)
    plain = PRECISE[name](features, labels, prototypes, prior)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(PRECISE[name](features, labels, prototypes, prior), plain)


def test_gml_does_not_ask_how_near_an_image_is_to_itself(scene):
    features, _, keys, prior = scene
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 3, 4, 0, 1, 2, 5])  # the last image is its class's only one
    slopes = []
    for count in (11, 12):
        t = torch.tensor(0.1, requires_grad=True, dtype=torch.float64)
        gml_loss(features[:count], labels[:count], keys, prior, t, same_image=11).backward()
        slopes.append(t.grad)
    torch.testing.assert_close(slopes[1], slopes[0])  # the temperature learns nothing from it


def test_gml_classifies_one_view_queries_with_another_and_keeps_the_third():
    def make(**options):
        return backbones.create("resnet8_cifar", **options)

    counts, labels = np.array([40, 9, 2]), torch.tensor([0, 0, 1, 2])
    method = GML(make, counts, queue=20)
    method.start_from(LDAM(make, counts))
    views = tuple(torch.randn(4, 3, 16, 16, requires_grad=True) for _ in range(3))
    batch = Batch(views, labels, torch.arange(4))
    method.train().loss(batch).backward()
    assert all(view.grad.abs().sum() > 0 for view in views[:2])
    assert views[2].grad is None  # the teacher's
    held = method.key_index >= 0
    expected = method.teacher_backbone(views[2]).detach()[method.key_index[held]]
    torch.testing.assert_close(method.keys[held], expected)
    assert method.key_index[held].sort().values.tolist() == [0, 1, 2, 3]

    method.contrast_weight = 0.0
    logits = method.head(method.backbone(torch.cat(views[:2])))[:4]
    taught = method.teacher_head(method.teacher_backbone(views[0]))
    expected = F.cross_entropy(logits + method.log_prior, labels) + distillation_loss(logits, taught, 4.0)
    torch.testing.assert_close(method.loss(batch), expected)


@pytest.mark.parametrize("name", ["bcl", "mixture", "supcon"])  # the graph's edges carry no gradient
def test_gradients_are_those_of_the_value(name, scene):
    features, labels, prototypes, prior = scene
    features = features.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda f: LOSSES[name](f, labels, prototypes, prior), (features,))


def test_with_one_component_per_class_the_mixture_is_cross_entropy_over_prototypes(scene):
    _, _, prototypes, prior = scene
    features, labels = unit(3, 8, seed=5), torch.tensor([0, 1, 2])
    mixture = class_mixture_loss(features[:1], labels[:1], prototypes, prior, 0.1)
    plain = F.cross_entropy(features[:1] @ prototypes.T / 0.1 + prior, labels[:1])
    torch.testing.assert_close(mixture, plain)


def test_a_graph_without_neighbours_costs_nothing(scene):
    features, _, prototypes, _ = scene
    nodes = torch.cat([features, prototypes])
    everyone, nobody = torch.ones(18, dtype=torch.bool), torch.zeros(18, dtype=torch.bool)
    assert graph_contrast_loss(nodes, everyone, 0, 0.1, 0.1) == 0
    assert graph_contrast_loss(nodes, nobody, 4, 0.1, 0.1) == 0
    assert graph_contrast_loss(nodes, everyone, 4, 0.1, 0.1) > 0


def test_an_unreliable_node_is_nobodys_neighbour():
    close = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0]]).double())
    kept = graph_contrast_loss(close, torch.tensor([True, True, True]), 1, 0.1, 0.1)
    hidden = graph_contrast_loss(close, torch.tensor([True, False, True]), 1, 0.1, 0.1)
    assert hidden > kept  # the nearest is gone, and the far one is joined instead


def test_kmeans_finds_the_groups_of_several_sets_at_once():
    points = torch.zeros(2, 6, 2)
    points[0, :3, 0], points[0, 3:, 0] = 1.0, 5.0
    points[1, :2, 1], points[1, 2:, 1] = -1.0, 3.0
    valid = torch.ones(2, 6, dtype=torch.bool)
    valid[1, 4:] = False
    points[1, 4:] = 100.0  # not valid, so it must not pull
    start = points[:, [0, 3]] + 0.1
    centers, labels = kmeans(points, valid, start)
    torch.testing.assert_close(centers[0], torch.tensor([[1.0, 0.0], [5.0, 0.0]]))
    torch.testing.assert_close(centers[1], torch.tensor([[0.0, -1.0], [0.0, 3.0]]))
    assert labels[0].tolist() == [0, 0, 0, 1, 1, 1]


def test_a_queue_gives_distinct_rows_and_zeros_where_it_has_too_few():
    queue = ClassQueue(2, 4, 3)
    queue.add(torch.eye(3), torch.tensor([0, 0, 1]))
    picked = queue.pick(torch.tensor([0.3, 0.9, 0.1, 0.2]), 2)
    assert {tuple(row) for row in picked[0].tolist()} == {(1, 0, 0), (0, 1, 0)}
    assert picked[1].tolist() == [[0, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize(("total", "base"), [(4096, 2), (64, 3), (10, 3)])
def test_slots_follow_the_counts_and_leave_nobody_out(total, base):
    counts = torch.tensor([5, 500, 3, 60, 1])
    slots = class_slots(counts, total, base)
    assert slots.sum() == max(total, 5 * base)
    assert (slots >= base).all()
    assert slots[1] == slots.max()


def test_running_prototypes_leave_absent_classes_where_they_were():
    prototypes = RunningPrototypes(3, 2)
    prototypes.follow(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0, 2]))
    cosines = prototypes.cosines(torch.tensor([[1.0, 0.0]]))
    assert cosines.tolist() == [[1.0, 0.0, 0.0]]
