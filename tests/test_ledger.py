"""What git keeps of runs: the same numbers in a line each, merged by id, read as if the run were here."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from commands import Bench
from fault_fakes import hasty_run, make, starts
from hypothesis import given
from hypothesis import strategies as st
from project import ROOT
from records_factory import fail, finish, make_cell, make_grid
from small_recipe import RECIPE, where

from bench import ledger
from bench.cli import main
from bench.errors import BenchError
from bench.launch import local
from bench.records import Results
from bench.rundir import RunDir

EXPECTED = ROOT / "tests" / "expected"


def commit(results: Path) -> None:
    """Export all runs and remove their directories, as in a fresh clone."""
    ledger.export(results)
    shutil.rmtree(results / "runs")


def rows(results: Path) -> list[dict[str, Any]]:
    table = Results(results).table().astype(object)
    return [{name: v for name, v in row.items() if pd.notna(v)} for _, row in table.iterrows()]


# -- the form --------------------------------------------------------------------------------------
def test_a_line_has_the_numbers_of_its_run(tmp_path: Path) -> None:
    """Runs of this project, and their rows as they were before there was a ledger."""
    shutil.copytree(EXPECTED / "runs", tmp_path / "runs")
    expected = json.loads((EXPECTED / "runs.json").read_text())

    def known_then() -> list[dict[str, Any]]:
        found = zip(rows(tmp_path), expected, strict=True)
        return [{name: row[name] for name in then} for row, then in found]

    assert known_then() == expected
    before = list(Results(tmp_path))
    known = {run.run_id: (run.cell, run.confusion, run.curve) for run in before}
    commit(tmp_path)
    assert known_then() == expected
    for run in Results(tmp_path):
        cell, confusion, curve = known[run.run_id]
        assert (run.cell, run.cell.run_id) == (cell, run.run_id)
        assert np.array_equal(run.confusion, confusion)
        assert [line.keys() for line in run.curve] == [line.keys() for line in curve]
        for one, other in zip(run.curve, curve, strict=True):
            assert one == pytest.approx(other, rel=1e-4)


def test_of_the_scores_one_bit_per_image_is_left(tmp_path: Path) -> None:
    run = finish(tmp_path, make_cell())
    finish(tmp_path, make_cell(seed=1)).logits.unlink()
    scores, labels = run.read_logits(run.read_record()["files"]["logits.npz"])
    commit(tmp_path)
    with_scores, without = Results(tmp_path)
    if with_scores.run_id != run.run_id:
        with_scores, without = without, with_scores
    assert np.array_equal(with_scores.hits, scores.argmax(axis=1) == labels)
    assert 100 * with_scores.hits.mean() == with_scores.record["metrics"]["accuracy"]
    assert without.hits is None


def test_a_file_is_of_a_data_set_and_backbone_in_the_order_of_ids(tmp_path: Path) -> None:
    for seed in (2, 0, 1):
        finish(tmp_path, make_cell(seed=seed))
    ledger.export(tmp_path)
    (file,) = (tmp_path / "records").iterdir()
    assert file.name == "cifar10-cifar_resnet32.jsonl"
    ids = [json.loads(line)["run_id"] for line in file.read_text().splitlines()]
    assert ids == sorted(ids)
    content = file.read_bytes()
    assert ledger.export(tmp_path).files == ()
    assert file.read_bytes() == content


@given(st.integers(1, 12).flatmap(lambda n: st.lists(st.integers(0, 70000), min_size=n * n, max_size=n * n)))
def test_counts_come_back(counts: list[int]) -> None:
    matrix = np.array(counts).reshape(int(len(counts) ** 0.5), -1)
    assert np.array_equal(ledger._dense(ledger._sparse(matrix), len(matrix)), matrix)


# -- merging ---------------------------------------------------------------------------------------
def test_what_did_not_finish_stays_a_directory(tmp_path: Path) -> None:
    failed = fail(tmp_path, make_cell(seed=1), "out of memory")
    stopped = RunDir(tmp_path, make_cell(seed=2).run_id)
    stopped.write_cell(make_cell(seed=2))
    spoilt = finish(tmp_path, make_cell(seed=3))
    spoilt.record.write_text("{}")
    done = ledger.export(tmp_path)
    assert done.lines == 0
    assert [spoilt.run_id in reported for reported in done.left_out] == [True]
    assert failed.record.exists()


def test_ledgers_and_runs_of_machines_are_merged_by_id(tmp_path: Path) -> None:
    for place, seeds in (("a", (0, 1)), ("b", (1, 2)), ("c", (3,))):
        for seed in seeds:
            finish(tmp_path / place, make_cell(seed=seed), environment={"device": place})
    commit(tmp_path / "b")
    commit(tmp_path / "a")
    done = ledger.export(tmp_path / "a", [tmp_path / "b", tmp_path / "c"])
    assert (done.lines, done.new) == (4, 2)
    table = Results(tmp_path / "a").table().set_index("seed")
    assert table.device.to_dict() == {0: "a", 1: "a", 2: "b", 3: "c"}


def test_two_exports_at_once_keep_the_lines_of_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, seed in (("a", 0), ("b", 1)):
        finish(tmp_path / place, make_cell(seed=seed))
    both_read = threading.Barrier(2)
    write = ledger._write

    def late(*arguments: Any) -> Any:
        with suppress(threading.BrokenBarrierError):  # the second one has to wait until the first has written
            both_read.wait(0.2)
        return write(*arguments)

    monkeypatch.setattr(ledger, "_write", late)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda place: ledger.export(tmp_path / "kept", [tmp_path / place]), "ab"))
    assert sorted(row["seed"] for row in rows(tmp_path / "kept")) == [0, 1]


def test_bits_that_were_not_known_are_added(tmp_path: Path) -> None:
    finish(tmp_path / "a", make_cell()).logits.unlink()
    finish(tmp_path / "b", make_cell())
    commit(tmp_path / "a")
    ledger.export(tmp_path / "a", [tmp_path / "b"])
    assert next(iter(Results(tmp_path / "a"))).hits is not None


def test_two_unlike_records_of_one_run_are_refused_and_both_named(tmp_path: Path) -> None:
    run = finish(tmp_path, make_cell())
    commit(tmp_path)
    (file,) = (tmp_path / "records").iterdir()
    before = file.read_bytes()
    finish(tmp_path, make_cell(), model={"parameters": 1, "inference_parameters": 1})
    finish(tmp_path, make_cell(seed=1))
    with pytest.raises(BenchError) as caught:
        ledger.export(tmp_path)
    for reported in (f"{file}:1", str(run.path), "model.parameters 464154, 1", "nothing was written"):
        assert reported in str(caught.value)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("spoil", "reported"),
    [
        (lambda text: text.replace('"accuracy":', '"accuracy":1', 1), "changed since it was written"),
        (lambda text: text[: len(text) // 2], "not a line of a run"),
        (lambda text: f"<<<<<<< mine\n{text}", "not a line of a run"),
    ],
)
def test_a_spoilt_line_is_reported_and_is_a_row(tmp_path: Path, spoil: Any, reported: str) -> None:
    finish(tmp_path, make_cell())
    commit(tmp_path)
    (file,) = (tmp_path / "records").iterdir()
    file.write_text(spoil(file.read_text()))
    table = Results(tmp_path).table()
    (row,) = table[table.status == "unreadable"].to_dict("records")
    assert reported in row["reason"]
    assert f"{file.name}:1" in row["reason"]
    with pytest.raises(BenchError, match=reported):
        ledger.export(tmp_path)


# -- a run and its line ----------------------------------------------------------------------------
def test_a_finished_directory_goes_before_the_line_and_what_differs_is_reported(tmp_path: Path) -> None:
    finish(tmp_path, make_cell())
    commit(tmp_path)
    finish(tmp_path, make_cell(), environment={"device": "here"})
    assert Results(tmp_path).conflicts == []
    finish(tmp_path, make_cell(), model={"parameters": 7})
    assert Results(tmp_path).table().parameters.tolist() == [7]
    (reported,) = Results(tmp_path).conflicts
    assert "differs from" in reported
    assert "model.parameters" in reported


def test_a_directory_that_cannot_be_read_is_no_conflict(tmp_path: Path) -> None:
    run = finish(tmp_path, make_cell())
    ledger.export(tmp_path)
    record = json.loads(run.record.read_text())
    record["cell"]["protocol"]["of_a_later_version"] = 1
    run.write_record(record)
    runs = Results(tmp_path)
    assert runs.conflicts == []
    assert runs.table().status.tolist() == ["unreadable"]


def test_what_is_not_finished_does_not_hide_the_line(tmp_path: Path) -> None:
    cells = [make_cell(seed=seed) for seed in range(3)]
    for cell in cells:
        finish(tmp_path, cell)
    commit(tmp_path)
    fail(tmp_path, cells[0], "died")
    RunDir(tmp_path, cells[1].run_id).write_cell(cells[1])
    with RunDir(tmp_path, cells[2].run_id).lock():
        assert Results(tmp_path).table().status.tolist() == ["done"] * 3
        assert {state.status for state in Results(tmp_path).states(cells).values()} == {"done"}


def test_a_child_of_a_committed_run_that_cannot_be_trained_anew_is_blocked(tmp_path: Path) -> None:
    parent, child = make_cell(), make_cell("crt", parent=make_cell())
    finish(tmp_path, parent)
    commit(tmp_path)
    assert Results(tmp_path).states([child])[child.run_id].status == "missing"
    fail(tmp_path, parent, "died")
    assert Results(tmp_path).states([child])[child.run_id].status == "blocked"
    assert Results(tmp_path).states([parent])[parent.run_id].status == "done"


# -- training --------------------------------------------------------------------------------------
@pytest.fixture
def run_grid(tmp_path: Path) -> Any:
    data = tmp_path / "data"
    data.mkdir()

    def run(cells: Any, **options: Any) -> Any:
        return local.run_grid(cells, tmp_path / "results", data, jobs=1, worker=hasty_run, **options)

    return run


def test_what_is_committed_is_not_trained_but_where_its_weights_are_needed(
    tmp_path: Path, run_grid: Any
) -> None:
    results, data = tmp_path / "results", tmp_path / "data"
    parent = make("parent")
    child, other = make("child", parent=parent), make("other", parent=parent)
    for cell in (parent, child):
        finish(results, cell)
    commit(results)
    assert [state.status for state in run_grid([parent, child]).values()] == ["done", "done"]
    assert starts(data) == []
    assert Results(results).needed([child]) == []
    assert Results(results).needed([child, other]) == [parent.run_id]
    assert {state.status for state in run_grid([other]).values()} == {"done"}
    assert starts(data) == [parent.run_id, other.run_id]
    run_grid([parent, child], rerun=[parent.run_id, child.run_id])
    assert starts(data)[2:] == [parent.run_id, child.run_id]
    shutil.rmtree(results / "runs")
    run_grid([child], rerun=[child.run_id])
    assert starts(data)[4:] == [parent.run_id, child.run_id]
    shutil.rmtree(results / "runs")
    run_grid([parent], needed=[parent.run_id])  # as a job of a cluster, whose child is another job's
    assert starts(data)[6:] == [parent.run_id]


def test_git_keeps_the_ledger_and_nothing_that_a_first_look_leaves_behind() -> None:
    def ignored(path: str) -> bool:
        done = subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT)
        if done.returncode > 1:
            pytest.skip("not a git checkout")
        return done.returncode == 0

    run = "results/runs/digits-if20-ce-s0-0123456789"
    local = [f"{run}/record.json", "results/rerun/x", "results/grids/quick.json", "results/slurm/a"]
    local += ["results/grids/quick-set.json", "results/grids/a-set.json", "reports/runs/a.html"]
    local += [f"reports/quick{end}" for end in (".html", ".md", ".csv", "_shots.svg")]
    local += ["reports/a.html", "reports/index.csv", "reports/index.json"]
    kept = ["results/records/a.jsonl", "results/grids/a.json", "results/external/a.json"]
    kept += ["reports/index.html", "reports/index.md", "reports/a.md", "reports/a_shots.svg"]
    assert [path for path in [*local, *kept] if ignored(path)] == local


# -- commands --------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe that was run, and its runs exported."""
    root = tmp_path_factory.mktemp("trained")
    (root / "small.yaml").write_text(RECIPE.replace("[0, 1]", "[0]"))
    for command in (["run", str(root / "small.yaml"), "--reports", str(root / "reports")], ["export"]):
        with pytest.raises(SystemExit) as end:
            main([*command, *map(str, where(root) if command[0] == "run" else where(root)[:2])])
        assert end.value.code in (0, None)
    return root


