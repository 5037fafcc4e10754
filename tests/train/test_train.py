"""One cell, from its data to its record: resuming, failing, equality."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from project import HELPERS, ROOT
from small_runs import make_cell, run

from bench.cell import BackboneChoice, Protocol
from bench.data.read.sources import read
from bench.data.split.load import load
from bench.errors import BenchError
from bench.rundir import RunDir, equal
from bench.train.build import build
from bench.train.evaluate import evaluate_run
from bench.train.run import run_cell
from methods.cross_entropy import CrossEntropy

torch.set_num_threads(1)


def test_the_test_set_is_scored_every_few_epochs_and_at_the_end():
    protocol = Protocol(epochs=20, evaluate_every=5, evaluate_last=3)
    assert [e for e in range(20) if protocol.evaluates_after(e)] == [4, 9, 14, 17, 18, 19]
    assert [e for e in range(3) if Protocol(epochs=3, evaluate_every=2).evaluates_after(e)] == [1, 2]
    assert Protocol(evaluate_every=5).identity() == {"evaluate_every": 5}  # ids stay as they were


def test_a_run_leaves_a_record_that_says_it_all(tmp_path):
    cell = make_cell()
    seen = []
    record = run(cell, tmp_path, tmp_path, report=seen.append)
    assert record["status"] == "done", record["traceback"]
    assert [line["epoch"] for line in seen] == [0, 1, 2]
    assert ["accuracy" in line for line in seen] == [False, True, True]
    assert seen == RunDir(tmp_path, cell.run_id).epochs()
    assert record["metrics"]["epoch"] == 2
    assert record["metrics"]["accuracy"] == seen[-1]["accuracy"]
    assert record["best_on_test"]["accuracy"] == max(line.get("accuracy", 0) for line in seen)
    assert sum(map(sum, record["confusion"])) == 500
    assert record["data"]["class_counts"] == [120, 86, 61, 44, 31, 22, 16, 11, 8, 6]
    assert record["image_hashes"] == load(cell.dataset, cell.imbalance_factor, Path("data")).image_hashes
    assert record["model"]["inference_parameters"] == record["model"]["parameters"] > 70_000
    assert str(tmp_path) not in json.dumps(record)


def test_a_finished_run_is_left_as_it_is(tmp_path):
    run(make_cell(epochs=1), tmp_path, tmp_path)
    run(make_cell(epochs=1), tmp_path, tmp_path, report=lambda line: pytest.fail("it trained again"))


def test_same_cell_same_record_other_seed_other_weights(tmp_path):
    first = run(make_cell(), tmp_path / "a", tmp_path)
    again = run(make_cell(), tmp_path / "b", tmp_path)
    other = run(make_cell(seed=1), tmp_path / "a", tmp_path)
    assert equal(first, again)
    assert first["files"] != other["files"]


KILL_ME = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {helpers!r})
import torch; torch.set_num_threads(1)
from small_runs import make_cell
from bench.train.run import run_cell
def report(line):
    if line["epoch"] == {epoch}:
        os.kill(os.getpid(), signal.SIGKILL)
cell = make_cell("ldam_drw", epochs=6)
run_cell(cell, Path({results!r}), Path({data!r}), report=report, checkpoint_seconds=0)
"""


def test_what_is_dropped_depends_on_the_step_and_not_on_what_else_was_drawn(tmp_path):
    cell = make_cell(epochs=2)
    options = {"img_size": 8, "patch_size": 4, "depth": 2, "drop_path_rate": 0.5}
    vit = BackboneChoice(name="vit_tiny_patch16_224", options=options)
    cell = cell.model_copy(update={"backbone": vit})
    straight = run(cell, tmp_path / "straight", tmp_path)
    drawn = run(cell, tmp_path / "drawn", tmp_path, report=lambda line: torch.rand(7))
    assert equal(straight, drawn)


