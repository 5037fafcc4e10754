"""LiVT's two stages: masked auto-encoding, then fine-tuning at rates that fall from block to block."""

from __future__ import annotations

import pytest
import torch
from method_cells import COUNTS, batch_for, cell_of

from bench.errors import BenchError
from bench.train.build import build
from methods.lift import enlarge
from methods.livt import masked_error, normal_patches, picked

torch.set_num_threads(1)

LABELS = [0, 4, 8, 2]


def test_patches_are_those_of_the_image_and_normal():
    images = torch.zeros(1, 3, 4, 4)
    images[0, :, 2:, :2] = torch.tensor([[1.0, 3.0], [5.0, 7.0]])
    patches = normal_patches(images, 2)
    assert patches.shape == (1, 4, 12)
    flat, third = patches[0, [0, 1, 3]], patches[0, 2]
    assert not flat.any()
    torch.testing.assert_close(third.mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(third.var(), torch.tensor(1.0), atol=1e-5, rtol=0)
    assert third[:4].diff().gt(0).all()


def test_only_hidden_patches_are_in_the_error():
    filled, patches = torch.zeros(1, 3, 2), torch.tensor([[[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]])
    assert masked_error(filled, patches, torch.tensor([[0, 2]])).item() == (1 + 9) / 2


def test_an_encoder_that_sees_all_patches_is_the_backbone():
    method = build(cell_of("livt_pretrain"), COUNTS).eval()
    images = enlarge(torch.randn(2, 3, 16, 16), method.size)
    everything = torch.arange(method.patches).expand(2, -1)
    torch.testing.assert_close(method.encode(images, everything), method.backbone.feature_map(images))
    some = method.encode(images, everything[:, : method.seen])
    assert some.shape[1] == 1 + method.patches // 4


def test_what_is_hidden_does_not_reach_the_decoder():
    method = build(cell_of("livt_pretrain"), COUNTS).eval()
    images = torch.randn(1, 3, method.size, method.size)
    order = torch.randperm(method.patches)[None]
    changed = images.clone()
    last, side = int(order[0, -1]), method.size // method.patch
    row, column = method.patch * (last // side), method.patch * (last % side)
    changed[..., row : row + method.patch, column : column + method.patch] += 1
    filled = [method.decoder(method.encode(x, order[:, : method.seen]), order) for x in (images, changed)]
    assert torch.equal(*filled)


def test_the_decoder_puts_patches_where_they_were():
    method = build(cell_of("livt_pretrain", decoder_blocks=0), COUNTS).eval()
    tokens = method.encode(torch.randn(1, 3, method.size, method.size), torch.arange(method.seen)[None])
    order = torch.arange(method.patches)[None]
    turned = order.roll(3, dims=1)
    at_home, moved = (
        method.decoder(tokens, where) - method.decoder(tokens * 0, where) for where in (order, turned)
    )
    reached = at_home.abs().sum(dim=2)[0] > 0
    assert reached.tolist() == [n < method.seen for n in range(method.patches)]
    assert torch.equal(
        moved.abs().sum(dim=2)[0] > 0, picked(reached[None, :, None], turned.argsort(dim=1))[0, :, 0]
    )


def test_an_epoch_s_order_hides_three_quarters_anew_for_each_image():
    method = build(cell_of("livt_pretrain"), COUNTS)
    order = batch_for(method, LABELS, 16).draws["patch_order"].argsort(dim=1)
    assert order.shape == (4, method.patches)
    assert len({tuple(row[: method.seen].tolist()) for row in order}) == 4


def test_there_must_be_patches_to_see_and_to_fill_in():
    with pytest.raises(BenchError, match="masked"):
        build(cell_of("livt_pretrain", masked=1.0), COUNTS)


def test_fine_tuning_starts_from_the_encoder_and_slows_its_first_blocks():
    parent = build(cell_of("livt_pretrain"), COUNTS)
    method = build(cell_of("livt"), COUNTS)
    method.start_from(parent)
    pairs = zip(method.backbone.parameters(), parent.backbone.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    rates = {}
    names = {id(p): name for name, p in method.named_parameters()}
    for group in method.param_groups():
        for p in group["params"]:
            rates[names[id(p)]] = group.get("lr_factor", 1.0)
            spared = p.ndim == 1 or names[id(p)].endswith(("pos_embed", "cls_token"))
            assert ("weight_decay" in group) == spared
    assert rates.keys() == {name for name, p in method.named_parameters() if p.requires_grad}
    vit = "backbone.stages.all.model."
    expected = {
        "patch_embed.proj.weight": 0.75**3,
        "blocks.0.mlp.fc1.weight": 0.75**2,
        "blocks.1.mlp.fc1.weight": 0.75,
    }
    for name, rate in expected.items():
        assert rates[vit + name] == pytest.approx(rate)
    assert rates["head.weight"] == rates[vit + "norm.weight"] == 1
    with pytest.raises(BenchError, match="livt_pretrain"):
        method.start_from(build(cell_of("balanced_bce"), COUNTS))
