"""Options that change the pace: how they are read, what they leave as it was, where they are left out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from fast_runs import assert_same, make_cell, needs_gpu, training
from small_runs import make_cell as small_cell

from bench.cell import Averaging
from bench.errors import BenchError
from bench.launch import local
from bench.rundir import RunDir
from bench.train import compiled
from bench.train.execution import EXECUTE, Execution, choose


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EXECUTE, "")


def test_options_are_read_and_only_what_differs_is_reported() -> None:
    assert Execution.read("") == Execution()
    read = Execution.read("compile, no-channels-last,steps=4,no-benchmark")
    assert read == Execution(compile=True, channels_last=False, steps=4, benchmark=False)
    assert read.changes() == {"compile": True, "channels_last": False, "steps": 4, "benchmark": False}
    assert Execution.read("no-compile,channels-last,steps=1,benchmark").changes() == {}
    choose("steps=2")
    assert Execution.here().steps == 2
    choose(None)
    assert os.environ[EXECUTE] == "steps=2"


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("compiel", "unknown option 'compiel'; did you mean 'compile'"),
        ("steps", "'steps' should be steps=1 to steps=64"),
        ("steps=0", "steps=1 to"),
        ("steps=65", "steps=1 to"),
        ("steps=\u00b2", "steps=1 to"),
        ("no-steps=2", "steps=1 to"),
        ("compile=yes", "should be compile or no-compile"),
    ],
)
def test_a_wrong_option_is_reported(text: str, reported: str) -> None:
    with pytest.raises(BenchError, match=reported):
        Execution.read(text)
    with pytest.raises(BenchError):
        choose(text)
    assert os.environ[EXECUTE] == ""


def test_what_a_machine_cannot_do_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BenchError, match="steps=4: means something on a GPU"):
        Execution(steps=4).refuse("cpu")
    with pytest.raises(BenchError, match="no-benchmark: means something on a GPU"):
        Execution(benchmark=False).refuse("cpu")
    Execution(steps=4, benchmark=False).refuse("cuda")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BenchError, match="no C\\+\\+ compiler 'no-such-compiler' here"):
        Execution(compile=True).refuse("cpu")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BenchError, match="needs triton"):
        Execution(compile=True).refuse("cuda")


@pytest.mark.parametrize("steps", [2, 3])
def test_steps_joined_in_one_piece_are_the_steps(split: Any, tmp_path: Path, tapes: Any, steps: int) -> None:
    cell = make_cell("ce", epochs=3, augmentation="crop_flip")
    plain = training(cell, split, tmp_path, play=lambda key, function, moves, **_: function())
    joined = training(cell, split, tmp_path, play=tapes, execution=Execution(steps=steps))
    assert joined.execution.changes() == {"steps": steps}
    assert_same(joined, plain)
    learnt = [sizes for kind, _, sizes in (key for key in tapes.recorded if key[0] == "learn")]
    assert max(map(len, learnt)) == steps
    whole, last = divmod(len(split.labels), 64)
    assert sorted(set(sum(learnt, ()))) == sorted({64, last})
    assert whole > steps


@pytest.mark.parametrize(
    ("name", "more", "reason"),
    [
        ("rsg", {}, "not replayed"),
        ("paco", {}, "something is done between its steps"),
        ("arcface", {}, "something is done between its steps"),
        ("ce", {"averaging": Averaging(kind="ema")}, "something is done between its steps"),
    ],
)
def test_steps_that_cannot_be_joined_are_made_one_by_one(
    split: Any,
    tmp_path: Path,
    tapes: Any,
    name: str,
    more: dict[str, Any],
    reason: str,
) -> None:
    made = training(make_cell(name, **more), split, tmp_path, play=tapes, execution=Execution(steps=4))
    assert made.execution == Execution()
    assert reason in made.left_out[0]
    assert made.joined is None


def test_exact_mode_takes_no_option(split: Any, tmp_path: Path) -> None:
    asked = Execution(compile=True, channels_last=False, steps=4)
    made = training(make_cell("ce", mode="exact"), split, tmp_path, execution=asked)
    assert made.execution == Execution()


def test_channels_first_is_the_same_training_up_to_rounding(split: Any, tmp_path: Path) -> None:
    made = training(make_cell("ce"), split, tmp_path, execution=Execution(channels_last=False))
    usual = training(make_cell("ce"), split, tmp_path)
    formats = [run.loader.images_at(torch.arange(2)).stride() for run in (made, usual)]
    assert formats[0] != formats[1]
    weights = [
        next(p for p in run.method.parameters() if p.dim() == 4 and p.shape[1] > 1) for run in (made, usual)
    ]
    assert weights[0].is_contiguous()
    assert not weights[1].is_contiguous()
    assert_close(made, usual)


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
    made = training(make_cell("ce", drop_last=True), split, tmp_path, execution=Execution(compile=True))
    usual = training(make_cell("ce", drop_last=True), split, tmp_path)
    assert made.method.state_dict().keys() == usual.method.state_dict().keys()
    assert_close(made, usual)
    stages = len(made.method.backbone.stages)
    # each once: no graph breaks, none to score; torch 2.11 does not compile the stem, a Sequential
    assert len(seen) in ((stages - 1, stages) if torch.__version__ < "2.13" else (stages,))


def assert_close(one: Any, other: Any) -> None:
    from fast_runs import lines

    for ours, theirs in zip(lines(one), lines(other), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.05)


def test_what_an_option_did_stands_in_the_record(tmp_path: Path) -> None:
    choose("no-channels-last")
    cell = small_cell(epochs=1)
    assert local.run_grid([cell], tmp_path, tmp_path, jobs=1)[cell.run_id].status == "done"
    environment = RunDir(tmp_path, cell.run_id).read_record()["environment"]
    assert environment["execution"] == {"channels_last": False}
    choose("")
    other = small_cell(epochs=1, seed=1)
    local.run_grid([other], tmp_path, tmp_path, jobs=1)
    assert "execution" not in RunDir(tmp_path, other.run_id).read_record()["environment"]


@pytest.mark.slow
def test_a_run_is_compiled_on_a_cpu(tmp_path: Path) -> None:
    choose("compile")
    cell = small_cell(epochs=1)
    ends = local.run_grid([cell], tmp_path, tmp_path, jobs=1)
    assert ends[cell.run_id].status == "done", ends[cell.run_id].reason
    assert RunDir(tmp_path, cell.run_id).read_record()["environment"]["execution"] == {"compile": True}


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(
    "text", ["compile", "steps=4", "compile,steps=4", "no-channels-last", "no-benchmark"]
)
def test_each_option_trains_on_a_gpu_as_without_it(split: Any, tmp_path: Path, text: str) -> None:
    cell = make_cell("ce", epochs=2)
    made = training(cell, split, tmp_path / "made", "cuda", execution=Execution.read(text))
    assert made.execution == Execution.read(text)
    assert_close(made, training(cell, split, tmp_path / "usual", "cuda"))
