"""What goes wrong on real machines: full or read-only disks, diverging runs, dead processes, wrong clocks.

The run it happens to tells the reason, all others go on, and nothing that was there before is lost.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import photo_trees
import pytest
from commands import Bench
from fault_fakes import hasty_run, make, starts
from photo_trees import IMAGENET
from project import ROOT

from bench.cell import Cell
from bench.cli.grids import sum_up
from bench.cores import WORKERS
from bench.launch import local
from bench.records import Results
from bench.registry import find
from bench.rundir import RunDir, State, equal
from bench.train.checkpoint import read_checkpoint
from bench.train.run import run_cell


def content_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- runs that go wrong ------------------------------------------------------------------------------
MISFORTUNES = '''\
"""Methods that meet with trouble in their third epoch, while a file says so."""

from pathlib import Path

import torch

from bench.registry import register
from methods.cross_entropy import CrossEntropy


class Unlucky(CrossEntropy):
    def before_epoch(self, clock):
        super().before_epoch(clock)
        self.now = clock.epoch == 2 and Path(__file__).with_name("trouble").exists()

    def loss(self, batch):
        return self.meet(super().loss(batch)) if self.now else super().loss(batch)


@register("nan", title="NaN", family="own", venue="here", year=2024, paper="none")
class Nan(Unlucky):
    def meet(self, loss):
        return loss * float("nan")


@register("greedy", title="Greedy", family="own", venue="here", year=2024, paper="none")
class Greedy(Unlucky):
    def meet(self, loss):
        return loss + torch.empty(2**52).sum()


@register("leaving", title="Leaving", family="own", venue="here", year=2024, paper="none")
class Leaving(Unlucky):
    def meet(self, loss):
        raise SystemExit("I am leaving")
'''

UNLUCKY = """\
grid: {dataset: digits, imbalance_factor: 20, backbone: resnet8_cifar}
protocol: {epochs: 4, batch_size: 64, schedule: {warmup_epochs: 1}}
methods: {nan: {}, greedy: {}, leaving: {}, ce: {}}
"""


def test_a_grid_goes_on_past_every_failure_and_a_retry_mends_it(tmp_path: Path, bench: Bench) -> None:
    (tmp_path / "mine.py").write_text(MISFORTUNES)
    (tmp_path / "unlucky.yaml").write_text(UNLUCKY)
    (tmp_path / "trouble").touch()
    command = ["run", tmp_path / "unlucky.yaml", "--methods", tmp_path / "mine.py", "--gpus", "none"]
    for option in ("results", "data", "reports"):
        command += [f"--{option}", tmp_path / option]
    code, out = bench(*command)
    assert code == 1, out
    assert "3 failed, 1 done" in out
    records = {
        record["cell"]["method"]["name"]: record
        for record in (
            RunDir(tmp_path / "results", path.name).read_record()
            for path in (tmp_path / "results/runs").iterdir()
        )
    }
    for name, reason in (
        ("nan", "the loss became nan in epoch 2; lower protocol.optimizer.lr"),
        ("greedy", "allocate"),
        ("leaving", "exit code 1; see its log.txt"),
    ):
        assert records[name]["status"] == "failed"
        assert reason in records[name]["reason"]
        run = RunDir(tmp_path / "results", records[name]["run_id"])
        assert [line["epoch"] for line in run.epochs()] == [0, 1]
    assert "I am leaving" in RunDir(tmp_path / "results", records["leaving"]["run_id"]).log.read_text()
    assert bench(*command)[0] == 1  # what failed is not tried again unasked
    (tmp_path / "trouble").unlink()
    code, out = bench(*command, "--retry-failed")
    assert code == 0, out
    assert "4 done" in out


def test_an_image_that_breaks_in_epoch_3_fails_the_run_and_leaves_the_last_good_checkpoint(
    tmp_path: Path,
) -> None:
    root = photo_trees.imagenet(tmp_path / "data")
    victim = sorted((root / "train").rglob("*.JPEG"))[0]
    whole = victim.read_bytes()
    cell = photo_trees.cell(IMAGENET, find("ce").choose(), epochs=4)
    run = RunDir(tmp_path, cell.run_id)

    def spoil(line: dict[str, Any]) -> None:
        if line["epoch"] == 1:
            victim.write_bytes(whole[:200])

    run_cell(cell, tmp_path, tmp_path / "data", report=spoil, checkpoint_seconds=0)
    record = run.read_record()
    assert record["status"] == "failed"
    assert f"{victim.name}: not a readable image" in record["reason"]
    state = read_checkpoint(run.checkpoint, cell.id, "cpu")
    assert state is not None
    assert state["epoch"] == 1
    assert [line["epoch"] for line in run.epochs()] == [0, 1]
    victim.write_bytes(whole)
    ends = local.run_grid([cell], tmp_path, tmp_path / "data", retry_failed=True)
    assert ends[cell.run_id].status == "done"
    run_cell(cell, tmp_path / "undisturbed", tmp_path / "data")
    assert equal(run.read_record(), RunDir(tmp_path / "undisturbed", cell.run_id).read_record())


def test_readers_that_are_killed_fail_the_run_with_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WORKERS, "2")
    photo_trees.imagenet(tmp_path / "data")
    cell = photo_trees.cell(IMAGENET, find("ce").choose(), epochs=4)
    others = {child.pid for child in multiprocessing.active_children()}

    def kill(line: dict[str, Any]) -> None:
        if line["epoch"] == 1:
            for child in multiprocessing.active_children():
                if child.pid not in others:
                    os.kill(child.pid or 0, signal.SIGKILL)

    run_cell(cell, tmp_path, tmp_path / "data", report=kill, checkpoint_seconds=0)
    record = RunDir(tmp_path, cell.run_id).read_record()
    assert record["status"] == "failed"
    assert "DataLoader worker" in record["reason"]
    state = read_checkpoint(RunDir(tmp_path, cell.run_id).checkpoint, cell.id, "cpu")
    assert state is not None
    assert state["epoch"] == 1


# -- disks -------------------------------------------------------------------------------------------
def mounted(kind: list[str], folder: Path) -> Iterator[Path]:
    """Give a folder on a disk of its own; tests that want one skip where it may not be mounted."""
    folder.mkdir()
    done = subprocess.run(["mount", *kind, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs to mount a disk: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("needs root to mount a small disk")
    yield from mounted(["-t", "tmpfs", "-o", "size=2m", "tmpfs"], tmp_path / "disk")


@pytest.fixture
def real_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with a journal, which like a broken one can be made to refuse all writes."""
    if os.geteuid() or not shutil.which("mkfs.ext4"):
        pytest.skip("needs root and mkfs.ext4 to make a disk")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(8 * 2**20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    yield from mounted(["-o", "loop", str(image)], tmp_path / "disk")


def fill(disk: Path, leave: int) -> Path:
    """Fill a disk but for `leave` bytes."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    os.truncate(ballast, ballast.stat().st_size - leave)
    return ballast


@pytest.mark.parametrize("leave", [0, 8192, 100_000])
def test_a_full_disk_is_reported_and_costs_no_earlier_result(
    small_disk: Path, tmp_path: Path, bench: Bench, leave: int
) -> None:
    """Full to the last byte, with room for a cell, with room for a record but for no weights."""
    recipe = tmp_path / "small.yaml"
    recipe.write_text(
        "methods: {ce: {}, ldam: {}}\nprotocol: {epochs: 1}\n"
        "grid: {dataset: digits, imbalance_factor: 20, backbone: resnet8_cifar}\n"
    )
    command = ["run", recipe, "--gpus", "none", "--results", small_disk, "--data", tmp_path]
    command += ["--reports", tmp_path / "reports"]
    assert bench(*command, "--only", "label=ce")[0] == 0
    before = content_of(small_disk)
    ballast = fill(small_disk, leave)
    code, out = bench(*command)
    assert code in (1, 2)
    assert "No space left on device" in out
    assert "Traceback" not in out
    if leave:
        assert "1 done" in out
    now = content_of(small_disk)
    assert all(now[path] == content for path, content in before.items() if path.parent.name != "grids")
    ballast.unlink()
    code, out = bench(*command, "--retry-failed")
    assert code == 0, out
    assert "2 done" in out
    assert not list(small_disk.rglob("*.tmp"))


def test_a_full_disk_costs_a_run_that_is_trained_once_more_nothing(small_disk: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    cell = make("ce")

    def launch(**options: Any) -> str:
        ends = local.run_grid([cell], small_disk, data, jobs=1, worker=hasty_run, **options)
        return ends[cell.run_id].status

    assert launch() == "done"
    before = content_of(small_disk)
    ballast = fill(small_disk, 8192)  # for a cell
    assert launch(rerun=[cell.run_id]) != "done"
    assert {path: path.read_bytes() for path in before} == before
    ballast.unlink()
    assert launch(retry_failed=True) == "done"
    assert not (small_disk / "rerun").exists()


def test_a_disk_that_becomes_read_only_is_reported_and_costs_no_earlier_result(
    real_disk: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    good, later = make("ce"), [make("late", seed=seed) for seed in range(2)]
    cells = [good, make("breaker", "break the disk"), *later]
    reported: dict[str, str | None] = {}

    def listen(cell: Cell, event: str, detail: dict[str, Any]) -> None:
        if event not in ("planned", "started", "epoch"):
            reported[cell.method.name] = detail.get("reason")

    def launch(cells: list[Cell]) -> Counter[str]:
        ends = local.run_grid(cells, real_disk, data, jobs=1, listen=listen, worker=hasty_run)
        return Counter(end.status for end in ends.values())

    assert launch([good]) == {"done": 1}
    before = RunDir(real_disk, good.run_id).read_record()
    assert launch(cells) == {"done": 1, "interrupted": 1, "missing": 2}
    assert "Read-only file system" in str(reported["breaker"])
    assert "Read-only file system" in str(reported["late"])
    assert RunDir(real_disk, good.run_id).read_record() == before

    image = real_disk.parent / "image"  # the disk is mended, and nothing on it was lost
    subprocess.run(["umount", str(real_disk)], check=True)
    subprocess.run(["fsck.ext4", "-fy", str(image)], check=False, capture_output=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(real_disk)], check=True)
    (data / "heal").touch()
    assert launch(cells) == {"done": 4}
    assert RunDir(real_disk, good.run_id).read_record() == before


def test_a_results_folder_that_cannot_be_made_is_reported_in_a_line(tmp_path: Path, bench: Bench) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "small.yaml").write_text(UNLUCKY.replace("nan: {}, greedy: {}, leaving: {}, ", ""))
    command = ["run", tmp_path / "small.yaml", "--gpus", "none", "--data", tmp_path]
    code, out = bench(*command, "--results", tmp_path / "file" / "results")
    assert code == 2
    assert out.startswith(f"error: {tmp_path}/file")
    assert len(out.splitlines()) == 1


def test_a_grid_with_a_cell_that_left_nothing_is_no_success() -> None:
    assert sum_up({"a": State("done")}) == 0
    assert sum_up({"a": State("done"), "b": State("missing")}) == 1


# -- kill -9 -----------------------------------------------------------------------------------------
def test_runs_whose_server_is_killed_are_interrupted_and_go_on_in_the_same_environment(
    tmp_path: Path,
) -> None:
    """The next processes come from a new server, which must have one thread too, or numbers differ."""
    data, seen = tmp_path / "data", list[int]()
    data.mkdir()
    cells = [make("ce", "wait", seed=seed) for seed in range(3)]

    def listen(cell: Cell, event: str, detail: dict[str, Any]) -> None:
        if event == "epoch" and not seen:
            seen.append(int((data / "server").read_text()))
            os.kill(seen[0], signal.SIGKILL)
            (data / "heal").touch()

    def launch(**options: Any) -> set[str]:
        ends = local.run_grid(cells, tmp_path, data, jobs=1, worker=hasty_run, **options)
        return {f"{end.status} {end.reason or ''}".strip() for end in ends.values()}

    assert launch(listen=listen) == {"done", "interrupted the server that its process came from died"}
    assert launch() == {"done"}
    records = [RunDir(tmp_path, cell.run_id).read_record() for cell in cells]
    assert {record["environment"]["threads"] for record in records} == {"1"}


def test_a_few_kills_change_nothing(tmp_path: Path) -> None:
    """The short form of benchmarks/soak.py."""
    done = subprocess.run(
        [
            sys.executable,
            "benchmarks/soak.py",
            *["--kills", "2", "--seed", "3", "--seeds", "1", "--epochs", "3"],
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2  kills in all, 0 faults" in done.stdout


# -- clocks, and grids of which much fails -----------------------------------------------------------
def test_of_300_cells_of_which_30_percent_fail_none_is_lost_and_none_runs_twice(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    bad = ("fail", "raise", "exit", "SIGSEGV")
    roots = [make("ce", bad[i % 4] if i % 10 > 6 else "well", seed=i) for i in range(240)]
    children = [make("crt", "well", parent=roots[i], seed=i) for i in range(60)]
    cells = [*roots, *children]
    assert len({cell.run_id for cell in cells}) == 300

    def launch(**options: Any) -> dict[str, State]:
        return local.run_grid(cells, tmp_path / "results", data, jobs=3, worker=hasty_run, **options)

    failing = {cell.run_id for i, cell in enumerate(roots) if i % 10 > 6}
    blocked = {cell.run_id for cell in children if cell.parent and cell.parent.run_id in failing}
    ends = launch()
    assert {run_id for run_id, end in ends.items() if end.status == "failed"} == failing
    assert {run_id for run_id, end in ends.items() if end.status == "blocked"} == blocked
    assert Counter(end.status for end in ends.values()) == {"done": 210, "failed": 72, "blocked": 18}
    first = starts(data)
    assert Counter(first) == dict.fromkeys(ends.keys() - blocked, 1)
    before = {run_id: RunDir(tmp_path / "results", run_id).read_record() for run_id in ends.keys() - blocked}

    for path in (tmp_path / "results").rglob("*"):  # the clock is set back: all that is there is of tomorrow
        os.utime(path, (time.time() + 86400, time.time() + 86400))
    assert launch() == ends
    assert starts(data) == first

    (data / "heal").touch()
    ends = launch(retry_failed=True)
    assert Counter(end.status for end in ends.values()) == {"done": 300}
    assert Counter(starts(data)[len(first) :]) == dict.fromkeys(failing | blocked, 1)
    for run_id, record in before.items():
        if record["status"] == "done":
            assert RunDir(tmp_path / "results", run_id).read_record() == record
    assert Results(tmp_path / "results").table()["status"].value_counts().to_dict() == {"done": 300}
