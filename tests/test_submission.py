"""A file of `export` that is submitted: sound runs are taken, and each kind of fault is reported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Bench

import bench as suite
from bench import ledger

RECIPE = """\
# One cell.
grid: {dataset: digits, imbalance_factor: 20, backbone: resnet8_cifar, seed: 0}
methods: {ce: {}}
protocol: {epochs: 1}
"""


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The line of a run, from a clean revision."""
    place = tmp_path_factory.mktemp("theirs")
    (place / "one.yaml").write_text(RECIPE)
    suite.run(place / "one.yaml", results=place / "results", gpus=(), progress=False)
    (file,) = ledger.export(place / "results").files
    return changed(file.read_text(), lambda content: content["environment"].update(git="0123456789"))


def submit(folder: Path, text: str) -> Path:
    file = folder / "theirs.jsonl"
    file.write_text(text)
    return file


def test_a_sound_run_is_taken(line: str, tmp_path: Path, bench: Bench) -> None:
    code, out = bench("check-submission", submit(tmp_path, line), "--results", tmp_path, "--data", tmp_path)
    assert code == 0, out
    assert "sound" in out
    assert "1 runs to take, 0 of them with a fault" in out


def test_what_is_here_word_for_word_is_passed_over(line: str, tmp_path: Path, bench: Bench) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "digits.jsonl").write_text(line)
    file = submit(tmp_path, line)
    assert "0 runs to take" in bench("check-submission", file, "--results", tmp_path)[1]
    spoilt = changed(line, lambda content: content["metrics"].update(accuracy=99.0))
    code, out = bench("check-submission", submit(tmp_path, spoilt), "--results", tmp_path)
    assert code == 1
    assert "digits.jsonl:1 has another metrics.accuracy of this run" in out


def changed(line: str, change: Callable[[dict[str, Any]], object]) -> str:
    """Change what a line says, with a checksum that fits."""
    content = json.loads(line)
    content.pop("checksum")
    change(content)
    return ledger.written(content) + "\n"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda c: c["data"]["fingerprint"].update(train="0" * 16), "its train images are 0000000000000000"),
        (lambda c: c["metrics"].update(accuracy=c["metrics"]["accuracy"] + 5), "that of its confusion"),
        (lambda c: c["metrics"].update(selection="best_on_test"), "it was selected by best_on_test"),
        (lambda c: c["curve"].update(epoch=3), "its curve has 3 epochs, and its protocol 1"),
        (lambda c: c["cell"]["protocol"].update(epochs=2), "its cell is of run digits-if20-ce-s0-"),
        (lambda c: c["cell"]["method"].update(name="c_e"), "not a line of `export`"),
        (lambda c: c["environment"].update(git="0123456789-dirty"), "it was trained by changed code"),
        (lambda c: c["environment"].pop("torch"), "its version of torch is missing"),
        (lambda c: (c.pop("confusion"), c.pop("hits")), "it has neither confusion nor bits"),
        (lambda c: c["environment"].update(rests_on={"code": "1"}), "came from a methods file"),
        (lambda c: c.pop("metrics"), "not a line of `export`: KeyError"),
    ],
)
def test_a_fault_is_reported(change: Any, fault: str, line: str, tmp_path: Path, bench: Bench) -> None:
    file = submit(tmp_path, changed(line, change))
    code, out = bench("check-submission", file, "--results", tmp_path, "--data", tmp_path)
    assert code == 1, out
    assert "refused" in out
    assert fault in out
    assert "1 runs to take, 1 of them with a fault" in out


def test_a_line_that_was_changed_by_hand_is_reported(line: str, tmp_path: Path, bench: Bench) -> None:
    file = submit(tmp_path, line.replace('"seed":0', '"seed":1').replace('"accuracy":', '"accuracy": '))
    code, out = bench("check-submission", file, "--results", tmp_path)
    assert code == 1
    assert "changed since it was written" in out


def test_an_older_version_of_a_method_is_reported(
    line: str, tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from bench import registry

    newer = {"ce": replace(registry.find("ce"), version=9)}
    monkeypatch.setattr(registry, "_specs", {**registry.methods(), **newer})
    out = bench("check-submission", submit(tmp_path, line), "--results", tmp_path)[1]
    assert "ce is of version 1, and now of 9: train it again" in out


def test_a_file_without_runs_is_reported(tmp_path: Path, bench: Bench) -> None:
    assert "no such file" in bench("check-submission", tmp_path / "none.jsonl")[1]
    code, out = bench("check-submission", submit(tmp_path, ""))
    assert code == 2
    assert "has no run in it" in out
