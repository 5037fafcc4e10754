"""Stale results are seen: a finished run stands for its data, its code and its parents."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Bench
from PIL import Image
from records_factory import CIFAR10, finish, make_cell

from bench import ledger, registry
from bench.cell import BackboneChoice, DataSet, Protocol
from bench.data.split import load as split
from bench.launch.rerun import begin
from bench.records import Results
from bench.rundir import RunDir, equal
from bench.stale import Now, rests_on
from bench.train.run import run_cell

RECIPE = """\
grid: {dataset: mine, backbone: resnet8_cifar}
protocol: {epochs: 1, batch_size: 16, augmentation: none}
methods:
  ce: {}
  shifted: {method: posthoc_logit_adjustment, from: ce}
datasets:
  mine: {source: folder, folder: mine, image_size: 8, profile: natural}
"""

METHOD = """\
from bench.registry import register
from methods.cross_entropy import CrossEntropy


@register("own_loss", title="Own", family="own")
class Own(CrossEntropy):
    def loss(self, batch):
        return 1.0 * super().loss(batch)
"""


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def plant(root: Path, start: int = 0) -> None:
    """Two classes of noise, no two images alike."""
    for number, (part, name, i) in enumerate(
        (part, name, i) for part in ("train", "test") for name in ("cat", "dog") for i in range(4)
    ):
        draw(root / part / name / f"{i}.png", start + number)


@dataclass
class Place:
    """A folder with data and a recipe, and the command line called on it."""

    root: Path
    bench: Bench

    def __call__(self, command: str, recipe: str = "r.yaml", *more: object) -> tuple[int, str]:
        where = ["--results", self.root / "results", "--data", self.root / "data"]
        if command in ("run", "plan"):
            where += ["--gpus", "none"]
        if command == "run":
            where += ["--reports", self.root / "reports"]
        name = recipe.removesuffix(".yaml") if command == "status" else self.root / recipe
        return self.bench(command, name, *where, *more)

    def states(self) -> list[str]:
        table = Results(self.root / "results", Now(self.root / "data")).table()
        return sorted(table.status)


@pytest.fixture
def place(tmp_path: Path, bench: Bench) -> Place:
    plant(tmp_path / "data/mine")
    (tmp_path / "r.yaml").write_text(RECIPE)
    return Place(tmp_path, bench)


def test_a_run_on_changed_data_is_stale_until_it_is_asked_to_train_anew(place: Place) -> None:
    code, out = place("run")
    assert code == 0, out
    assert "2 done" in out
    code, out = place("run")
    assert (code, "2 done" in out) == (0, True), out
    before = {path: path.read_bytes() for path in place.root.glob("results/runs/*/record.json")}

    draw(place.root / "data/mine/train/cat/new.png", 99)
    code, out = place("status")
    assert code == 0
    assert out.count("stale") >= 3
    assert "training images" in out
    assert "--retrain-stale" in out
    code, out = place("plan")
    assert "0 of 2 runs to train" in out
    assert "stale" in out
    code, out = place("run")
    assert code == 1
    assert "2 stale" in out
    assert before == {path: path.read_bytes() for path in before}
    page = (place.root / "reports/r.md").read_text()
    assert "stale" in page
    assert "0 of 1" in page  # its number is in no table
    code, out = place("run", "r.yaml", "--retrain-stale")
    assert code == 0, out
    assert "2 done" in out
    assert place.states() == ["done", "done"]
    assert before != {path: path.read_bytes() for path in before}


def test_what_cannot_be_trained_on_these_data_is_left_as_it_was(place: Place) -> None:
    assert place("run")[0] == 0
    before = {path: path.read_bytes() for path in place.root.glob("results/runs/*/*") if path.name != "lock"}
    (parent,) = (run for run in Results(place.root / "results") if run.cell.method.name == "ce")
    where = ("--results", place.root / "results", "--gpus", "none")
    (place.root / "empty").mkdir()
    code, out = place.bench("rerun", parent.run_id, *where, "--data", place.root / "empty")
    assert code == 1
    assert "no such folder" in out
    draw(place.root / "data/mine/train/cat/new.png", 99)
    code, out = place.bench("rerun", parent.run_id, *where, "--data", place.root / "data")
    assert code == 2  # it would be no check of the record
    assert "training images" in out
    assert "--retrain-stale" in out
    (place.root / "data/mine/train/cat/new.png").write_bytes(b"no image")
    assert place("run", "r.yaml", "--retrain-stale")[0] in (1, 2)
    now = {path: path.read_bytes() for path in place.root.glob("results/runs/*/*") if path.name != "lock"}
    assert now == before


def test_a_wish_to_train_once_more_is_planned_and_kept_by_the_next_run(place: Place) -> None:
    assert place("run", "r.yaml", "--only", "label=ce")[0] == 0
    (run,) = Results(place.root / "results")
    begin(run.directory.path.parents[1], [run.cell], [run.run_id], retry_failed=False)
    code, out = place("plan", "r.yaml", "--only", "label=ce")
    assert "1 of 1 runs to train" in out
    assert "(once more)" in out
    for named in (["r"], []):
        where = ("--results", place.root / "results", "--data", place.root / "data")
        assert "trained once more: interrupted" in place.bench("status", *named, *where)[1]
    code, out = place("run", "r.yaml", "--only", "label=ce")
    assert (code, "1 done" in out) == (0, True), out
    assert not (place.root / "results/rerun").exists()
    assert "0 of 1 runs to train" in place("plan", "r.yaml", "--only", "label=ce")[1]


def test_files_that_are_only_touched_are_no_change(place: Place) -> None:
    assert place("run")[0] == 0
    for path in place.root.glob("data/mine/*/*/*.png"):
        os.utime(path, (1, 1))
    assert place.states() == ["done", "done"]
    assert list(place.root.glob("data/.cache/contents/*.json"))  # so that it is looked at only once


def test_data_that_are_not_here_say_nothing(place: Place) -> None:
    assert place("run")[0] == 0
    shutil.rmtree(place.root / "data/mine")
    code, out = place("status")
    assert code == 0
    assert "stale" not in out.replace("│ stale", "").replace("┃ stale", "")
    assert "data not here" in out
    assert place.states() == ["done", "done"]


def test_a_class_that_went_is_a_change(place: Place) -> None:
    assert place("run")[0] == 0
    shutil.rmtree(place.root / "data/mine/train/dog")
    assert place.states() == ["stale", "stale"]


def test_a_name_that_meets_other_content_stops(place: Place) -> None:
    assert place("run")[0] == 0
    plant(place.root / "data/other", start=500)
    text = RECIPE.replace("folder: mine", "folder: other")
    (place.root / "other.yaml").write_text(text)
    (place.root / "method.yaml").write_text(text.replace("ce: {}", "ce: {method: focal}"))
    for recipe in ("other.yaml", "method.yaml"):
        for command in ("plan", "run"):
            code, out = place(command, recipe)
            assert code == 2
            assert "'mine': other has other content than mine" in out
            assert "another name" in out
    shutil.copytree(place.root / "data/mine", place.root / "data/moved")
    (place.root / "moved.yaml").write_text(RECIPE.replace("folder: mine", "folder: moved"))
    code, out = place("run", "moved.yaml")
    assert (code, "2 done" in out) == (0, True), out


def fresh(recipe: str) -> str:
    return recipe.replace("  ce: {}", "  ce: {method: own_loss}")


@pytest.fixture
def forget() -> Callable[[], None]:
    """Forget methods files, as another process would."""

    def call() -> None:
        registry._specs.pop("own_loss", None)
        for name in [name for name in sys.modules if name.startswith("user_methods_own_loss")]:
            del sys.modules[name]

    return call


def test_changed_code_of_a_user_is_stale_and_so_are_its_children(
    place: Place, forget: Callable[[], None]
) -> None:
    file = place.root / "own_loss.py"
    file.write_text(METHOD)
    (place.root / "r.yaml").write_text(fresh(RECIPE))
    try:
        code, out = place("run", "r.yaml", "--methods", file)
        assert code == 0, out
        forget()
        file.write_text(METHOD.replace("1.0", "2.0"))
        code, out = place("status", "r.yaml", "--methods", file)
        assert "its methods file changed since" in out
        assert "its parent" in out
        code, out = place("run", "r.yaml", "--methods", file)
        assert code == 1
        assert "2 stale" in out
        code, out = place("run", "r.yaml", "--methods", file, "--only", "label=ce", "--retrain-stale")
        assert code == 0, out
        forget()
        code, out = place("status")  # the child was trained from the parent that was
        assert "was trained again since, on other data or code" in out
        code, out = place("run", "r.yaml", "--methods", file, "--retrain-stale")
        assert code == 0, out
        assert place.states() == ["done", "done"]
    finally:
        forget()


def test_a_stale_run_is_not_judged(place: Place) -> None:
    assert place("run", "r.yaml", "--only", "label=ce")[0] == 0
    (path,) = place.root.glob("results/runs/*")
    where = ("--results", place.root / "results", "--data", place.root / "data")
    assert "1 measured cells" in place.bench("check", *where)[1]
    draw(place.root / "data/mine/train/cat/new.png", 99)
    assert "nothing is measured yet" in place.bench("check", *where)[1]
    assert "the run is stale" in place.bench("explain", path.name, *where)[1]


def test_nothing_starts_from_a_stale_parent(place: Place) -> None:
    assert place("run", "r.yaml", "--only", "label=ce")[0] == 0
    draw(place.root / "data/mine/train/cat/new.png", 99)
    code, out = place("run")
    assert code == 1
    assert "1 stale, 1 blocked" in out
    code, out = place("run", "r.yaml", "--retrain-stale")
    assert code == 0
    assert "2 done" in out


class Stop(BaseException):
    """What a run does not catch."""


@pytest.mark.parametrize("changed", [False, True])
def test_an_interrupted_run_goes_on_only_on_the_same_data(changed: bool, tmp_path: Path) -> None:
    plant(tmp_path / "data/mine")
    entry = registry.find("ce")
    cell = make_cell(
        dataset=MINE,
        imbalance_factor=1.0,
        backbone=BackboneChoice(name="resnet8_cifar"),
        protocol=Protocol(epochs=3, batch_size=16, augmentation="none"),
    ).model_copy(update={"method": entry.choose()})
    seen: list[int] = []

    def report(line: dict[str, Any]) -> None:
        seen.append(line["epoch"])
        if seen == [0, 1]:
            raise Stop

    where = (tmp_path / "results", tmp_path / "data")
    with pytest.raises(Stop):
        run_cell(cell, *where, report=report, checkpoint_seconds=0)
    if changed:
        draw(tmp_path / "data/mine/train/cat/new.png", 99)
    run_cell(cell, *where, report=report, checkpoint_seconds=0)
    assert seen == [0, 1, *([0, 1, 2] if changed else [1, 2])]
    assert [line["epoch"] for line in RunDir(where[0], cell.run_id).epochs()] == [0, 1, 2]


def test_what_a_run_rests_on_is_no_part_of_what_it_says(place: Place) -> None:
    assert place("run", "r.yaml", "--only", "label=ce")[0] == 0
    (path,) = place.root.glob("results/runs/*")
    record = RunDir(place.root / "results", path.name).read_record()
    rests = record["environment"]["rests_on"]
    assert set(rests) == {"data"}
    older = json.loads(json.dumps(record))
    del older["environment"]["rests_on"]
    assert equal(record, older)
    assert not ledger.unlike(ledger.packed(record), ledger.packed(older))


# -- records alone -----------------------------------------------------------------------------------
MINE = DataSet(name="mine", source="folder", folder="mine", image_size=8, profile="natural")


def test_records_without_a_key_are_held_by_their_fingerprint(tmp_path: Path) -> None:
    plant(tmp_path / "data/mine")
    own = split.load(MINE, 1.0, tmp_path / "data")
    data = {"fingerprint": own.fingerprint, "class_names": ["cat", "dog"], "title": "Mine"}
    results = tmp_path / "results"
    for seed, change in enumerate(({}, {"fingerprint": {"train": "0" * 16, "test": "1" * 16}})):
        cell = make_cell(seed=seed, dataset=MINE, imbalance_factor=1.0)
        counts = {"class_counts": [4, 4], "test_counts": [4, 4]}
        finish(results, cell, data={**data, **counts, **change})
    finish(results, make_cell(dataset=CIFAR10))
    runs = Results(results, Now(tmp_path / "data"))
    reported = {(run.cell.dataset.name, run.cell.seed): run.state for run in runs}
    assert reported["mine", 0].status == "done"
    assert reported["mine", 1].status == "stale"
    assert (reported["cifar10", 0].status, reported["cifar10", 0].reason) == ("done", "data not here")
    assert {run.state.status for run in Results(results)} == {"done"}


def lists(root: Path) -> DataSet:
    plant(root)
    for part in ("train", "test", "val"):
        source = "test" if part == "val" else part
        rows = [f"{source}/{name}/{i}.png {c}" for c, name in enumerate(("cat", "dog")) for i in range(4)]
        (root / f"{part}.txt").write_text("\n".join(rows) + "\n")
    (root / "names.txt").write_text("cat\ndog\n")
    reported = {"train": "train.txt", "test": "test.txt", "val": "val.txt", "classes": "names.txt"}
    return DataSet(name="mine", source="list", folder="mine", image_size=8, profile="natural", lists=reported)


@pytest.mark.parametrize(
    ("file", "was", "now", "reported"),
    [
        ("train.txt", "train/cat/0.png 0\n", "", "training images"),
        ("test.txt", "test/cat/0.png 0\n", "", "test images"),
        ("val.txt", "test/cat/0.png 0\n", "", "validation images"),
        ("names.txt", "dog", "wolf", "class names"),
    ],
)
def test_lists_and_class_names_are_held_against_the_record(
    file: str, was: str, now: str, reported: str, tmp_path: Path
) -> None:
    dataset = lists(tmp_path / "mine")
    cell = make_cell(dataset=dataset, imbalance_factor=1.0)
    own = split.load(dataset, 1.0, tmp_path)
    data = {"fingerprint": own.fingerprint, "class_names": list(own.class_names)}
    environment = {"rests_on": rests_on(cell, tmp_path, None, {})}
    finish(tmp_path / "results", cell, data=data, environment=environment)

    def state() -> tuple[str, str | None]:
        found = Results(tmp_path / "results", Now(tmp_path)).of(cell).state
        return found.status, found.reason

    assert state() == ("done", None)
    path = tmp_path / "mine" / file
    path.write_text(path.read_text().replace(was, now))
    assert state()[0] == "stale"
    assert reported in str(state()[1])


def test_extra_images_are_held_against_the_record(tmp_path: Path) -> None:
    plant(tmp_path / "mine")
    draw(tmp_path / "made/cat/0.png", 70)
    dataset = DataSet(
        **MINE.model_dump(exclude={"extra_train", "shots"}), extra_train={"name": "made", "folder": "made"}
    )
    cell = make_cell(dataset=dataset, imbalance_factor=1.0)
    own = split.load(dataset, 1.0, tmp_path)
    data = {"fingerprint": own.fingerprint, "class_names": list(own.class_names)}
    finish(tmp_path / "results", cell, data=data)
    assert Results(tmp_path / "results", Now(tmp_path)).of(cell).state.status == "done"
    draw(tmp_path / "made/cat/0.png", 71)
    state = Results(tmp_path / "results", Now(tmp_path)).of(cell).state
    assert state.status == "stale"
    assert "extra training images" in str(state.reason)


def test_runs_of_older_code_are_not_averaged_with_newer_ones(tmp_path: Path) -> None:
    for seed, code in enumerate(("old", "new", "new")):
        cell = make_cell("own_loss", seed=seed)
        timing = {"finished": f"2026-01-0{seed + 1}T00:00:00+00:00"}
        finish(tmp_path, cell, timing=timing, environment={"rests_on": {"code": code}})
    assert {run.cell.seed: run.state.status for run in Results(tmp_path)} == {
        0: "stale",
        1: "done",
        2: "done",
    }
