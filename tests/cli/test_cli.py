"""The command line, as its users meet it: small stories, and what their mistakes are answered with."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import Bench
from project import ROOT
from small_recipe import RECIPE, where

from bench import registry
from bench.cli import main
from bench.errors import BenchError
from bench.launch import local
from bench.method import Method
from bench.rundir import RunDir

METHOD = '''\
"""A method of the user's own, which goes wrong while a file says so."""

from pathlib import Path

import torch.nn.functional as F

from bench.registry import register
from methods.cross_entropy import CrossEntropy


@register("moody", title="Moody", family="own", venue="here", year=2024, paper="none")
class Moody(CrossEntropy):
    def loss(self, batch):
        if Path(__file__).with_name("trouble").exists():
            raise RuntimeError("in a bad mood")
        return super().loss(batch)
'''


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe that was run: two seeds of two methods, one the parent of the other."""
    root = tmp_path_factory.mktemp("story")
    (root / "small.yaml").write_text(RECIPE)
    with pytest.raises(SystemExit) as end:
        main(["run", str(root / "small.yaml"), *map(str, where(root)), "--reports", str(root / "reports")])
    assert end.value.code == 0
    return root


def runs(root: Path) -> dict[str, Any]:
    """The records, by method and seed."""
    found = [RunDir(root / "results", path.name).read_record() for path in (root / "results/runs").iterdir()]
    return {f"{r['cell']['method']['name']} {r['cell']['seed']}": r for r in found}


def test_a_run_leaves_records_a_grid_and_a_report(story: Path) -> None:
    records = runs(story)
    assert len(records) == 4
    assert {record["status"] for record in records.values()} == {"done"}
    grid = json.loads((story / "results/grids/small.json").read_text())
    seeds = {cell["label"]: [run["seed"] for run in cell["runs"]] for cell in grid["cells"]}
    assert seeds == {"ce": [0, 1], "shifted": [0, 1]}
    assert grid["notes"] == "Two methods on digits, for a test."
    assert list((story / "reports").rglob("*.html"))


def test_a_second_run_trains_nothing(story: Path, bench: Bench) -> None:
    before = runs(story)
    code, out = bench("run", story / "small.yaml", *where(story), "--reports", story / "reports")
    assert code == 0
    assert "4 done" in out
    assert runs(story) == before


def test_status_counts_and_shows_cells(story: Path, bench: Bench) -> None:
    code, out = bench("status", "--results", story / "results")
    assert code == 0
    assert "small" in out
    assert "posthoc_logit_adjustment-s1" not in out
    code, out = bench("status", story / "small.yaml", "--results", story / "results")
    assert out.count("shifted") == 2
    assert max(map(len, out.splitlines())) <= 80
    for record in runs(story).values():
        assert re.search(rf"done +{record['run_id'][-10:]} ", out), "what `explain` takes"
    code, out = bench("status", story / "small.yaml", "--results", story / "results", "--wide")
    assert out.count("digits-if10-posthoc_logit_adjustment-s1") == 1
    rows = json.loads(bench("status", "--json", "--results", story / "results")[1])
    assert {row["run_id"] for row in rows} == {record["run_id"] for record in runs(story).values()}
    assert {(row["recipe"], row["status"], row["reason"]) for row in rows} == {("small", "done", None)}


def test_status_shows_how_far_a_running_run_is(story: Path, bench: Bench) -> None:
    run = RunDir(story / "results", runs(story)["ce 0"]["run_id"])
    with run.lock():
        out = bench("status", "--results", story / "results")[1]
    assert run.run_id[-10:] in out
    assert "running" in out
    assert "epochs done: 1" in out


def test_the_report_is_written_again_when_asked(story: Path, bench: Bench) -> None:
    code, out = bench("report", "small", "--results", story / "results", "--reports", story / "again")
    assert code == 0
    assert "small.html" in out
    assert (story / "again/small.html").exists()


def test_plan_tells_what_is_left_and_how_long_it_takes(story: Path, bench: Bench) -> None:
    code, out = bench("plan", story / "small.yaml", *where(story))
    assert code == 0
    assert "0 of 4 runs to train" in out
    code, out = bench(
        "plan", story / "small.yaml", *where(story), "--set", "protocol.epochs=500", "--jobs", 1
    )
    assert "4 of 4 runs to train, 1 at once" in out
    assert "unknown" not in out
    code, out = bench(
        "plan",
        story / "small.yaml",
        *where(story),
        "--set",
        "grid.backbone=resnet20_cifar",
        "--only",
        "seed=0",
    )
    assert "2 of 2 runs to train" in out
    assert "unknown" in out


def test_changed_values_do_not_take_the_place_of_the_recipe(story: Path, bench: Bench) -> None:
    grid = (story / "results/grids/small.json").read_text()
    options = ("--set", "protocol.batch_size=64", "--only", "label=ce", "--only", "seed=1")
    code, out = bench("run", story / "small.yaml", *where(story), *options, "--reports", story / "reports")
    assert code == 0
    assert "1 done" in out
    assert (story / "results/grids/small.json").read_text() == grid
    assert "protocol.batch_size=64" in (story / "results/grids/small-set.json").read_text()


def test_a_rerun_is_compared_with_the_old_record(story: Path, bench: Bench) -> None:
    record = runs(story)["ce 0"]
    code, out = bench("rerun", record["run_id"][-10:], *where(story))
    assert code == 0, out
    assert "EQUAL" in out
    altered = record | {"metrics": record["metrics"] | {"accuracy": 1.0}}
    RunDir(story / "results", record["run_id"]).write_record(altered)
    code, out = bench("rerun", record["run_id"], *where(story))
    assert code == 1
    assert "metrics.accuracy" in out
    assert runs(story)["ce 0"]["metrics"] == record["metrics"]


def test_a_run_is_found_by_what_tells_it_apart(story: Path, bench: Bench) -> None:
    code, out = bench("rerun", "digits-if10-ce", *where(story))
    assert code == 2
    assert "write more of the name" in out
    code, out = bench("evaluate", "0123456789", "--results", story / "results")
    assert code == 2
    assert "no run '0123456789'" in out


def test_a_trained_model_is_scored_again(story: Path, bench: Bench) -> None:
    record = runs(story)["posthoc_logit_adjustment 1"]
    reported = f"{record['metrics']['accuracy']:.2f}"
    paths = ("--results", story / "results", "--data", story / "data")
    code, out = bench("evaluate", record["run_id"][-10:], *paths)
    assert code == 0
    assert reported in out
    weights = story / "results/runs" / record["run_id"] / "weights.safetensors"
    assert reported in bench("evaluate", weights, *paths[2:])[1]


def test_clean_shows_first_and_deletes_when_reported(story: Path, bench: Bench) -> None:
    run = RunDir(story / "results", runs(story)["ce 1"]["run_id"])
    run.checkpoint.write_bytes(b"x" * 2_000_000)
    code, out = bench("clean", "--results", story / "results")
    assert code == 0
    assert "2.0 MB" in out
    assert run.checkpoint.exists()
    bench("clean", "--results", story / "results", "--older-than", 1, "--apply")
    assert run.checkpoint.exists()
    bench("clean", "--results", story / "results", "--apply")
    assert not run.checkpoint.exists()


def test_a_method_of_ones_own_may_fail_and_be_tried_again_and_scored(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "moody.py").write_text(METHOD)
    (tmp_path / "trouble").touch()
    recipe = tmp_path / "own.yaml"
    recipe.write_text(RECIPE.replace("ce: {}", "ce: {method: moody}").replace("[0, 1]", "0"))
    command = ["run", recipe, *where(tmp_path), "--reports", tmp_path / "reports"]
    command += ["--methods", tmp_path / "moody.py", "--log", "tensorboard"]
    code, out = bench(*command)
    assert code == 1
    assert "RuntimeError: in a bad mood" in out
    assert "1 failed, 1 blocked" in out
    (record,) = (tmp_path / "results/runs").glob("*/record.json")
    reported = json.loads(record.read_text())["traceback"]
    assert 'File "moody.py", line' in reported
    assert 'File "bench/train/loop.py", line' in reported
    assert str(tmp_path) not in reported
    (tmp_path / "trouble").unlink()
    assert bench(*command)[0] == 1
    code, out = bench(*command, "--retry-failed")
    assert code == 0, out
    assert "2 done" in out
    assert list((tmp_path / "results/loggers/tensorboard").glob("*-moody-*/*"))

    monkeypatch.delitem(registry._specs, "moody")  # as in another process
    for name in [name for name in sys.modules if name.startswith("user_methods_moody")]:
        monkeypatch.delitem(sys.modules, name)
    evaluate = ["evaluate", "digits-if10-moody", *where(tmp_path)[:4]]
    assert "unknown method 'moody'" in bench(*evaluate)[1]
    assert bench(*evaluate, "--methods", tmp_path / "moody.py")[0] == 0


def test_methods_files_of_one_name_are_two(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_specs", dict(registry.methods()))
    files = []
    for mood in ("merry", "gloomy"):
        files += ["--methods", tmp_path / mood / "mine.py"]
        (tmp_path / mood).mkdir()
        (tmp_path / mood / "mine.py").write_text(METHOD.replace("moody", mood))
    for mood in ("merry", "gloomy"):
        code, out = bench("list", "methods", mood, *files)
        assert code == 0, out


def test_a_stopped_run_says_how_to_go_on(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(local, "run_grid", stopped)
    (tmp_path / "small.yaml").write_text(RECIPE)
    code, out = bench("run", tmp_path / "small.yaml", *where(tmp_path))
    assert code == 130
    assert "continues from here" in out


def test_missing_data_is_reported_once_and_before_anything_runs(tmp_path: Path, bench: Bench) -> None:
    (tmp_path / "small.yaml").write_text(RECIPE.replace("digits", "cifar10"))
    code, out = bench("run", tmp_path / "small.yaml", *where(tmp_path))
    assert code == 2
    assert "cifar-10-batches-py" in out
    assert not (tmp_path / "results").exists()
    code, out = bench("plan", tmp_path / "small.yaml", *where(tmp_path))
    assert code == 2, "as `run` would end"
    assert out.count("cifar-10-batches-py") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rn"], "Did you mean 'run'?"),
        (["run", "small.yaml", "--frce"], "--force"),
        (["run", "missing.yaml"], "missing.yaml: no such file"),
        (["run", "small.yaml", "--only", "method=cee"], "did you mean 'ce'?"),
        (["run", "small.yaml", "--set", "protocol.epoch=1"], "epochs"),
        (["run", "small.yaml", "--jobs", "0"], "--jobs"),
        (["run", "small.yaml", "--gpus", "9999"], "--gpus 9999"),
        (["run", "small.yaml", "--methods", "none.py"], "none.py: no such methods file"),
        (["run", "small.yaml", "--results", "small.yaml"], "small.yaml"),
        (["status"], "no recipe was run yet"),
        (["report", "smal"], "no recipe was run yet"),
        (["data", "cifar11"], "did you mean 'cifar10'?"),
        (["list", "method"], "methods"),
        (["list", "backbones", "resnet999"], "did you mean"),
        (["evaluate", "nowhere/weights.safetensors"], "no such weights file"),
    ],
)
def test_mistakes_are_answered_without_a_traceback(
    tmp_path: Path,
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(RECIPE)
    code, out = bench(*arguments)
    assert code == 2
    assert said in out
    assert "Traceback" not in out


@pytest.mark.parametrize(
    ("kind", "name"),
    [("methods", "ldam"), ("datasets", "cifar100"), ("backbones", "resnet32_cifar"), ("recipes", "quick")],
)
def test_lists_are_for_people_and_for_programs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    monkeypatch.chdir(ROOT)
    assert name in bench("list", kind, name)[1]
    code, out = bench("list", kind, f"{name[:4]}*", "--json")
    assert code == 0
    assert name in [row["name"] for row in json.loads(out)]


def test_one_method_is_shown_with_its_hyper_parameters(bench: Bench) -> None:
    shown = bench("list", "methods", "ldam_drw")[1]
    for part in ("LDAM-DRW", "NeurIPS 2019", "reweight_from", "0.8", "float | None", "is DRW as"):
        assert part in shown
    (row,) = json.loads(bench("list", "methods", "ldam_drw", "--json")[1])
    assert row["params"]["max_margin"]["default"] == 0.5
    assert row["params"]["max_margin"]["about"].startswith("margin of the rarest class")


@pytest.mark.parametrize("kind", ["methods", "datasets", "recipes"])
def test_a_list_fits_a_terminal_of_usual_width(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(ROOT)
    narrow, wide = bench("list", kind)[1], bench("list", kind, "--wide")[1]
    assert max(map(len, narrow.splitlines())) <= 80 < max(map(len, wide.splitlines()))


def test_a_method_of_ones_own_is_listed_beside_the_others(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_specs", dict(registry.methods()))
    (tmp_path / "sad.py").write_text(METHOD.replace("moody", "sad"))
    out = bench("list", "methods", "[es]*", "--methods", tmp_path / "sad.py")[1]
    assert "sade" in out
    assert "here 2024" in out


def test_a_method_outside_of_the_project_says_what_it_is() -> None:
    with pytest.raises(BenchError, match="'mine' needs title= and family="):
        registry.register("mine", title="Mine")(Method)
    registry.methods()  # imports them all
    with pytest.raises(BenchError, match=r"method 'ldam' is there already, in .*ldam.py"):
        registry.register("ldam", title="Mine", family="own")(Method)


def test_one_method_is_shown_with_its_authors_cards(bench: Bench) -> None:
    shown = bench("list", "methods", "rsg")[1]
    for part in (
        "authors' cards",
        "cifar_train.py:47-60",
        "x0.01 from epoch 159",
        "dropped",
        "weight decay 0.0002",
    ):
        assert part in shown
    assert "authors' cards" not in bench("list", "methods", "tau_norm")[1]
    (row,) = json.loads(bench("list", "methods", "rsg", "--json")[1])
    assert row["cards"][0]["network"]["name"] == "resnet32_cifar"


def test_the_data_of_a_set_is_counted(bench: Bench, tmp_path: Path) -> None:
    code, out = bench("data", "digits", "--data", tmp_path)
    assert code == 0
    assert "1,297" in out
    assert "10 classes" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["status"],
        ["report"],
        ["list", "methods"],
        ["list", "recipes"],
        ["list", "datasets"],
        ["clean"],
    ],
)
def test_what_trains_nothing_never_waits_for_torch(story: Path, arguments: list[str]) -> None:
    code = "import sys; from bench.cli import main\n"
    code += "try: main(sys.argv[1:])\nexcept SystemExit as end: assert end.code == 0, end.code\n"
    code += "assert not {'torch', 'timm'} & set(sys.modules)"
    (story / "recipes").mkdir(exist_ok=True)
    (story / "recipes/small.yaml").write_text(RECIPE)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=story,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_every_command_teaches_by_example(bench: Bench) -> None:
    from bench.cli import COMMANDS

    for commands in COMMANDS.values():
        for command in commands:
            name = command.__name__.replace("_", "-")
            code, out = bench(name, "--help")
            assert code == 0
            assert f"run_bench.py {name}" in out