@pytest.mark.parametrize("epoch", [0, 3, 5])
def test_a_killed_run_ends_as_if_it_had_not_been(tmp_path, epoch):
    cell = make_cell("ldam_drw", epochs=6)
    straight = run(cell, tmp_path / "straight", tmp_path)
    script = KILL_ME.format(
        helpers=str(HELPERS), epoch=epoch, results=str(tmp_path / "killed"), data=str(tmp_path)
    )
    died = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert died.returncode == -signal.SIGKILL
    where = RunDir(tmp_path / "killed", cell.run_id)
    assert not where.record.exists()

    resumed = run(cell, tmp_path / "killed", tmp_path)
    assert equal(straight, resumed)
    for name in ("weights.safetensors", "logits.npz"):
        one, other = (tmp_path / place / "runs" / cell.run_id / name for place in ("straight", "killed"))
        assert one.read_bytes() == other.read_bytes()
    assert [line["epoch"] for line in where.epochs()] == list(range(6))


def test_a_child_starts_from_its_parents_weights(tmp_path):
    parent = make_cell("ce", epochs=2)
    run(parent, tmp_path, tmp_path)
    posthoc = run(make_cell("posthoc_logit_adjustment", parent, tau=0.0), tmp_path, tmp_path)
    assert posthoc["status"] == "done", posthoc["traceback"]
    of_parent = RunDir(tmp_path, parent.run_id).read_record()
    assert posthoc["metrics"]["per_class"] == of_parent["metrics"]["per_class"]
    assert posthoc["metrics"]["epoch"] is None
    adjusted = run(make_cell("posthoc_logit_adjustment", parent, tau=1.0), tmp_path, tmp_path)
    assert adjusted["metrics"]["few"] > of_parent["metrics"]["few"]
    retrained = run(make_cell("crt", parent, epochs=2), tmp_path, tmp_path)
    assert retrained["status"] == "done", retrained["traceback"]


def test_a_hyperparameter_that_an_older_record_lacks_has_the_default_of_its_method():
    cell = make_cell("ldam_supcon_rsg")  # its class has other defaults
    older = {name: value for name, value in cell.method.params.items() if name != "resample"}
    cell = cell.model_copy(update={"method": cell.method.model_copy(update={"params": older})})
    assert build(cell, np.array([20, 10, 5])).resample is True


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (lambda: make_cell(lr=1e9), "lower protocol.optimizer.lr"),
        (lambda: make_cell("crt", make_cell("ce")), "no such file; the run has not ended"),
        (
            lambda: make_cell("posthoc_logit_adjustment", make_cell("balanced_softmax")),
            "prior twice",
        ),
    ],
)
def test_what_fails_is_a_record_with_its_reason(tmp_path, cell, reason):
    if "prior" in reason:
        run(make_cell("balanced_softmax"), tmp_path, tmp_path)
    record = run(cell(), tmp_path, tmp_path)
    assert record["status"] == "failed"
    assert reason in record["reason"]
    assert "Traceback" in record["traceback"]
    assert str(ROOT) not in record["traceback"]


@pytest.mark.parametrize(
    ("wrong", "got"),
    [
        (lambda loss: None, "got NoneType"),
        (lambda loss: 0.5, "got float"),
        (lambda loss: loss.detach(), r"got a tensor \(\) without a gradient"),
        (lambda loss: loss.expand(3), r"got a tensor \(3,\)"),
    ],
)
def test_a_loss_that_is_none_is_named_with_its_method(tmp_path, monkeypatch, wrong, got):
    right = CrossEntropy.criterion
    monkeypatch.setattr(CrossEntropy, "criterion", lambda *args: wrong(right(*args)))
    record = run(make_cell(), tmp_path, tmp_path)
    assert record["status"] == "failed"
    assert re.search(f"ce: its loss should be one number with a gradient, {got}", record["reason"])


