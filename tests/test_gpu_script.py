"""The script for a borrowed GPU, rehearsed on a CPU, and the small file that carries a data set to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cifar_files import write_cifar
from project import ROOT

from bench.data.split.load import load

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def call(*arguments: object, where: Path = ROOT) -> str:
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=where, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_all_parts_work_on_a_cpu_and_leave_runs_that_export_takes(tmp_path: Path) -> None:
    out, results = tmp_path / "out", tmp_path / "results"
    only = ["--only", "label=ce", "--only", "seed=0"]
    call(
        "benchmarks/gpu.py", out, "--tiny", "--minutes", 60, "--recipe", "quick", *only, "--results", results
    )
    log = (out / "log.txt").read_text()
    for part in ("machine", "tests, augmentation", "speed", "compile", "training"):
        assert f"{part}: exit code 0" in log
    speed = {row["what"]: row for row in json.loads((out / "speed.json").read_text())}
    assert {"a step", "three views", "crop and flip", "papers' loop, crop and flip"} <= speed.keys()
    assert not any("failed" in row for row in speed.values())
    (compiled,) = json.loads((out / "compile.json").read_text())
    assert compiled["ratio"] > 0
    with tarfile.open(out / "runs-0.tar") as tar:
        tar.extractall(tmp_path / "there" / "runs", filter="data")
    assert "1 runs, 1 of them new" in call("run_bench.py", "export", "--results", tmp_path / "there")


def test_a_pack_holds_what_a_run_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu_pack

    own = write_cifar(tmp_path / "here")
    monkeypatch.setattr(gpu_pack, "DATASETS", {"mine": own})
    path = gpu_pack.pack("mine", 10.0, tmp_path / "here", tmp_path / "carried")
    assert gpu_pack.unpack(path, tmp_path / "there") == "mine"
    whole, carried = (load(own, 10.0, tmp_path / place) for place in ("here", "there"))
    assert carried.fingerprint == whole.fingerprint
    assert np.array_equal(carried.images[carried.positions], whole.images[whole.positions])
    assert np.array_equal(carried.test_images, whole.test_images)


def test_a_pack_that_was_damaged_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu_pack

    own = write_cifar(tmp_path / "here")
    monkeypatch.setattr(gpu_pack, "DATASETS", {"mine": own})
    path = gpu_pack.pack("mine", 10.0, tmp_path / "here", tmp_path / "carried")
    held: dict[str, Any] = dict(np.load(path))
    held["positions"] = np.roll(held["positions"], 1)
    np.savez(path, **held)
    with pytest.raises(ValueError, match="pack it again"):
        gpu_pack.unpack(path, tmp_path / "there")
