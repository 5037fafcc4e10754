"""What the documents say holds: code runs, files exist, commands are commands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import bench
from bench import registry
from bench.backbones import create
from bench.leaderboard import gather
from bench.leaderboard.check import words
from bench.leaderboard.verdict import Verdict
from bench.method import Batch, Clock
from bench.recipe import load
from bench.recipe.files import recipes
from bench.records import Results
from bench.report import text as printing

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "docs/findings.md",
    "docs/gpu.md",
    "docs/fidelity.md",
]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_that_are_named_exist(name):
    text = (ROOT / name).read_text()
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    named = re.findall(r"\b((?:recipes|tests|benchmarks|bench|methods)/[\w/]+\.(?:py|yaml))\b", text)
    for path in {*links, *named}:
        assert (ROOT / path).exists(), path


def test_commands_of_the_readme_are_commands():
    shown = subprocess.run(
        [sys.executable, "run_bench.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    commands = set(re.findall(r"run_bench\.py +([a-z]+)", README))
    assert {"run", "plan", "rerun", "status", "report", "evaluate", "list", "data"} <= commands
    for command in commands:
        assert re.search(rf"\b{command}\b", shown), command


def test_what_the_readme_calls_from_python_is_there():
    called = set(re.findall(r"\bbench\.(\w+)\(", README))
    assert {"run", "load_results", "build_method"} <= called <= set(bench.__all__)


def test_recipes_of_the_repository_are_valid():
    paths = [path for path in recipes(ROOT / "recipes") if path.parent.name != "shared"]
    assert len({path.name for path in paths}) == len(paths), "names stand for one recipe each"
    for path in paths:
        recipe = load(path)
        assert recipe.notes, path
        assert recipe.title, path


def test_the_recipe_of_the_readme_is_valid(tmp_path):
    (text,) = re.findall(r"```yaml\n(# What it reproduces.*?)```", README, flags=re.S)
    (tmp_path / "shown.yaml").write_text(text)
    assert len(load(tmp_path / "shown.yaml").points) == 2 * 3 * 3


def test_the_method_of_the_readme_trains(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    (code,) = re.findall(r"<!-- method -->\n```python\n(.*?)```", README, flags=re.S)
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    (tmp_path / "my_method.py").write_text(code)
    registry.load_files([tmp_path / "my_method.py"])
    entry = registry.find("temperature_ce")
    assert entry.choose(tau=0.5, reweight_from=0.8).changed == ("reweight_from", "tau")
    torch.manual_seed(0)
    method = entry.build(lambda **_: create("resnet8_cifar"), np.array([9, 3, 1]), tau=0.5)
    method.before_epoch(Clock(0, 1, 0, 1))
    batch = Batch((torch.randn(4, 3, 16, 16),), torch.tensor([0, 1, 2, 0]), torch.arange(4))
    expected = F.cross_entropy(method(batch.images) / 0.5, batch.labels)
    torch.testing.assert_close(method.loss(batch), expected)


def verdicts(dataset: str, factor: float) -> str:
    """The table of all measured cells of a data set that a published number stands beside."""
    board = gather(Results(ROOT / "results"))
    entries = {entry["key"]: entry for entry in board.entries}
    lines = [
        "| method | n | last epoch | many / medium / few | compared | published | gap | verdict | by |",
        "|---|---:|---:|---:|---:|---:|---:|---|---|",
    ]
    for pair in sorted(board.check()[0], key=lambda pair: -pair["measured"]):
        if (pair["dataset"], pair["imbalance_factor"]) != (dataset, factor) or pair["published"] is None:
            continue
        entry, judged = entries[pair["key"]], pair["verdict"] != Verdict.DIFFERS
        row = [
            pair["title"],
            str(pair["n"]),
            printing.number(entry["accuracy"]),
            " / ".join(printing.number(entry[name]) for name in ("many", "medium", "few")),
            f"{printing.number(pair['measured'])} ({'best' if pair['ours'] == 'best_test' else 'last'})",
            printing.printed(pair["published"]),
            printing.gap(pair["d"]) if judged else "",
            str(pair["verdict"]) if judged else f"{pair['verdict']}: {words(pair['differs'])}",
            pair["reported_by"],
        ]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def test_the_verdicts_of_the_readme_are_those_of_check():
    marked = re.compile(r"(<!-- verdicts (\S+) (\S+) -->\n)(.*?)(<!-- /verdicts -->)", flags=re.S)
    found = marked.findall(README)
    assert found
    if os.environ.get("UPDATE_EXPECTED"):
        filled = marked.sub(lambda m: m[1] + verdicts(m[2], float(m[3])) + m[5], README)
        (ROOT / "README.md").write_text(filled)
        found = marked.findall(filled)
    for _, dataset, factor, table, _ in found:
        assert table == verdicts(dataset, float(factor)), "run this test with UPDATE_EXPECTED=1"
