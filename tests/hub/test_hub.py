"""Runs on the Hub: what is pushed loads with `bench.load_model` and with timm, and comes back as it was."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from commands import Bench
from fake_hub import fake_hub
from project import ROOT

import bench as suite
from bench.cell import DataSet
from bench.hub.timm_form import preprocessing
from bench.rundir import RunDir, equal
from bench.vision import timm

RECIPE = """\
# Plain classifiers and others, a timm model with options and one whose scores are adjusted.
grid: {dataset: digits, imbalance_factor: 20, backbone: resnet8_cifar, seed: 0}
methods:
  ce: {}
  ldam: {}
  posthoc_la: {method: posthoc_logit_adjustment, from: ce}
  balanced_softmax: {backbone: {name: resnet10t, options: {width: 0.125}}}
  focal: {backbone: {name: test_vit, options: {img_size: 8, patch_size: 4}}}
protocol: {epochs: 1}
"""

#: Which of them timm loads as they are.
PLAIN = {"ce": True, "ldam": False, "posthoc_logit_adjustment": True, "balanced_softmax": True, "focal": True}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of all of them in its `results`."""
    place = tmp_path_factory.mktemp("hub")
    (place / "small.yaml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        table = suite.run("small.yaml", gpus=(), progress=False)
    assert table["status"].tolist() == ["done"] * 5
    return place


def run_of(place: Path, method: str) -> RunDir:
    (found,) = (place / "results" / "runs").glob(f"digits-if20-{method}-s0-*")
    return RunDir(place / "results", found.name)


@pytest.fixture
def push(place: Path, bench: Bench, tmp_path: Path):
    def call(method: str) -> tuple[Path, str]:
        folder = tmp_path / "there"
        command = ["push", run_of(place, method).run_id, "--to", "me/mine", "--dry-run", "--folder", folder]
        code, out = bench(*command, "--results", place / "results", "--licence", "cc-by-4.0")
        assert code == 0, out
        assert "nothing was sent" in out
        return folder, out

    return call


@pytest.mark.parametrize(("method", "with_timm"), PLAIN.items())
def test_what_is_pushed_scores_as_the_run_did(method: str, with_timm: bool, place: Path, push) -> None:
    folder, out = push(method)
    images = torch.randn(4, 3, 8, 8)
    with torch.inference_mode():
        expected = suite.load_model(run_of(place, method).run_id, place / "results")(images)
        torch.testing.assert_close(suite.load_model(folder)(images), expected, rtol=0, atol=0)
        assert ("and with timm" in out) == with_timm == (folder / "model.safetensors").exists()
        if with_timm:
            model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
            torch.testing.assert_close(model(images), expected, rtol=1e-3, atol=1e-3)
            seen = timm.data.resolve_model_data_config(model)
            assert [*seen["input_size"], *seen["mean"], seen["crop_pct"]] == [3, 8, 8, *(0.3053,) * 3, 1.0]


@pytest.mark.parametrize("streamed", [False, True])
def test_timm_crops_as_the_evaluation_did(streamed: bool) -> None:
    dataset = DataSet(name="birds", source="folder", folder="birds", image_size=224, streamed=streamed)
    assert preprocessing(dataset)["crop_pct"] == (224 / 256 if streamed else 1.0)


def test_the_card_has_what_was_measured(place: Path, push) -> None:
    folder, _ = push("balanced_softmax")
    text = (folder / "README.md").read_text()
    metadata = yaml.safe_load(text.split("---\n")[1])
    assert (metadata["license"], metadata["library_name"]) == ("cc-by-4.0", "timm")
    record = run_of(place, "balanced_softmax").read_record()
    (model,) = metadata["model-index"]
    values = {metric["name"]: metric["value"] for metric in model["results"][0]["metrics"]}
    assert values["accuracy (last epoch)"] == round(record["metrics"]["accuracy"], 2)
    assert values["few-shot accuracy"] == round(record["metrics"]["few"], 2)
    data = model["results"][0]["dataset"]
    assert data["name"] == "Digits-LT, imbalance factor 20"
    assert data["args"]["fingerprint"] == record["data"]["fingerprint"]["train"]
    assert "howpublished = {NeurIPS}" in text
    assert '"hf-hub:me/mine"' in text
    assert "bench.backbones" not in text, "resnet10t is timm's own"
    assert "405 images of 10 classes" in text
    assert json.loads((folder / "config.json").read_text())["pretrained_cfg"]["license"] == "cc-by-4.0"


def test_a_run_comes_back_from_a_folder(place: Path, push, bench: Bench, tmp_path: Path) -> None:
    folder, _ = push("ldam")
    mine = tmp_path / "mine"
    code, out = bench("pull", folder, "--results", mine)
    assert code == 0, out
    theirs, ours = run_of(place, "ldam"), RunDir(mine, run_of(place, "ldam").run_id)
    assert equal(theirs.read_record(), ours.read_record())
    assert ours.is_done()
    assert ours.epochs() == theirs.epochs()
    assert bench("evaluate", ours.run_id, "--results", mine)[0] == 0
    code, out = bench("pull", folder, "--results", mine)
    assert code == 2
    assert "is here already, and done" in out


def test_a_run_of_which_only_a_line_is_here_gets_its_weights(
    place: Path, push, bench: Bench, tmp_path: Path
) -> None:
    folder, _ = push("ce")
    mine = tmp_path / "mine"
    shutil.copytree(place / "results", mine)
    assert bench("export", "--results", mine)[0] == 0
    shutil.rmtree(mine / "runs")
    name = run_of(place, "ce").run_id
    code, out = bench("push", name, "--to", "me/mine", "--results", mine)
    assert code == 2
    assert f"{name}: its weights are not here; `rerun {name}` makes them again" in out
    assert bench("pull", folder, "--results", mine)[0] == 0
    assert suite.load_model(name, mine)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "record.json").unlink(), "has no record.json of a run"),
        (lambda folder: (folder / "weights.safetensors").unlink(), "has no weights.safetensors"),
        (lambda folder: (folder / "weights.safetensors").write_bytes(b"x"), "not what its record says"),
        (lambda folder: (folder / "cell.yaml").write_text("{}"), "cell"),
    ],
)
def test_a_spoilt_folder_is_refused(spoil, message: str, push, bench: Bench, tmp_path: Path) -> None:
    folder, _ = push("ldam")
    spoil(folder)
    code, out = bench("pull", folder, "--results", tmp_path / "mine")
    assert code == 2
    assert message in out
    assert len(out.splitlines()) == 1
    assert not list((tmp_path / "mine").rglob("record.json"))


