"""Files of a run that are cut short, at every length, or have a flipped bit: refused by name, not trusted."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import make_cell

from bench.cell import Cell
from bench.errors import BenchError
from bench.launch import local
from bench.rundir import RunDir, equal
from bench.train.checkpoint import read_checkpoint, read_weights, write_checkpoint
from bench.train.run import run_cell

EVERY_LENGTH = 4096  # bytes; of longer files, this many lengths beyond
MORE_LENGTHS = 200


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with one real run and its checkpoint."""
    results = tmp_path_factory.mktemp("finished")
    run_cell(make_cell(epochs=1), results, results, checkpoint_seconds=0)
    assert RunDir(results, make_cell(epochs=1).run_id).is_done()
    return results


def readers(run: RunDir, cell: Cell) -> dict[Path, Callable[[], Any]]:
    """How each file of a run is read."""
    files = run.read_record()["files"]
    return {
        run.checkpoint: lambda: read_checkpoint(run.checkpoint, cell.id, "cpu"),
        run.record: run.read_record,
        run.logits: lambda: run.read_logits(files[run.logits.name]),
        run.weights: lambda: read_weights(run.weights, _Nothing(), files[run.weights.name]),
    }


class _Nothing(torch.nn.Module):
    """A method that must not get as far as to see weights."""

    def load_state_dict(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("damaged weights were loaded")


@pytest.mark.parametrize("name", ["checkpoint.pt", "record.json", "logits.npz", "weights.safetensors"])
def test_no_length_but_the_whole_is_read(finished: Path, tmp_path: Path, name: str) -> None:
    cell = make_cell(epochs=1)
    shutil.copytree(finished / "runs", tmp_path / "runs")
    run = RunDir(tmp_path, cell.run_id)
    file, read = next((file, read) for file, read in readers(run, cell).items() if file.name == name)
    if name == "checkpoint.pt":  # a small one, which is written the same way
        write_checkpoint(file, cell.id, {"epoch": 0, "method": {"weight": torch.arange(700.0)}})
    whole = file.stat().st_size
    beyond = range(EVERY_LENGTH, max(whole, EVERY_LENGTH))
    drawn = random.Random(0).sample(beyond, min(MORE_LENGTHS, len(beyond)))
    lengths = sorted({*range(min(whole, EVERY_LENGTH)), *drawn}, reverse=True)
    for length in lengths:
        os.truncate(file, length)
        if name == "record.json" and length == whole - 1:
            continue  # only the newline at its end is gone
        with pytest.raises(BenchError, match=name):
            read()


@pytest.mark.parametrize("name", ["checkpoint.pt", "record.json", "logits.npz", "weights.safetensors"])
def test_no_flipped_bit_is_trusted(finished: Path, tmp_path: Path, name: str) -> None:
    cell = make_cell(epochs=1)
    shutil.copytree(finished / "runs", tmp_path / "runs")
    run = RunDir(tmp_path, cell.run_id)
    record = run.read_record()
    file, read = next((file, read) for file, read in readers(run, cell).items() if file.name == name)
    whole, rng = file.read_bytes(), random.Random(1)
    for _ in range(200):
        at, bit = rng.randrange(len(whole)), 1 << rng.randrange(8)
        file.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
        try:
            trusted = read()
        except BenchError as error:
            said = str(error)
        else:
            assert name == "record.json"
            assert trusted == record  # a space became another one
            continue
        assert name in said
        assert "\n" not in said


def test_a_run_with_a_spoilt_checkpoint_fails_with_its_name_and_a_retry_starts_over(
    finished: Path, tmp_path: Path
) -> None:
    cell = make_cell(epochs=1)
    shutil.copytree(finished / "runs", tmp_path / "runs")
    run = RunDir(tmp_path, cell.run_id)
    before = run.read_record()
    run.record.unlink()
    run.checkpoint.write_bytes(run.checkpoint.read_bytes()[:-1000])
    ends = local.run_grid([cell], tmp_path, tmp_path)
    assert ends[cell.run_id].status == "failed"
    assert "checkpoint.pt: damaged" in str(ends[cell.run_id].reason)
    ends = local.run_grid([cell], tmp_path, tmp_path, retry_failed=True)
    assert ends[cell.run_id].status == "done"
    assert equal(run.read_record(), before)
