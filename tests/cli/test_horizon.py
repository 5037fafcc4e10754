"""Whether a momentum encoder is quick enough: what `plan` says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.cli.horizon import steps_of, warnings
from bench.recipe import load

RECIPE = """\
methods:
  ce: {}
  slow: {method: paco, params: {momentum: 0.999}}
  quick: {method: paco, params: {momentum: 0.9}}
  dscl: {params: {momentum: 0.99}}
  dscl_linear: {from: dscl}
grid: {dataset: digits, imbalance_factor: 20, backbone: resnet8_cifar, seed: [0, 1]}
protocol: {epochs: 30, batch_size: 64}
"""


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "horizon.yaml"
    file.write_text(RECIPE)
    return file


def reported(points):
    return warnings([p.cell for p in points], {p.cell.run_id: p.label for p in points}, Path("no data here"))


def test_a_momentum_that_looks_back_over_a_fifth_of_the_training_is_reported_with_one_that_fits(recipe):
    points = load(recipe).points
    steps = steps_of(points[0].cell, Path())
    assert steps == 210
    end = "steps, so the key encoder hardly leaves its start; about 0.76 fits"
    assert reported(points) == [
        f"slow: params.momentum 0.999 looks back over 1,000 of 210 {end}",
        f"dscl: params.momentum 0.99 looks back over 100 of 210 {end}",
    ]
    assert pytest.approx(210 / 50, rel=0.02) == 1 / (1 - 0.76), "a fiftieth of the steps"


def test_a_longer_training_needs_no_word_and_a_dropped_batch_is_no_step(recipe):
    longer = load(recipe, ["protocol.epochs=300"]).points
    assert [line.partition(":")[0] for line in reported(longer)] == ["slow"]
    dropped = load(recipe, ["protocol.drop_last=true"]).points
    assert steps_of(dropped[0].cell, Path()) < 210


def test_where_there_is_no_data_nothing_is_said(recipe):
    assert reported(load(recipe, ["grid.dataset=cifar100"]).points) == []


def test_plan_says_so(bench, recipe, tmp_path):
    code, out = bench("plan", recipe, "--results", tmp_path)
    assert code == 0
    assert "slow: params.momentum 0.999 looks back over 1,000 of 210 steps" in out
    assert "quick:" not in out