def test_a_loss_that_is_nan_from_the_start_is_not_blamed_on_the_rate(tmp_path, monkeypatch):
    right = CrossEntropy.criterion
    monkeypatch.setattr(CrossEntropy, "criterion", lambda *args: right(*args) * float("nan"))
    record = run(make_cell(), tmp_path, tmp_path)
    assert record["status"] == "failed"
    assert record["reason"].startswith("ce: the loss is nan in the first step")


@pytest.mark.parametrize("damage", [lambda b: b[:100], lambda b: b[:50] + b"x" + b[51:], lambda b: b""])
def test_a_damaged_checkpoint_is_refused_by_its_name(tmp_path, damage):
    cell = make_cell()
    run(cell, tmp_path, tmp_path, checkpoint_seconds=0)
    checkpoint = RunDir(tmp_path, cell.run_id).checkpoint
    checkpoint.write_bytes(damage(checkpoint.read_bytes()))
    RunDir(tmp_path, cell.run_id).record.unlink()
    record = run(cell, tmp_path, tmp_path)
    assert record["status"] == "failed"
    assert "checkpoint.pt: damaged" in record["reason"]


def test_a_checkpoint_of_another_cell_is_refused(tmp_path):
    one, other = make_cell(), make_cell(seed=1)
    run(one, tmp_path, tmp_path, checkpoint_seconds=0)
    where = RunDir(tmp_path, other.run_id)
    where.path.mkdir(parents=True)
    where.checkpoint.write_bytes(RunDir(tmp_path, one.run_id).checkpoint.read_bytes())
    record = run(other, tmp_path, tmp_path)
    assert record["status"] == "failed"
    assert "checkpoint of another cell" in record["reason"]


def test_a_full_disk_fails_the_run_and_harms_no_other(tmp_path):
    good = make_cell()
    run(good, tmp_path, tmp_path)
    before = {p: p.read_bytes() for p in (tmp_path / "runs").rglob("*") if p.is_file()}
    script = textwrap.dedent(f"""
        import resource, signal, sys
        from pathlib import Path
        sys.path.insert(0, {str(HELPERS)!r})
        from small_runs import make_cell
        from bench.train.run import run_cell
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # weights do not fit, a record does
        run_cell(make_cell(seed=1), Path({str(tmp_path)!r}), Path({str(tmp_path)!r}))
    """)
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    record = RunDir(tmp_path, make_cell(seed=1).run_id).read_record()
    assert record["status"] == "failed"
    assert "File too large" in record["reason"]
    assert all(path.read_bytes() == content for path, content in before.items())


def test_an_unwritable_results_directory_is_reported(tmp_path):
    (tmp_path / "results").write_text("a file where a directory should be")
    with pytest.raises(OSError, match="results"):
        run_cell(make_cell(), tmp_path / "results", tmp_path)


def test_a_trained_model_scores_its_test_set_and_any_folder_of_images(tmp_path):
    cell = make_cell()
    record = run(cell, tmp_path, tmp_path)
    there = RunDir(tmp_path, cell.run_id)
    again = evaluate_run(there, tmp_path)
    assert again["accuracy"] == pytest.approx(record["metrics"]["accuracy"], abs=0.21)  # half precision

    images = read(cell.dataset, tmp_path)
    for name in ("0", "3"):
        folder = tmp_path / "mine" / name
        folder.mkdir(parents=True)
        for i in (images.test_labels == int(name)).nonzero()[0][:20]:
            Image.fromarray(images.test_images[i]).save(folder / f"{i}.png")
    scored = evaluate_run(there, tmp_path, tmp_path / "mine")
    assert [c for c, accuracy in enumerate(scored["per_class"]) if accuracy is not None] == [0, 3]
    (tmp_path / "mine" / "3").rename(tmp_path / "mine" / "three")
    with pytest.raises(BenchError, match="knows no class 'three'"):
        evaluate_run(there, tmp_path, tmp_path / "mine")
    there.weights.write_bytes(there.weights.read_bytes()[:-9])
    with pytest.raises(BenchError, match="damaged weights"):
        evaluate_run(there, tmp_path)