@pytest.fixture
def clone(trained: Path, tmp_path: Path) -> Path:
    """The same, without its run directories."""
    shutil.copytree(trained, tmp_path / "clone", ignore=lambda folder, names: {"runs"} & set(names))
    return tmp_path / "clone"


def ids(results: Path) -> dict[str, str]:
    return {run.cell.method.name: run.run_id for run in Results(results)}


def test_a_clone_has_its_runs_without_training(clone: Path, bench: Bench) -> None:
    code, out = bench("run", clone / "small.yaml", *where(clone), "--reports", clone / "reports")
    assert code == 0
    assert "2 done" in out
    assert "again  " not in out
    assert not (clone / "results/runs").exists()
    assert "0 of 2 runs to train" in bench("plan", clone / "small.yaml", *where(clone))[1]
    assert " 2 " in bench("status", "--results", clone / "results")[1]
    assert bench("check", "--results", clone / "results")[0] == 0
    found = ids(clone / "results")
    assert "nothing is published" in bench("explain", found["ce"], "--results", clone / "results")[1]
    code, out = bench("evaluate", found["ce"], *where(clone)[:4])
    assert code == 2
    assert f"its weights are not here; `rerun {found['ce']}` makes them again" in out


def test_a_rerun_of_a_committed_run_trains_it_and_what_it_starts_from(clone: Path, bench: Bench) -> None:
    found = ids(clone / "results")
    child, parent = found["posthoc_logit_adjustment"], found["ce"]
    code, out = bench("rerun", child, *where(clone))
    assert code == 0, out
    assert f"again   {parent}: its weights are not here" in out
    assert "EQUAL" in out
    assert not (clone / "results/rerun").exists()
    assert bench("evaluate", child, *where(clone)[:4])[0] == 0
    assert bench("evaluate", parent, *where(clone)[:4])[0] == 0
    code, out = bench("rerun", child, *where(clone))  # its parent is here now, and only lent
    assert (code, "again  " in out) == (0, False)
    assert RunDir(clone / "results", parent).weights.exists()


