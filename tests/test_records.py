"""Run directories: what is written comes back, and what was spoilt is reported and never trusted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from records_factory import CIFAR10_JPEG, fail, finish, make_cell, make_grid

import bench
from bench.cell import Protocol
from bench.errors import BenchError
from bench.files import replacing, write_text
from bench.records import Results
from bench.result import series
from bench.rundir import Busy, RunDir, equal


def run_dir(results: Path) -> RunDir:
    return RunDir(results, make_cell().run_id)


# -- files ---------------------------------------------------------------------------------------
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")

    def write_half() -> None:
        with replacing(file) as temporary:
            temporary.write_text("ne")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


# -- cell, epochs, logits ------------------------------------------------------------------------
def test_a_cell_comes_back_with_its_id(tmp_path: Path) -> None:
    params = {"tau": 1, "scale": 1e-5, "betas": (0.9, 1), "on": True, "note": "yes: 'no'\n# 1e3", "off": None}
    parent = make_cell("cross_entropy", params=params)
    cell = make_cell(dataset=CIFAR10_JPEG, imbalance_factor=50.5, parent=parent, seed=3)
    run = RunDir(tmp_path, cell.run_id)
    run.write_cell(cell)
    assert run.read_cell() == cell
    assert run.read_cell().id == cell.id


@pytest.mark.parametrize("content", ["{", "seed: many", "[]", "", "\x00", b"\xff\xfe"])
def test_a_spoilt_cell_is_named(tmp_path: Path, content: str | bytes) -> None:
    run = run_dir(tmp_path)
    run.path.mkdir(parents=True)
    run.cell.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BenchError, match=r"cell\.yaml: .*train it again by `run --force`"):
        run.read_cell()


def test_epochs_are_cut_back_and_a_torn_line_is_dropped(tmp_path: Path) -> None:
    run = run_dir(tmp_path)
    assert run.epochs() == []
    for epoch in range(4):
        run.append_epoch({"epoch": epoch, "loss": np.float32(0.5), "accuracy": float("nan")})
    with run.epoch_lines.open("a") as file:
        file.write('{"epoch": 4, "lo')
    assert [line["epoch"] for line in run.epochs()] == [0, 1, 2, 3]
    assert run.epochs()[0] == {"epoch": 0, "loss": 0.5, "accuracy": None}
    run.keep_epochs(2)
    run.append_epoch({"epoch": 2})
    assert [line["epoch"] for line in run.epochs()] == [0, 1, 2]


def test_equal_logits_are_equal_bytes(tmp_path: Path) -> None:
    run = run_dir(tmp_path)
    logits, labels = np.random.default_rng(0).normal(size=(7, 3)), np.arange(7) % 3
    first = run.write_logits(logits, labels)
    content = run.logits.read_bytes()
    assert run.write_logits(np.asfortranarray(logits), labels.astype(np.int32)) == first
    assert run.logits.read_bytes() == content

    back, back_labels = run.read_logits(first)
    assert back.dtype == np.float16
    assert np.array_equal(back, logits.astype(np.float16))
    assert np.array_equal(back_labels, labels)

    run.logits.write_bytes(content[:-1])
    with pytest.raises(BenchError, match="not what its record says"):
        run.read_logits(first)
    run.logits.unlink()
    with pytest.raises(BenchError, match="no such file"):
        run.read_logits(first)


# -- record --------------------------------------------------------------------------------------
def test_a_record_comes_back(tmp_path: Path) -> None:
    run = finish(tmp_path, make_cell())
    record = run.read_record()
    assert (record["schema"], record["status"], record["run_id"]) == (1, "done", run.run_id)
    assert record["data"]["class_counts"][0] == 5000
    assert sum(map(sum, record["confusion"])) == 400
    assert sorted(p.name for p in run.path.iterdir()) == [
        "cell.yaml",
        "epochs.jsonl",
        "logits.npz",
        "record.json",
    ]


def test_what_is_not_finite_becomes_null(tmp_path: Path) -> None:
    run = finish(tmp_path, make_cell(), timing={"images_per_second": float("inf"), "wall_seconds": np.nan})
    assert run.read_record()["timing"] == {"images_per_second": None, "wall_seconds": None}


def test_records_are_equal_but_for_time_and_place(tmp_path: Path) -> None:
    one = finish(tmp_path / "a", make_cell()).read_record()
    other = finish(tmp_path / "b", make_cell(), timing={}, environment={"device": "GPU"}).read_record()
    assert one["checksum"] != other["checksum"]
    assert equal(one, other)
    assert not equal(one, other | {"status": "failed"})
    assert not equal(one, {k: v for k, v in other.items() if k != "confusion"})
    ece = other["metrics"]["ece"]
    assert equal(one, other | {"metrics": other["metrics"] | {"ece": ece * (1 + 1e-15)}})
    assert not equal(one, other | {"metrics": other["metrics"] | {"ece": ece * (1 + 1e-9)}})
    assert equal(one, other | {"data": other["data"] | {"comparable": False}})
    assert not equal(one, other | {"data": other["data"] | {"comparable": True}})


def spoil(run: RunDir, how: str) -> None:
    content = json.loads(run.record.read_text())
    text = run.record.read_text()
    spoilt = {
        "truncated": text[: len(text) // 2],
        "empty": "",
        "garbled": "\x00\x01",
        "list": "[1, 2]",
        "deep": "[" * 100_000,
        "older": json.dumps(content | {"schema": 0}),
        "newer": json.dumps(content | {"schema": 99}),
        "edited": text.replace('"accuracy": ', '"accuracy": 1'),
        "no checksum": json.dumps({k: v for k, v in content.items() if k != "checksum"}),
    }
    run.record.write_text(spoilt[how])


@pytest.mark.parametrize(
    ("how", "reported"),
    [
        ("truncated", "train it again by `run --force`"),
        ("empty", "train it again by `run --force`"),
        ("garbled", "train it again by `run --force`"),
        ("list", "not a record"),
        ("deep", "train it again by `run --force`"),
        ("older", "older schema 0, now 1; train it again by `run --force`"),
        ("newer", "newer schema 99; update"),
        ("edited", "changed since it was written"),
        ("no checksum", "changed since it was written"),
    ],
)
def test_a_spoilt_record_is_reported_and_is_a_row(tmp_path: Path, how: str, reported: str) -> None:
    run = finish(tmp_path, make_cell())
    other = finish(tmp_path, make_cell(seed=1))
    spoil(run, how)
    with pytest.raises(BenchError, match=reported) as caught:
        run.read_record()
    assert str(run.record) in str(caught.value)
    assert "\n" not in str(caught.value)

    table = Results(tmp_path).table().set_index("run_id")
    assert table.status.to_dict() == {run.run_id: "unreadable", other.run_id: "done"}
    assert reported in table.reason[run.run_id]
    assert str(tmp_path) not in table.reason[run.run_id]
    assert table.dataset[run.run_id] == "cifar10"  # its cell can still be read
    assert pd.isna(table.accuracy[run.run_id])


def test_bytes_that_are_no_text_are_reported(tmp_path: Path) -> None:
    run = finish(tmp_path, make_cell())
    run.record.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BenchError, match=r"record\.json"):
        run.read_record()


def test_a_run_copied_under_another_name_is_not_counted_twice(tmp_path: Path) -> None:
    run = finish(tmp_path, make_cell())
    shutil.copytree(run.path, run.path.with_name("backup"))
    table = Results(tmp_path).table().set_index("run_id")
    assert table.status["backup"] == "unreadable"
    assert run.run_id in table.reason["backup"]


# -- lock ----------------------------------------------------------------------------------------
def test_the_lock_is_for_one(tmp_path: Path) -> None:
    run = run_dir(tmp_path)
    assert not run.is_running()
    with run.lock():
        assert run.is_running()
        with pytest.raises(Busy, match="another process"), RunDir(tmp_path, run.run_id).lock():
            pass
        assert run.is_running()
    assert not run.is_running()
    with run.lock():
        pass


def test_the_lock_goes_with_its_process(tmp_path: Path) -> None:
    run = run_dir(tmp_path)
    code = (
        "import sys; from pathlib import Path; from bench.records import RunDir\n"
        "with RunDir(Path(sys.argv[1]), sys.argv[2]).lock(): print('held', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path, run.run_id], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child.stdin, child.stdout:
        assert child.stdout.readline() == b"held\n"
        assert run.is_running()
        child.kill()
        child.wait()
    assert not run.is_running()


# -- states --------------------------------------------------------------------------------------
def test_states_of_a_grid(tmp_path: Path) -> None:
    done, failed, absent, stopped = (make_cell(seed=seed) for seed in range(4))
    child, grandchild = (
        make_cell("crt", parent=failed),
        make_cell("crt", parent=make_cell("crt", parent=failed)),
    )
    waiting, finished = make_cell("crt", parent=absent), make_cell("crt", 5, parent=failed)
    finish(tmp_path, done)
    fail(tmp_path, failed, "BenchError: too hot")
    finish(tmp_path, finished)  # before its parent was run again and failed
    run = RunDir(tmp_path, stopped.run_id)
    run.write_cell(stopped)
    run.append_epoch({"epoch": 0})

    cells = [done, failed, absent, stopped, child, grandchild, waiting, finished]
    got = Results(tmp_path).states(cells)
    assert [got[cell.run_id].status for cell in cells] == [
        "done",
        "failed",
        "missing",
        "interrupted",
        "blocked",
        "blocked",
        "missing",
        "done",
    ]
    assert got[failed.run_id].reason == "BenchError: too hot"
    assert got[child.run_id].reason == f"failed parent {failed.run_id}"
    assert "epochs done: 1" in str(got[stopped.run_id].reason)
    with run.lock():
        assert Results(tmp_path).states([stopped])[stopped.run_id].status == "running"


def test_a_run_under_way_hides_its_old_failure(tmp_path: Path) -> None:
    cell = make_cell()
    run = fail(tmp_path, cell, "died")
    with run.lock():
        assert Results(tmp_path).states([cell])[cell.run_id].status == "running"
        assert Results(tmp_path).table().status.tolist() == ["running"]


# -- tables --------------------------------------------------------------------------------------
def test_the_table_of_all_runs(tmp_path: Path) -> None:
    parent = make_cell(seed=7)
    finish(tmp_path, parent)
    finish(tmp_path, make_cell("crt", 7, parent=parent, params={"b": 1, "a": 2}))
    fail(tmp_path, make_cell("ldam_drw"), "out of memory")
    table = Results(tmp_path).table().set_index("method")

    assert table.status.to_dict() == {"ce": "done", "crt": "done", "ldam_drw": "failed"}
    assert table.reason["ldam_drw"] == "out of memory"
    assert table.parent["crt"] == parent.run_id
    assert table.params["crt"] == '{"a":2,"b":1}'
    assert table.imbalance_factor["ce"] == 100
    assert (table.epochs["ce"], table.best_epoch["ce"]) == (200, 197)
    assert table.best_accuracy["ce"] - table.accuracy["ce"] == pytest.approx(0.25)
    assert pd.isna(table.few["ce"])  # CIFAR-10-LT has no few-shot class at this imbalance factor
    assert pd.isna(table.accuracy["ldam_drw"])
    assert table.lr["ldam_drw"] == 0.1
    assert pd.api.types.is_float_dtype(table.accuracy)
    assert pd.api.types.is_integer_dtype(table.seed)


@pytest.mark.parametrize(
    ("own", "asked", "counted"),
    [
        (["main", "simclr"], (), "crop_flip"),
        (["dscl_query", "dscl_key"], (), "dscl_query"),
        (["dscl_query", "dscl_key"], ("main", "main"), "crop_flip"),
        (["main", "simclr"], ("none", "main"), "none"),
        (None, (), "crop_flip"),  # a run that failed before it had a method
    ],
)
def test_a_run_s_augmentation_is_that_of_the_view_it_classifies(
    tmp_path: Path, own: list[str] | None, asked: tuple[str, ...], counted: str
) -> None:
    finish(
        tmp_path, make_cell(protocol=Protocol(augmentation="crop_flip", views=asked)), method={"views": own}
    )
    assert Results(tmp_path).table().augmentation.tolist() == [counted]


def test_an_empty_results_folder_has_all_columns(tmp_path: Path) -> None:
    assert list(Results(tmp_path).table().columns) == list(
        Results(finish(tmp_path, make_cell()).path.parents[1]).table()
    )
    with pytest.raises(BenchError, match="no such results folder"):
        bench.load_results(tmp_path / "nowhere")


def test_results_are_merged_by_copying(tmp_path: Path) -> None:
    for place, seed in (("a", 0), ("b", 1), ("b", 2)):
        finish(tmp_path / place, make_cell(seed=seed))
        make_grid(tmp_path / place, place, [("ce", make_cell(seed=seed))])
    shutil.copytree(tmp_path / "b", tmp_path / "a", dirs_exist_ok=True)
    assert sorted(Results(tmp_path / "a").table().seed) == [0, 1, 2]
    assert list(Results(tmp_path / "a").grids) == ["a", "b"]


def test_a_series_is_all_but_the_seeds() -> None:
    one = make_cell("crt", 0, parent=make_cell(seed=0))
    assert series(one) == series(make_cell("crt", 1, parent=make_cell(seed=2)))
    assert series(one) != series(make_cell("crt", 1, parent=make_cell("ldam_drw", 0)))
    assert series(one) != series(make_cell("crt", 0))
    assert series(make_cell("crt", params={"seed": 1})) != series(make_cell("crt"))


def test_a_grid_shows_what_is_not_there(tmp_path: Path) -> None:
    done, absent, failed = (make_cell(seed=seed) for seed in range(3))
    child = make_cell("crt", 2, parent=failed)
    finish(tmp_path, done)
    fail(tmp_path, failed, "died")
    finish(tmp_path, make_cell(seed=9))  # of no grid
    make_grid(tmp_path, "small", [("plain", done), ("plain", absent), ("plain", failed), ("cRT", child)])

    table = Results(tmp_path).grid_table(Results(tmp_path).grids["small"])
    assert table.label.tolist() == ["plain", "plain", "plain", "cRT"]
    assert table.status.tolist() == ["done", "missing", "failed", "blocked"]
    assert table.seed.tolist() == [0, 1, 2, 2]
    assert table.series[0] == table.series[1]
    assert table.parent[3] == failed.run_id


def test_a_spoilt_grid_is_named(tmp_path: Path) -> None:
    make_grid(tmp_path, "small", [("ce", make_cell())])
    file = tmp_path / "grids" / "small.json"
    file.write_text(file.read_text().replace('"imbalance_factor": 100.0', '"imbalance_factor": "many"'))
    with pytest.raises(BenchError, match=r"small\.json: cell\.imbalance_factor: .*; run the recipe again"):
        _ = Results(tmp_path).grids


def test_the_telling_wing_starts_without_torch(tmp_path: Path) -> None:
    finish(tmp_path, make_cell())
    code = (
        "import sys, bench, bench.metrics, bench.records, bench.report\n"
        "assert 'pandas' not in sys.modules\n"
        "assert len(bench.load_results(sys.argv[1])) == 1\n"
        "assert not {'torch', 'torchvision', 'timm'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
    with pytest.raises(AttributeError):
        bench.load_everything  # noqa: B018