def test_wrong_names_are_reported(place: Path, bench: Bench, tmp_path: Path) -> None:
    where = ["--results", place / "results"]
    assert "--to mine: write user/repo" in bench("push", "digits-if20-ce", "--to", "mine", *where)[1]
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").touch()
    command = ["push", "digits-if20-ce-s0", "--to", "me/a", "--folder", tmp_path / "letters", *where]
    assert "has other files in it" in bench(*command)[1]
    assert (tmp_path / "letters" / "a.txt").exists()


def test_out_and_in_by_the_hub(place: Path, tmp_path: Path) -> None:
    """By commands of their own, as the library reads its endpoint when it is imported."""

    def call(*arguments: object, token: str = "hf_fake") -> subprocess.CompletedProcess[str]:
        own = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": token}
        command = [sys.executable, ROOT / "run_bench.py", *map(str, arguments)]
        environment = os.environ | own | {"HF_HUB_DISABLE_XET": "1", "COLUMNS": "200"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)

    name = run_of(place, "ce").run_id
    push = ["push", name, "--to", "me/digits", "--results", place / "results", "--folder", tmp_path / "there"]
    with fake_hub() as (address, repos):
        refused = call(*push, token="hf_wrong")
        assert refused.returncode == 2, refused
        assert refused.stderr.startswith("error: me/digits: ")
        assert "HF_TOKEN" in refused.stderr
        sent = call(*push)
        assert sent.returncode == 0, sent
        assert f"sent to {address}/me/digits" in sent.stdout
        files = repos["me/digits"]
        assert {"README.md", "config.json", "model.safetensors", "record.json"} < files.keys()
        fetched = call("pull", "me/digits", "--results", tmp_path / "mine")
        assert fetched.returncode == 0, fetched
        ours = RunDir(tmp_path / "mine", name)
        assert ours.weights.read_bytes() == run_of(place, "ce").weights.read_bytes()
        unknown = call("pull", "me/nothing", "--results", tmp_path / "mine")
        assert unknown.returncode == 2, unknown
        assert unknown.stderr.startswith("error: me/nothing: ")
        assert len(unknown.stderr.splitlines()) == 1
