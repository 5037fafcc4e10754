"""RSG's module against values of the survey codebase's own."""

from __future__ import annotations

import pytest
import torch
from golden_values import golden

from methods.rsg import Generator, head_tail_pairs

NAMES = {
    "linear": "gate_weight",
    "bias": "gate_bias",
    "centers": "centers",
    "vec_transformation_module.0.weight": "transform.weight",
    "vec_transformation_module.0.bias": "transform.bias",
    "contrastive_module.0.weight": "contrast.0.weight",
    "contrastive_module.0.bias": "contrast.0.bias",
    "contrastive_module.2.weight": "contrast.2.weight",
    "contrastive_module.2.bias": "contrast.2.bias",
    "contrastive_fc.weight": "contrast.5.weight",
    "contrastive_fc.bias": "contrast.5.bias",
}


@pytest.mark.parametrize("epoch", [100, 101])
def test_rsg_module(epoch):
    g, settings = golden("classic_rsg_module_c10")
    module = Generator(10, 8, settings["n_center"], settings["contrastive_module_dim"])
    module.load_state_dict({ours: g[f"param_{theirs}"] for theirs, ours in NAMES.items()})
    generating = epoch > settings["epoch_thresh"]
    module.contrast.requires_grad_(not generating)
    is_head = torch.zeros(10, dtype=torch.bool)
    is_head[settings["head_classes"]] = True
    maps = g["in_feature_maps"].clone().requires_grad_()

    rows = is_head[g["in_labels"]]
    pairs = head_tail_pairs(rows, settings["transfer_strength"]) if generating else None
    enlarged, labels, cesc, mv = module(maps, g["in_labels"], pairs)
    torch.testing.assert_close(enlarged.detach(), g[f"out_features_epoch{epoch}"], rtol=1e-4, atol=1e-5)
    assert torch.equal(labels, g[f"out_labels_epoch{epoch}"])
    torch.testing.assert_close(cesc.detach(), g[f"out_cesc_epoch{epoch}"].float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mv.detach(), g[f"out_mv_epoch{epoch}"].float(), rtol=1e-4, atol=1e-5)

    (0.01 * enlarged.sum() + 0.1 * cesc + 0.01 * mv).backward()
    torch.testing.assert_close(maps.grad, g[f"out_grad_feature_maps_epoch{epoch}"], rtol=1e-3, atol=1e-6)
    parameters = dict(module.named_parameters())
    compared = 0
    for theirs, ours in NAMES.items():
        expected = g.get(f"out_grad_{theirs}_epoch{epoch}")
        if expected is None:
            continue
        grad = parameters[ours].grad
        grad = torch.zeros_like(expected) if grad is None else grad
        torch.testing.assert_close(grad, expected, rtol=1e-3, atol=1e-5)
        compared += 1
    assert compared >= 5


@pytest.mark.parametrize(
    ("heads", "tails", "generated"), [(8, 4, 8), (9, 4, 8), (4, 9, 8), (3, 3, 3), (0, 5, 0), (5, 0, 0)]
)
def test_the_smaller_group_meets_blocks_of_the_larger(heads, tails, generated):
    is_head = torch.arange(heads + tails) < heads
    pairs = head_tail_pairs(is_head, strength=1.0)
    assert sum(len(t) for _, t in pairs) == generated
    assert all(len(h) == len(t) and not is_head[t].any() and is_head[h].all() for h, t in pairs)
