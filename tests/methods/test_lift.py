"""LIFT: what is frozen, where the adapters sit, how the classifier starts, and how a test image is scored."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_vit import COUNTS, batch_of, make, tiny

from bench import backbones
from bench.errors import BenchError
from bench.method import Batch
from methods.lift import AdaptFormer, adapter_rank, enlarge, five_crops


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("classes", "blocks", "rank"), [(100, 12, 4), (1000, 12, 32), (8142, 12, 256), (10, 12, 1), (365, 24, 4)]
)
def test_the_rank_follows_the_number_of_classes(classes, blocks, rank):
    assert adapter_rank(classes, blocks) == rank


def test_adapters_change_nothing_at_first():
    plain, method = tiny().eval(), make().eval()
    frozen = {name: p for name, p in method.backbone.named_parameters() if ".adapter." not in name}
    plain.load_state_dict({name.replace(".block.", "."): p for name, p in frozen.items()})
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(method.backbone(images), plain(images))


def test_an_adapter_reads_what_the_mlp_reads_before_its_norm():
    method = make().eval()
    block = method.backbone.stages["all"].model.blocks[0]
    torch.nn.init.normal_(block.adapter.up.weight)
    tokens = torch.randn(2, 5, 48)
    inner = block.block
    attended = tokens + inner.attn(inner.norm1(tokens))
    torch.testing.assert_close(block(tokens), inner(tokens) + block.adapter(attended))


def test_only_adapters_and_head_learn():
    method = make(counts=np.arange(1, 65)).train()  # so many that an adapter has 16 units
    learning = {id(p) for group in method.param_groups() for p in group["params"]}
    adapters = [m for m in method.modules() if isinstance(m, AdaptFormer)]
    assert len(adapters) == 2
    expected = [p for m in adapters for p in m.parameters()] + list(method.head.parameters())
    assert learning == {id(p) for p in expected}
    assert not any(m.training for m in method.backbone.modules())
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.1)
    before = {name: p.clone() for name, p in method.named_parameters()}
    for _ in range(2):  # the way down learns once the way up is not 0
        optimizer.zero_grad()
        method.loss(batch_of([0, 1, 2, 2])).backward()
        optimizer.step()
    for name, p in method.named_parameters():
        assert torch.equal(p, before[name]) != (".adapter." in name or name.startswith("head."))


def test_class_vectors_start_at_the_class_means():
    method = make()
    start = method.head.weight.clone()
    batches = [batch_of([0, 2, 2]), batch_of([2, 0, 3])]
    method.before_training((b.images, b.labels) for b in batches)
    features = torch.cat([method.backbone(b.images) for b in batches])
    labels = torch.cat([b.labels for b in batches])
    for c in (0, 2, 3):
        mean = F.normalize(features[labels == c].mean(dim=0), dim=0)
        torch.testing.assert_close(method.head.weight[c], mean)
    assert torch.equal(method.head.weight[1], start[1])  # a class without images keeps its direction


def test_a_random_start_reads_no_images():
    method = make(head_start="random")
    start = method.head.weight.clone()
    method.before_training(iter(()))
    assert torch.equal(method.head.weight, start)


def test_small_images_are_enlarged_to_the_input_size():
    method, images = make().eval(), torch.randn(2, 3, 16, 16)
    labels = torch.tensor([0, 1])
    small, large = (Batch((x,), labels, labels) for x in (images, enlarge(images, 32)))
    torch.testing.assert_close(method.loss(small), method.loss(large))
    assert method(images).shape == (2, len(COUNTS))
    flat = torch.full((1, 3, 16, 16), 0.5)
    torch.testing.assert_close(enlarge(flat, 32), torch.full((1, 3, 32, 32), 0.5))
    assert enlarge(images, 16) is images


def test_the_test_time_ensemble_averages_five_crops():
    method = make("lift_tte", expand=4).eval()
    plain = make(expand=0).eval()
    plain.load_state_dict(method.state_dict())
    images = torch.randn(2, 3, 32, 32)
    large = enlarge(images, 36)
    places = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]
    crops = [large[:, :, y : y + 32, x : x + 32] for y, x in places]
    torch.testing.assert_close(method(images), torch.stack([plain(crop) for crop in crops]).mean(0))
    assert all(torch.equal(a, b) for a, b in zip(five_crops(large, 32), crops, strict=True))
    assert not torch.allclose(method(images), plain(images))


def test_other_backbones_are_refused():
    for name in ("resnet8_cifar", "swin_tiny_patch4_window7_224"):
        with pytest.raises(BenchError, match="choose a backbone vit_"):
            make(backbone=partial(backbones.create, name))
