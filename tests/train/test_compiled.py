"""Compiled backbones: where they are refused, what they leave as it was, where they are left out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Bench
from fast_runs import lines, make_cell, needs_gpu, training
from small_runs import make_cell as small_cell

from bench.errors import BenchError
from bench.launch import local
from bench.rundir import RunDir
from bench.train import compiled
from bench.train.compiled import COMPILE, is_asked, refuse
from bench.train.describe import describe_model


@pytest.fixture(autouse=True)
def _asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COMPILE, "1")


def test_only_1_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_asked()
    for value in ("", "0"):
        monkeypatch.setenv(COMPILE, value)
        assert not is_asked()
    monkeypatch.delenv(COMPILE)
    assert not is_asked()


def test_what_a_machine_cannot_do_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BenchError, match="no C\\+\\+ compiler 'no-such-compiler' here"):
        refuse("cpu")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BenchError, match="needs triton"):
        refuse("cuda")
    monkeypatch.setenv(COMPILE, "")
    refuse("cuda")


def test_compiled_stages_are_the_stages_and_scores_come_from_the_plain_network(
    split: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []

    def backend(graph: Any, inputs: Any) -> Any:
        seen.append(len(inputs))
        return graph.forward

    whole = compiled.compile_stages
    monkeypatch.setattr("bench.train.loop.compile_stages", lambda method: whole(method, backend))
    made = training(make_cell("ce", drop_last=True), split, tmp_path)
    monkeypatch.setenv(COMPILE, "")
    usual = training(make_cell("ce", drop_last=True), split, tmp_path)
    assert made.compiled
    assert not usual.compiled
    assert made.method.state_dict().keys() == usual.method.state_dict().keys()
    assert_close(made, usual)
    describe_model(made.method, made.loader.images_at(torch.arange(2)))
    stages = len(made.method.backbone.stages)
    # each once: no graph breaks, none to score; torch 2.11 does not compile the stem, a Sequential
    assert len(seen) in ((stages - 1, stages) if torch.__version__ < "2.13" else (stages,))


def assert_close(one: Any, other: Any) -> None:
    for ours, theirs in zip(lines(one), lines(other), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.05)


def test_an_exact_run_is_not_compiled_and_says_so(tmp_path: Path) -> None:
    cell = small_cell(epochs=1).model_copy(update={"mode": "exact"})
    assert local.run_grid([cell], tmp_path, tmp_path, jobs=1)[cell.run_id].status == "done"
    run = RunDir(tmp_path, cell.run_id)
    assert "compiled" not in run.read_record()["environment"]
    assert "--compile: left out, as the run is in exact mode" in run.log.read_text()


def test_the_option_asks_for_it_and_is_refused_before_any_run(
    tmp_path: Path,
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(COMPILE, "")
    monkeypatch.setenv("CXX", "no-such-compiler")
    options = ("--gpus", "none", "--results", tmp_path, "--reports", tmp_path)
    code, printed = bench("run", "quick", "--compile", *options)
    assert code == 2
    assert "--compile: no C++ compiler" in printed
    assert os.environ[COMPILE] == "1"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_run_is_compiled_on_a_cpu(tmp_path: Path) -> None:
    cell = small_cell(epochs=1)
    ends = local.run_grid([cell], tmp_path, tmp_path, jobs=1)
    assert ends[cell.run_id].status == "done", ends[cell.run_id].reason
    assert RunDir(tmp_path, cell.run_id).read_record()["environment"]["compiled"] is True


@pytest.mark.gpu
@needs_gpu
def test_a_compiled_run_trains_on_a_gpu_as_without_it(
    split: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cell = make_cell("ce", epochs=2)
    made = training(cell, split, tmp_path / "made", "cuda")
    assert made.compiled
    monkeypatch.setenv(COMPILE, "")
    assert_close(made, training(cell, split, tmp_path / "usual", "cuda"))
