"""What a person is reported who made a mistake, met a failure, or waits."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Bench
from PIL import Image
from project import ROOT
from records_factory import finish, make_cell, make_grid
from rich.console import Console

from bench.cell import BackboneChoice, Optimizer, Protocol, Sharpness
from bench.cli import common, leaderboard, plan, results, run
from bench.cli.estimate import total
from bench.cli.plan import _time
from bench.cli.tables import FittingTable
from bench.data.sets.catalogue import DATASETS
from bench.errors import BenchError, location_of, traceback_of
from bench.launch import checks
from bench.launch.progress import watch
from bench.rundir import RunDir
from bench.train.run import run_cell

GRID = "grid: {dataset: digits, imbalance_factor: 20, backbone: resnet8_cifar}\n"
SMALL = "methods: {ce: {}}\nprotocol: {epochs: 1}\n" + GRID


def where(root: Path) -> list[object]:
    return ["--results", root / "results", "--data", root / "data", "--gpus", "none"]


def reported(bench: Bench, tmp_path: Path, text: str, *options: object) -> str:
    """Return what `plan` says of a recipe."""
    recipe = tmp_path / "r.yaml"
    recipe.write_text(text)
    code, out = bench("plan", recipe, *where(tmp_path), *options)
    assert code == 2, out
    return out


# -- mistakes ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "methods: {my_objective: {}}\n" + GRID,
            "unknown method 'my_objective'; give your own methods with --methods FILE",
        ),
        ("epochs: 5\n" + SMALL, "unknown key 'epochs'; write it as protocol.epochs"),
        ("lr: 0.1\n" + SMALL, "unknown key 'lr'; write it as protocol.optimizer.lr"),
        ("seed: 1\n" + SMALL, "unknown key 'seed'; write it as grid.seed"),
        (
            SMALL.replace("epochs: 1", "lr: 1"),
            "protocol.lr: unknown key 'lr'; write it as protocol.optimizer.lr",
        ),
        (SMALL.replace("ce: {}", "ce: {epochs: 2}"), "unknown key 'epochs'; write it as protocol.epochs"),
        (
            SMALL.replace("ce: {}", "x: {method: ldam, max_margin: 1}"),
            "unknown key 'max_margin'; write it as params: {max_margin: ...}",
        ),
        (
            SMALL.replace("epochs: 1", "epochs: 2, schedule: {warmup_epochs: 10}"),
            "protocol.schedule.warmup_epochs: 10 of 2 epochs is never reached",
        ),
        (
            SMALL.replace(
                "epochs: 1", "epochs: 5, schedule: {kind: steps, milestones: [3, 5], factors: [.1, .1]}"
            ),
            "protocol.schedule.milestones: 5 of 5 epochs is never reached",
        ),
        (
            SMALL.replace("epochs: 1", "epochs: 0"),
            "protocol.epochs: 0 epochs train nothing; write at least 1",
        ),
        (
            SMALL.replace("factor: 20", "factor: 0.01"),
            "got 0.01; it is the largest class over the smallest: did you mean 100?",
        ),
    ],
)
def test_a_mistake_in_a_recipe_is_reported_with_what_was_meant(
    text: str, message: str, tmp_path: Path, bench: Bench
) -> None:
    assert message in reported(bench, tmp_path, text)


def test_a_set_at_the_wrong_level_is_reported_where_it_belongs(tmp_path: Path, bench: Bench) -> None:
    out = reported(bench, tmp_path, SMALL, "--set", "epochs=5")
    assert "--set: epochs: unknown key 'epochs'; write it as protocol.epochs" in out


def test_what_does_not_train_needs_no_sound_warm_up(tmp_path: Path, bench: Bench) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "methods:\n  ce: {}\n  la: {method: posthoc_logit_adjustment, from: ce, "
        "protocol: {schedule: {warmup_epochs: 9}}}\nprotocol: {epochs: 1}\n" + GRID
    )
    assert bench("plan", recipe, *where(tmp_path))[0] == 0


def test_a_method_of_a_name_that_is_there_is_blamed_on_its_own_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from bench.registry import register\nfrom methods.cross_entropy import CrossEntropy\n\n\n"
        '@register("ldam", title="Mine", family="own", venue="", year=None, paper="")\n'
        "class Mine(CrossEntropy):\n    pass\n"
    )
    code = (
        f"from pathlib import Path; from bench.registry import load_files; load_files([Path({str(file)!r})])"
    )
    fresh = [sys.executable, "-c", code]  # a process in which no method is there yet
    done = subprocess.run(fresh, capture_output=True, text=True, check=False, cwd=ROOT)
    reported = done.stderr.splitlines()[-1].partition("BenchError: ")[2]
    assert reported.startswith(str(file))
    assert re.search("'ldam'.*rename", reported)


def test_backslashes_in_a_list_are_reported(tmp_path: Path, bench: Bench) -> None:
    root = tmp_path / "data" / "mine"
    (root / "a").mkdir(parents=True)
    Image.new("L", (8, 8)).save(root / "a" / "1.png")
    for name in ("train", "test"):
        (root / f"{name}.txt").write_text("a\\1.png 0\nb\\1.png 1\n")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "methods: {ce: {}}\ngrid: {dataset: mine, backbone: resnet8_cifar}\n"
        "datasets:\n  mine:\n    {source: list, folder: mine, image_size: 8, profile: natural, "
        "lists: {train: train.txt, test: test.txt}}\n"
    )
    out = bench("plan", recipe, *where(tmp_path))[1]
    assert "train.txt:1: 'a\\\\1.png': no such file; write / between folders" in out


def test_an_unknown_run_is_reported_where_names_are(tmp_path: Path, bench: Bench) -> None:
    (tmp_path / "results/runs/some-run").mkdir(parents=True)
    out = bench("evaluate", "0123456789", "--results", tmp_path / "results")[1]
    assert "`status RECIPE` names all runs of a recipe" in out


def test_gpus_that_are_not_here_are_refused_before_anything_is_read(tmp_path: Path, bench: Bench) -> None:
    for command in ("run", "plan"):
        code, out = bench(command, tmp_path / "no such recipe.yaml", "--gpus", "7,8")
        assert code == 2
        assert "error: --gpus 7,8: there are" in out


@pytest.mark.parametrize(
    ("method", "protocol", "said"),
    [
        ("ldam_drw", Protocol(label_smoothing=0.1), "ldam_drw takes no smoothed labels"),
        ("bcl", Protocol(optimizer=Optimizer(sharpness=Sharpness(form="imbsam"))), "BCL has no loss of each"),
        ("ce_sam", Protocol(optimizer=Optimizer(sharpness=Sharpness())), "has a sharpness of its own"),
        ("bcl", Protocol(views=("main", "supcon")), "protocol.views names 2 policies for 3 views"),
    ],
)
def test_a_protocol_that_a_method_refuses_is_reported_before_training(
    method: str, protocol: Protocol, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "_counts", lambda *_: (np.array([9, 5, 3]), 0))
    cell = make_cell(method).model_copy(update={"backbone": BackboneChoice(name="resnet8_cifar")})
    assert checks.check_methods([cell], Path()) == []
    with pytest.raises(BenchError, match=said):
        checks.check_methods([cell, cell.model_copy(update={"protocol": protocol})], Path())


@pytest.mark.parametrize("chosen", ["-1", "0,0"])
def test_a_gpu_is_chosen_by_its_number_and_once(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.launch.todo import gpus_of

    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    assert gpus_of("1,0") == ["5", "4"]
    with pytest.raises(BenchError, match=f"--gpus {chosen}: "):
        gpus_of(chosen)


def test_the_version_is_reported(bench: Bench) -> None:
    code, out = bench("--version")
    assert code == 0
    assert re.fullmatch(r"longtail-bench \d+\.\d+\.\d+( \(\w+(-dirty)?\))?\n", out)


# -- failures ----------------------------------------------------------------------------------------
FAILING = '''\
"""A method with a slip."""

from bench.registry import register
from methods.cross_entropy import CrossEntropy


@register("slip", title="Slip", family="own", venue="", year=None, paper="")
class Slip(CrossEntropy):
    """Fails."""

    def loss(self, batch):
        return super().loss(batch) / self.tua


@register("silent", title="Silent", family="own", venue="", year=None, paper="")
class Silent(CrossEntropy):
    """Ends its process."""

    def loss(self, batch):
        print("the last word")
        raise SystemExit(3)
'''


def test_a_failure_is_reported_with_file_line_and_last_words(tmp_path: Path, bench: Bench) -> None:
    (tmp_path / "mine.py").write_text(FAILING)
    (tmp_path / "r.yaml").write_text(SMALL.replace("ce: {}", "slip: {}, silent: {}"))
    command = ["run", tmp_path / "r.yaml", *where(tmp_path), "--reports", tmp_path]
    code, out = bench(*command, "--methods", tmp_path / "mine.py")
    assert code == 1
    assert "'Slip' object has no attribute 'tua'" in out
    assert "at mine.py:12, return super().loss(batch) / self.tua" in out
    assert "the last word" in out
    for path in (tmp_path / "results/runs").iterdir():
        log = path / "log.txt"
        assert log.read_text()
        assert str(log) in out
    logs = "".join(path.read_text() for path in (tmp_path / "results/runs").glob("*/log.txt"))
    assert 'File "mine.py", line 12, in loss' in logs


def test_the_log_of_a_run_that_fails_in_this_process_has_its_traceback(tmp_path: Path) -> None:
    cell = make_cell(dataset={"name": "mine", "source": "folder", "folder": "nowhere"})
    run_cell(cell, tmp_path, tmp_path)
    made = RunDir(tmp_path, cell.run_id)
    assert made.read_record()["status"] == "failed"
    assert "BenchError" in made.log.read_text()


def test_the_location_of_an_error_is_the_user_s_before_ours_before_a_library_s() -> None:
    def text(*files: str) -> str:
        frames = "".join(f'  File "{file}", line {i}, in f\n    call({i})\n' for i, file in enumerate(files))
        return f"Traceback (most recent call last):\n{frames}ValueError: x\n"

    assert (
        location_of(text("bench/train/loop.py", "mine.py", "site-packages/torch/x.py"))
        == "mine.py:1, call(1)"
    )
    assert location_of(text("bench/train/loop.py", "site-packages/x.py")) == "bench/train/loop.py:0, call(0)"
    assert location_of(text("mine.py", "bench/data/feed/loader.py")) == "mine.py:0, call(0)"
    assert location_of(None) == ""
    with pytest.raises(BenchError) as caught:
        raise BenchError("file: mend it")
    assert location_of(traceback_of(caught.value)) == ""


# -- waiting -----------------------------------------------------------------------------------------
def test_piped_progress_comes_at_a_pace_and_says_how_far_it_is(tmp_path: Path) -> None:
    now, out = [0.0], io.StringIO()
    cells = [make_cell(seed=seed) for seed in range(3)]
    epochs = cells[0].protocol.epochs
    with watch({}, Console(file=out, width=200), tmp_path, pace=30, clock=lambda: now[0]) as listen:
        for cell in cells:
            listen(cell, "planned", {})
        for cell in cells[:2]:
            listen(cell, "started", {})
        for epoch in range(10):
            now[0] += 10
            listen(cells[0], "epoch", {"epoch": epoch, "epochs": epochs, "loss": 1.0})
    lines = out.getvalue().splitlines()
    assert len(lines) == 3, "a line each 30 seconds of 100"
    left = 3 * epochs - 9
    assert lines[-1].startswith("under way   0 ended, 2 running, 3 to go")
    assert f"{left} epochs, about {left * 10 / 60:.0f} min" in lines[-1]


def test_a_time_that_is_not_known_is_never_reported_as_nothing() -> None:
    cells = {cell.run_id: cell for cell in (make_cell(seed=seed) for seed in range(3))}
    first, second, third = cells
    assert "unknown" in _time({first: 0.0, second: None, third: None}, cells, 2)
    assert "<0.1 s" not in _time({first: 0.0, second: None, third: None}, cells, 2)
    assert _time({first: 60.0, second: None, third: 0.0}, cells, 1) == "more than 60 s (1 of unknown time)"
    assert _time({first: 60.0, second: 30.0, third: 0.0}, cells, 1) == "90 s"
    assert total({}, cells, 2) is not None


# -- at 80 columns -----------------------------------------------------------------------------------
@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (common, leaderboard, plan, results, run):
        monkeypatch.setattr(module, "console", lambda: Console(width=80))


def printed(table: FittingTable, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(table)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_a_table_that_is_too_wide_drops_what_is_empty_and_then_breaks_rows() -> None:
    made = common.table("Title", "name", "empty", "n", "words", numbers=("n",))
    made.add_row("a" * 20, "", "5", "one two three")
    made.add_row("b" * 20, "", "50", "")
    assert any("empty" in line for line in printed(made, 100))
    tight = printed(made, 50)
    assert not any("empty" in line for line in tight)
    assert any(("a" * 20) in line and "one two three" in line for line in tight)
    broken = printed(made, 30)
    assert all(len(line) <= 30 for line in broken)
    row = broken.index("a" * 20 + "   5")
    assert broken[row + 1] == "    one two three"
    assert broken[row + 2] == "b" * 20 + "  50"


@pytest.mark.usefixtures("narrow")
def test_status_check_and_plan_are_whole_at_80_columns(tmp_path: Path, bench: Bench) -> None:
    long = finish(tmp_path / "results", make_cell("posthoc_logit_adjustment", dataset=DATASETS["digits"]))
    make_grid(tmp_path / "results", "small", [("a_label_of_more_than_some_length", long.read_cell())])
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        SMALL.replace("ce: {}", "a_label_of_more_than_some_length_and_more: {method: balanced_softmax}")
    )
    out = bench("plan", recipe, *where(tmp_path))[1]
    assert re.search(r"digits-if20-balanced_softmax-s0-\w{10}", out)
    assert "a_label_of_more_than_some_length_and_more" in out
    assert max(map(len, out.splitlines())) <= 80
    out = bench("status", "small", "--results", tmp_path / "results")[1]
    assert "a_label_of_more_than_some_length" in out, "whole"
    assert long.run_id[-10:] in out, "what `explain` takes"
    assert max(map(len, out.splitlines())) <= 80
    assert long.run_id in bench("status", "small", "--wide", "--results", tmp_path / "results")[1]
    out = bench("check", "--results", tmp_path / "results")[1]
    assert max(map(len, out.splitlines())) <= 80
    assert "no published number" in out


def test_check_names_the_run_to_explain(tmp_path: Path, bench: Bench) -> None:
    cell = make_cell(dataset={"name": "cifar10", "source": "cifar10", "n_max": 5000}, imbalance_factor=100.0)
    finish(tmp_path / "results", cell)
    out = bench("check", "--results", tmp_path / "results", "--data", tmp_path)[1]
    assert cell.id in out
    finish(tmp_path / "results", make_cell("ldam_drw", dataset=DATASETS["digits"]))
    out = bench("check", "--results", tmp_path / "results", "--data", tmp_path)[1]
    assert "digits" not in out, "what has no published number is counted, and is no row"
    assert "1 no published number" in out
    assert bench("explain", cell.id, "--results", tmp_path / "results", "--data", tmp_path)[0] == 0


# -- predictions -------------------------------------------------------------------------------------
def test_scored_predictions_are_not_written_over_by_others(tmp_path: Path, bench: Bench) -> None:
    labels = np.repeat(np.arange(10), 50)
    np.savez(tmp_path / "mine.npz", predictions=labels)
    (tmp_path / "mine.csv").write_text("\n".join(map(str, 9 - labels)) + "\n")
    command = ["--dataset", "digits", "--imbalance-factor", 20, *where(tmp_path)[:4]]
    assert bench("score", tmp_path / "mine.npz", *command)[0] == 0
    kept = tmp_path / "results/external/mine.json"
    before = kept.read_bytes()
    code, out = bench("score", tmp_path / "mine.csv", *command)
    assert code == 2
    assert "mine.json: holds other predictions" in out
    assert "--name" in out
    assert kept.read_bytes() == before
    code, out = bench(
        "score", tmp_path / "mine.npz", "--dataset", "digits", "--imbalance-factor", 10, *command[3:]
    )
    assert code == 2, "another split is another input"
    assert kept.read_bytes() == before
    assert bench("score", tmp_path / "mine.npz", *command, "--protocol", "epochs=200")[0] == 0
    assert json.loads(kept.read_bytes())["protocol"] == {"epochs": 200}
    assert bench("score", tmp_path / "mine.csv", *command, "--name", "reversed")[0] == 0
    assert bench("score", tmp_path / "mine.csv", *command, "--replace")[0] == 0
    assert kept.read_bytes() != before


def test_two_files_of_one_name_are_not_scored_in_one_call(tmp_path: Path, bench: Bench) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "mine.npz", predictions=np.zeros(500, int))
    files = [tmp_path / name / "mine.npz" for name in ("a", "b")]
    code, out = bench("score", *files, "--dataset", "digits", "--imbalance-factor", 20, *where(tmp_path)[:4])
    assert code == 2
    assert "would have one name" in out
    assert not (tmp_path / "results").exists()


# -- natural tails -----------------------------------------------------------------------------------
def test_a_natural_tail_needs_no_imbalance_factor(tmp_path: Path, bench: Bench) -> None:
    rng = np.random.default_rng(0)
    for part, name, count in (
        ("train", "cat", 6),
        ("train", "dog", 2),
        ("test", "cat", 2),
        ("test", "dog", 2),
    ):
        (tmp_path / "data/mine" / part / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 255, (8, 8), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data/mine" / part / name / f"{i}.png")
    text = (
        "methods: {{ce: {{}}}}\nprotocol: {{epochs: 1}}\n"
        "grid: {{dataset: mine, backbone: resnet8_cifar{more}}}\n"
        "datasets: {{mine: {{source: folder, folder: mine, image_size: 8, profile: {profile}}}}}\n"
    )
    ids = []
    for more in ("", ", imbalance_factor: 1"):
        (tmp_path / "r.yaml").write_text(text.format(more=more, profile="natural"))
        ids += re.findall(r"mine-if1-ce-s0-\w{10}", bench("plan", tmp_path / "r.yaml", *where(tmp_path))[1])
    assert len(ids) == 2
    assert len({*ids}) == 1, "the same cell as before"
    command: list[Any] = ["run", tmp_path / "r.yaml", *where(tmp_path), "--reports", tmp_path / "pages"]
    code, out = bench(*command)
    assert code == 0, out
    assert "ce mine seed 0" in out
    assert "0 of 1 runs to train\n" in bench("plan", tmp_path / "r.yaml", *where(tmp_path))[1]
    page = (tmp_path / "pages/r.md").read_text()
    assert "its own tail of 6 to 2 images" in page
    assert "imbalance factor 1" not in page
    shown = bench("data", "show", "mine", "--recipe", tmp_path / "r.yaml", "--data", tmp_path / "data")[1]
    assert "its own tail\n" in shown
    assert "imbalance factor" not in shown
    (tmp_path / "r.yaml").write_text(text.format(more="", profile="exponential"))
    code, out = bench("plan", tmp_path / "r.yaml", *where(tmp_path))
    assert code == 2
    assert "needs imbalance_factor, as 'mine' has no tail of its own" in out
