"""The authors' cards: what they say, what a recipe makes of them, and whether a cell trains as they did.

Rates are typed from the authors' files, not from the cards: a card or a schedule that drifts fails here.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from project import ROOT

from bench import backbones, cards, registry
from bench.cards import card_of, cards_of
from bench.data.feed.framing import NAMES
from bench.data.feed.samplers import SAMPLERS
from bench.data.sets.catalogue import DATASETS
from bench.errors import BenchError
from bench.method import Clock
from bench.recipe import load
from bench.train.schedule import lr_factor, make_optimizer

COUNTS = np.array([60, 40, 30, 20, 15, 12, 9, 6, 5, 4])
#: Every (method, data set, factor, name) there is a card for; a factor of its own, or 100.
TRAININGS = [
    (method, data, factor, card.name)
    for card in cards.cards()
    for method in card.methods
    for data in card.data
    for factor in (card.imbalance_factors or ((100,) if data.startswith("cifar") else (1,)))
]

WARM = {0: 0.02, 1: 0.04, 2: 0.06, 3: 0.08, 4: 0.1, 5: 0.1, 100: 0.1}
LDAM = WARM | {159: 0.1, 160: 1e-3, 179: 1e-3, 180: 1e-5, 199: 1e-5}
TENTHS = WARM | {159: 0.1, 160: 1e-2, 179: 1e-2, 180: 1e-3, 199: 1e-3}
BCL = {
    0: 0.03,
    1: 0.06,
    4: 0.15,
    5: 0.15,
    80: 0.15,
    159: 0.15,
    160: 0.015,
    179: 0.015,
    180: 0.0015,
    199: 0.0015,
}
PROCO = {0: 0.06, 2: 0.18, 4: 0.3, 5: 0.3, 90: 0.3, 159: 0.3, 160: 0.03, 179: 0.03, 180: 0.003, 199: 0.003}
KANG = {
    0: 0.199939,
    1: 0.199756,
    10: 0.192718,
    29: 0.15,
    44: 0.1,
    45: 0.09651,
    59: 0.05,
    74: 0.013397,
    80: 0.004894,
    88: 6.1e-05,
}
LIFT = {
    0: 0.01,
    1: 0.00975528,
    2: 0.00904508,
    3: 0.00793893,
    4: 0.00654508,
    5: 0.005,
    6: 0.00345492,
    9: 0.000244717,
}
#: The rate at ten epochs (from 0), momentum, Nesterov, weight decay, batch, last batch dropped, by authors.
AUTHORS = {
    # kaidic/LDAM-DRW cifar_train.py: adjust_learning_rate
    ("ldam_drw", "cifar100"): (LDAM, 0.9, False, 2e-4, 128, False, 200),
    ("ce", "cifar10"): (LDAM, 0.9, False, 2e-4, 128, False, 200),
    # Jianf-Wang/RSG cifar_train.py: epoch + 1 > 159 and > 179
    ("rsg", "cifar100"): (
        WARM | {158: 0.1, 159: 1e-3, 178: 1e-3, 179: 1e-5, 199: 1e-5},
        0.9,
        False,
        2e-4,
        128,
        True,
        200,
    ),
    # pseulki/IB-Loss: 0.01 from 100, 0.0001 from 160, 1e-6 from 180
    ("ib", "cifar100"): (
        {0: 0.02, 4: 0.1, 50: 0.1, 99: 0.1, 100: 1e-3, 159: 1e-3, 160: 1e-5, 179: 1e-5, 180: 1e-7, 199: 1e-7},
        0.9,
        False,
        2e-4,
        128,
        False,
        200,
    ),
    ("bbn", "cifar100"): (
        {0: 0.02, 4: 0.1, 5: 0.1, 60: 0.1, 119: 0.1, 120: 1e-3, 140: 1e-3, 159: 1e-3, 160: 1e-5, 199: 1e-5},
        0.9,
        False,
        2e-4,
        128,
        False,
        200,
    ),
    ("lade", "cifar100"): (
        {0: 0.04, 2: 0.12, 4: 0.2, 5: 0.2, 60: 0.2, 119: 0.2, 120: 2e-3, 159: 2e-3, 160: 2e-5, 199: 2e-5},
        0.9,
        False,
        5e-4,
        256,
        False,
        200,
    ),
    ("bcl", "cifar100"): (BCL, 0.9, False, 5e-4, 256, False, 200),
    # BCCL: warm-up 10, then lr (1 + cos(pi (e - 10 + 1) / (200 - 10 + 1))) / 2
    ("bccl", "cifar100"): (
        {
            0: 0.015,
            4: 0.075,
            9: 0.15,
            10: 0.14998985,
            57: 0.12781449,
            104: 0.0756168,
            105: 0.07438320,
            152: 0.02218551,
            190: 0.00101224,
            199: 1.0145e-05,
        },
        0.9,
        False,
        5e-4,
        128,
        True,
        200,
    ),
    # GML: epoch > 160 and > 180; the overshoot at epoch 5 is the card's quirk
    ("gml", "cifar100"): (
        WARM | {160: 0.1, 161: 1e-2, 180: 1e-2, 181: 1e-3, 199: 1e-3},
        0.9,
        False,
        5e-4,
        128,
        True,
        200,
    ),
    ("gml_teacher", "cifar100"): (
        WARM | {160: 0.1, 161: 1e-2, 180: 1e-2, 181: 1e-3, 199: 1e-3},
        0.9,
        False,
        5e-4,
        128,
        True,
        200,
    ),
    # PaCo paco_cifar.py:588-593: 0.05 over 10, epoch > 320 and > 360
    ("paco", "cifar100"): (
        {
            0: 0.005,
            4: 0.025,
            9: 0.05,
            11: 0.05,
            200: 0.05,
            320: 0.05,
            321: 0.005,
            360: 0.005,
            361: 5e-4,
            399: 5e-4,
        },
        0.9,
        False,
        5e-4,
        128,
        True,
        400,
    ),
    ("proco", "cifar100"): (PROCO, 0.9, False, 2e-4, 256, True, 200),
    ("ride", "cifar100"): (LDAM, 0.9, True, 5e-4, 128, False, 200),
    ("sade", "cifar100"): (TENTHS, 0.9, True, 5e-4, 128, False, 200),
    ("sade", "cifar10"): (
        {e: rate / 2 for e, rate in TENTHS.items()},
        0.9,
        True,
        5e-4,
        128,
        False,
        200,
    ),
    ("balpoe", "cifar100"): (TENTHS, 0.9, True, 5e-4, 128, False, 200),
    # NCL: its warm-up comes from a third
    ("ncl", "cifar100"): (
        {
            0: 0.1 * 7 / 15,
            1: 0.06,
            4: 0.1,
            5: 0.1,
            50: 0.1,
            150: 0.1,
            318: 0.1,
            319: 0.01,
            340: 0.01,
            358: 0.01,
            359: 0.001,
            399: 0.001,
        },
        0.9,
        True,
        2e-4,
        64,
        True,
        400,
    ),
    # SHIKE's log: five epochs of warm-up, then a cosine from 0.15 over 175
    ("shike_stage_1", "cifar100"): (
        {
            0: 0.025,
            1: 0.05,
            2: 0.075,
            3: 0.1,
            4: 0.125,
            5: 0.15,
            48: 0.1285,
            92: 0.0757,
            136: 0.0221,
            179: 1e-5,
        },
        0.9,
        False,
        5e-4,
        128,
        False,
        180,
    ),
    ("shike", "cifar100"): (
        {
            0: 0.0375,
            1: 0.05,
            2: 0.0625,
            3: 0.075,
            4: 0.0875,
            5: 0.1,
            10: 0.075,
            15: 0.025,
            19: 0.00109262,
        },
        0.9,
        False,
        5e-4,
        128,
        False,
        20,
    ),
    ("glmc", "cifar100"): (
        {
            0: 0.01,
            1: 0.00999938,
            20: 0.00975528,
            50: 0.00853553,
            67: 0.00746,
            100: 0.005,
            133: 0.00254,
            150: 0.00146447,
            180: 0.000244717,
            199: 6.1681e-07,
        },
        0.9,
        False,
        5e-3,
        64,
        False,
        200,
    ),
    ("mislas_stage_1", "cifar10"): (TENTHS, 0.9, False, 2e-4, 128, False, 200),
    # classifier-balancing: lr (1 + cos(pi (e + 1) / 90)) / 2 in effect; ours is (e + 1) / 91
    ("ce", "imagenet_lt"): (KANG, 0.9, False, 5e-4, 512, True, 90),
    ("ce", "inaturalist2018"): (KANG, 0.9, False, 1e-4, 512, True, 90),
    # LIFT: cosine by epoch over 10
    ("lift", "cifar100"): (LIFT, 0.9, False, 5e-4, 128, False, 10),
}


def cell_of(tmp_path: Path, method: str, data: str, factor: float = 100, name: str = "authors"):
    """Build the cell that a recipe makes of a card, its parents taken from their own."""
    labels, wanted = {}, method
    while True:
        entry = registry.find(wanted)
        labels[wanted] = {"from": entry.build.usual_parent} if entry.build.needs_parent else {}
        if wanted != method and card_of(wanted, data, factor) is None:
            labels[wanted] |= {"card": "none", "backbone": "resnet8_cifar"}
        if not entry.build.needs_parent:
            break
        wanted = entry.build.usual_parent
    labels[method]["card"] = name
    text = {
        "card": "authors",
        "methods": labels,
        "grid": {"dataset": data, "imbalance_factor": factor},
    }
    file = tmp_path / "card.yaml"
    file.write_text(yaml.safe_dump(text))
    (cell,) = (point.cell for point in load(file).points if point.label == method)
    return cell


@pytest.mark.parametrize("key", AUTHORS, ids="-".join)
def test_a_cell_trains_at_its_authors_rates(tmp_path, key):
    rates, momentum, nesterov, decay, batch, drop_last, epochs = AUTHORS[key]
    protocol = cell_of(tmp_path, *key, 1 if not key[1].startswith("cifar") else 100).protocol
    assert (protocol.epochs, protocol.batch_size, protocol.drop_last) == (epochs, batch, drop_last)
    optimizer = protocol.optimizer
    assert (optimizer.name, optimizer.momentum, optimizer.nesterov) == ("sgd", momentum, nesterov)
    assert optimizer.weight_decay == decay
    assert len(rates) >= 8
    for epoch, rate in rates.items():
        ours = optimizer.lr * lr_factor(protocol.schedule, Clock(epoch, epochs, epoch, epochs))
        near = 0 if protocol.schedule.kind == "steps" else 0.012 * optimizer.lr  # e.g. (e + 1) / 91 for / 90
        assert ours == pytest.approx(rate, rel=1e-6, abs=near), epoch


@pytest.mark.parametrize("training", TRAININGS, ids=lambda t: "-".join(map(str, t)))
def test_a_cell_has_its_cards_views_and_sampler(tmp_path, training):
    method, data, factor, name = training
    card = card_of(method, data, factor, name)
    cell = cell_of(tmp_path, *training)
    assert cell.backbone == card.network
    assert {key: cell.method.params[key] for key in card.params} == card.params
    built = build(cell)
    named = cell.protocol.views or [view.policy for view in built.views]
    policies = [cell.protocol.augmentation if policy == "main" else policy for policy in named]
    assert tuple(policies) == card.views
    last = cell.protocol.epochs - 1
    assert (cell.protocol.sampler or built.sampler(last, cell.protocol.epochs)) == card.sampler
    assert set(card.views) <= set(NAMES)
    assert card.sampler in SAMPLERS


def build(cell):
    """Build a cell's method on a small network: what is asked here does not depend on it."""
    vit = partial(backbones.create, "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=1)
    needs = registry.find(cell.method.name).build.needs_backbone
    small = vit if needs else partial(backbones.create, "resnet8_cifar")
    params = cell.method.params | {
        key: 64 for key in ("hidden", "dim", "queue") if cell.method.params.get(key)
    }
    return registry.find(cell.method.name).build(small, COUNTS, **params)


#: Learning rate factors and weight decays of the groups, the first of which has all that is not named.
GROUPS = {
    ("ldam_drw", "cifar100"): [(1.0, 2e-4)],
    ("bcl", "cifar100"): [(1.0, 5e-4)],
    ("gml", "cifar100"): [(1.0, 5e-4), (1.0, 0.0)],  # the log temperature
    ("cb_focal", "cifar10"): [(1.0, 2e-4), (1.0, 0.0)],  # the head's bias
    ("mislas", "cifar100"): [(0.2, 2e-4), (1.0, 2e-4)],  # the classifier, and the scales at the whole rate
    ("proco", "cifar100"): [(1.0, 2e-4)],
    ("ncl", "cifar100"): [(1.0, 2e-4)],
    ("glmc", "cifar100"): [(1.0, 5e-3)],
}


@pytest.mark.parametrize("key", GROUPS, ids="-".join)
def test_optimiser_groups_are_the_authors(tmp_path, key):
    cell = cell_of(tmp_path, *key)
    method = build(cell)
    optimizer = make_optimizer(method, cell.protocol.optimizer, fused=False)
    groups = [(group["lr_factor"], group["weight_decay"]) for group in optimizer.param_groups]
    assert groups == GROUPS[key]


# -- the files, and what a recipe makes of them -------------------------------------------------------
def test_cards_are_of_methods_and_data_sets_that_there_are_and_need_no_torch():
    assert {m for card in cards.cards() for m in card.methods} <= set(registry.methods())
    assert {d for card in cards.cards() for d in card.data} <= set(DATASETS)
    code = "import sys; from bench.cards import cards; assert cards(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_card_for_the_very_factor_goes_before_one_for_all():
    consistency = [card_of("glmc", "cifar100", factor).params.get("consistency") for factor in (100, 50, 10)]
    assert consistency == [None, 6.0, None]
    assert card_of("glmc", "cifar10", 200) is None
    assert [card.name for card in cards_of("proco")] == ["authors", "authors_400"]


def test_what_the_recipe_says_lies_over_the_card(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text(
        "card: authors\nmethods:\n  ldam_drw: {}\n  mine: {method: ldam_drw, params: {max_margin: 0.3}}\n"
        "  long: {method: proco, card: authors_400}\n  none: {method: ce, card: none}\n"
        "protocol: {epochs: 390, optimizer: {lr: 0.4}}\n"
        "grid: {dataset: cifar100, imbalance_factor: 100, backbone: resnet8_cifar}\n"
    )
    cells = {point.label: point.cell for point in load(file).points}
    assert {cell.backbone.name for cell in cells.values()} == {"resnet8_cifar"}
    assert {cell.protocol.epochs for cell in cells.values()} == {390}
    assert cells["ldam_drw"].protocol.optimizer.lr == 0.4
    assert cells["ldam_drw"].protocol.schedule.factors == (0.01, 0.0001)
    assert cells["mine"].method.params["max_margin"] == 0.3
    assert cells["long"].protocol.schedule.milestones == (360, 380)
    assert cells["none"].protocol.schedule.milestones == ()


def test_a_backbone_that_the_recipe_says_has_nothing_of_the_cards(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text(
        "card: authors\nmethods: {glmc: {}}\n"
        "grid: {dataset: cifar100, imbalance_factor: 100, backbone: resnet8_cifar}\n"
    )
    (point,) = load(file).points
    assert point.cell.backbone.options == {}


def test_a_copy_of_a_data_set_has_that_sets_cards(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text(
        "card: authors\nmethods: {ldam_drw: {}}\n"
        "datasets: {mine: {base: cifar10, copy_of: cifar10, copy_kind: JPEG}}\n"
        "grid: {dataset: mine, imbalance_factor: 100}\n"
    )
    (point,) = load(file).points
    assert point.cell.backbone.name == "resnet32_cifar"


def test_a_method_without_the_card_is_reported_with_those_there_are(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text(
        "card: authors\nmethods:\n  tau_norm: {from: ce}\n  ce: {}\n  bcl: {card: authors_99}\n"
        "  plain: {method: focal, card: none}\n"
        "grid: {dataset: cifar100, imbalance_factor: 100}\n"
    )
    with pytest.raises(BenchError) as error:
        load(file)
    lines = str(error.value).split("\n")
    assert "r.yaml:3: methods.tau_norm: no card 'authors' of 'tau_norm' for cifar100 at 100" in lines[0]
    assert "there are: none; write card: none here" in lines[0]
    assert "authors (cifar100), authors (imagenet_lt)" in lines[1]
    assert "authors_400 (cifar100)" in lines[1]
    assert "r.yaml:6: methods.plain: needs a backbone: here, or in grid:" in lines[2]


def test_two_cards_for_one_training_are_refused(tmp_path, monkeypatch):
    (tmp_path / "twice.yaml").write_text(
        "- &one {methods: [ce], data: [digits], network: {name: resnet8_cifar}, protocol: {},\n"
        "   views: [none], reported: last epoch, source: here}\n- *one\n"
    )
    monkeypatch.setattr(cards, "FOLDER", tmp_path)
    with pytest.raises(BenchError, match=r"twice.yaml: card 1: there is one for \('authors', 'ce', 'digits'"):
        cards.cards.__wrapped__()


#: Labels of the recipes that are there to be held beside published numbers, and which card they have.
HELD = {
    "cifar_lt_plain": "ce focal cb_ce cb_sigmoid cb_focal ce_drw ldam ldam_drw rsg",
    "cifar_lt_plain_field": "cs_ce cdt cdt_drw vs lade ib ib_cb ib_focal cmo cmo_ce cmo_ce_drw "
    "cmo_balanced_softmax mislas_stage_1 mislas bbn causal_tde",
    "cifar_lt_autoaugment": "bcl bccl gml_teacher gml proco",
    "cifar_lt_autoaugment_400": "bcl:authors_400 gml_teacher gml:authors_400 paco gpaco proco:authors_400",
    "cifar_lt_contrastive_1000": "supcon_pretrain supcon_linear",
    "cifar_lt_experts": "ride sade balpoe",
    "cifar_lt_experts_autoaugment": "shike_stage_1 shike ncl balpoe:authors_400",
    "cifar_lt_wide": "glmc",
    "imagenet_lt_decoupling": "ce class_balanced_sampling sqrt_sampling progressive_sampling crt lws",
    "imagenet_lt_bccl": "bccl",
    "imagenet_lt_dscl": "dscl pbsd dscl_pbsd",
    "inaturalist2018": "ce crt bcl",
    "places_lt": "crt lws",
    "mini_imagenet_lt": "rsg",
    "lift_clip": "lift lift_tte",
}


@pytest.mark.parametrize("name", HELD)
def test_a_recipe_for_published_numbers_trains_as_the_cards_say(name):
    (file,) = (ROOT / "recipes").rglob(f"{name}.yaml")
    wanted = {label: card or "authors" for label, _, card in (w.partition(":") for w in HELD[name].split())}
    held = set()
    for point in load(file).points:
        cell, label = point.cell, point.label
        data = cell.dataset.copy_of or cell.dataset.name
        card = card_of(cell.method.name, data, cell.imbalance_factor, wanted.get(label, "authors"))
        if label not in wanted or card is None:
            continue
        held.add(label)
        assert cell.backbone == card.network, label
        when = {key: getattr(cell.protocol, key) for key in ("evaluate_every", "evaluate_last")}
        assert cell.protocol == card.whole_protocol().model_copy(update=when), (label, data)
        expected = registry.find(cell.method.name).choose(
            **{key: tuple(v) if isinstance(v, list) else v for key, v in card.params.items()}
        )
        assert cell.method.params == expected.params, (label, data, cell.imbalance_factor)
    assert held == wanted.keys()
