"""The wheel: what it holds, and that it works where there is no checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
import torch
from project import ROOT

SOURCES = ["bench", "methods", "recipes", "results/published", "tests", "benchmarks"]

RECIPE = """\
# Two cells, for a test.
include: core_digits_base.yaml
grid: {backbone: resnet8_cifar, seed: 0}
protocol: {epochs: 1, evaluate_every: 1, schedule: {warmup_epochs: 0}}
methods: {ce: {}, ldam_drw: {}}
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built of a copy: what setuptools leaves behind would be in the next one."""
    root = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        shutil.copytree(ROOT / name, root / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, root / "source")
    options = ["--no-build-isolation", "--no-deps", "--no-index", "--quiet", "--wheel-dir", root]
    check([sys.executable, "-m", "pip", "wheel", *options, root / "source"], root)
    (built,) = root.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel, beside the packages of this one, which it depends on."""
    home = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    install = ["install", "--no-deps", "--no-index", "--quiet", wheel]
    check([sys.executable, "-m", "pip", "--python", python, *install], home)
    (packages,) = home.glob("lib/python*/site-packages")
    (packages / "beside.pth").write_text(f"{Path(torch.__file__).parents[1]}\n")
    return python


def check(command: list[object], folder: Path) -> str:
    """Run a command as a stranger would, outside of the checkout; return what it prints."""
    clean = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR") if key in os.environ}
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, env=clean, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


LITERATURE = ("README.md", "additions_2026.csv", "methods.csv", "published.csv")


def test_the_wheel_holds_what_it_needs_and_nothing_else(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    patterns = {
        "bench": ("*.py", "data/sets/*.csv", "report/templates/*"),
        "methods": ("*.py", "*.csv", "*.yaml"),
    }
    wanted = {
        file.relative_to(ROOT).as_posix()
        for package, kinds in patterns.items()
        for kind in kinds
        for file in (ROOT / package).rglob(kind)
    }
    wanted |= {f"bench/{file.relative_to(ROOT).as_posix()}" for file in (ROOT / "recipes").rglob("*.yaml")}
    wanted |= {f"bench/literature/{name}" for name in LITERATURE}
    assert held == wanted


def test_it_works_outside_of_a_checkout(python: Path, tmp_path: Path) -> None:
    command = python.with_name("longtail-bench")
    where = check([python, "-c", "import bench; print(bench.__file__)"], tmp_path)
    assert Path(where.strip()).is_relative_to(python.parents[1])
    assert "LDAM-DRW" in check([command, "list", "methods"], tmp_path)
    assert "quick" in check([command, "list", "recipes"], tmp_path)
    assert "33 of 33 runs" in check([command, "plan", "recipes/quick.yaml", "--gpus", "none"], tmp_path)

    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "two.yaml").write_text(RECIPE)
    assert "2 done" in check([command, "run", "two", "--gpus", "none", "--jobs", "1"], tmp_path)
    check([command, "report"], tmp_path)
    assert "LDAM-DRW" in (tmp_path / "reports" / "two.md").read_text()
    assert "Decoupling" in (tmp_path / "reports" / "index.html").read_text(), "the literature is there"