def test_a_rerun_that_ends_otherwise_keeps_the_old_run(clone: Path, bench: Bench) -> None:
    run_id = ids(clone / "results")["ce"]
    bench("rerun", run_id, *where(clone))
    run = RunDir(clone / "results", run_id)
    altered = run.read_record()
    altered["metrics"]["accuracy"] = 1.0
    run.write_record(altered)
    code, out = bench("rerun", run_id, *where(clone))
    assert code == 1
    assert "metrics.accuracy" in out
    old = clone / "results/rerun/old" / f"{run_id}.0"
    assert json.loads((old / "record.json").read_text())["metrics"]["accuracy"] == 1.0
    assert run.read_record()["metrics"]["accuracy"] != 1.0


def test_a_rerun_that_is_stopped_leaves_the_old_run_as_it_was(
    clone: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = ids(clone / "results")["ce"]
    bench("rerun", run_id, *where(clone))
    home = RunDir(clone / "results", run_id).path
    before = {file.name: file.read_bytes() for file in home.iterdir()}

    def impatient(cell: Any, event: str, detail: dict[str, Any]) -> None:
        if event == "epoch":
            raise KeyboardInterrupt

    def stopped(*cells: Any, listen: Any, **options: Any) -> Any:
        return launch(*cells, listen=impatient, **options)

    launch = local.run_grid
    monkeypatch.setattr(local, "run_grid", stopped)
    assert bench("rerun", run_id, *where(clone))[0] == 130
    assert "trained once more: interrupted" in bench("status", "small", "--results", clone / "results")[1]
    assert {file.name: file.read_bytes() for file in home.iterdir()} == before


def test_export_says_what_it_did(tmp_path: Path, bench: Bench) -> None:
    finish(tmp_path / "a", make_cell())
    finish(tmp_path / "b", make_cell(seed=1))
    make_grid(tmp_path / "a", "small", [("ce", make_cell())])
    code, out = bench("export", tmp_path / "b", "--results", tmp_path / "a")
    assert code == 0
    assert "2 runs, 2 of them new" in out
    assert bench("export", tmp_path / "nowhere", "--results", tmp_path / "a")[0] == 2
