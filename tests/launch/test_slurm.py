"""Runs on a real Slurm, which the tests bring up on this machine: three nodes, with two GPUs that are none.

What happens to jobs on a cluster is done to them here: they wait for others, are preempted, run out of time,
lose their node, are killed and cancelled. In the end the records must be those of undisturbed runs.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from project import ROOT

from bench.cell import Cell
from bench.errors import BenchError
from bench.launch import queue, slurm
from bench.launch.slurm import Ask, follow, submit
from bench.recipe import load
from bench.rundir import RunDir, attempt, equal
from bench.train.run import run_cell
from tests.helpers.slurm.worker import HELD_AT, OnCpu, held

SCRIPTS = ROOT / "tests/helpers/slurm"
MISSING = next((name for name in ("slurmctld", "slurmd", "munged") if shutil.which(name) is None), None)

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(MISSING is not None, reason=f"{MISSING} is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can bring up a Slurm of its own"),
]

RECIPE = """\
# Digits, for a test.
title: A small story
grid: {dataset: digits, imbalance_factor: 10, backbone: resnet8_cifar, seed: [0, 1, 2]}
protocol: {epochs: 4, batch_size: 128}
methods:
  ce: {}
  shifted: {method: posthoc_logit_adjustment, from: ce}
"""


@contextmanager
def brought_up(*options: str) -> Iterator[None]:
    """A cluster that is up, and the one that commands talk to; one at a time, for they share ports."""
    home = Path(tempfile.mkdtemp(prefix="longtail-slurm-"))  # pytest's own folders are closed to a database
    with (
        (Path(tempfile.gettempdir()) / "longtail-slurm.lock").open("w") as lock,
        pytest.MonkeyPatch.context() as env,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        env.setenv("SLURM_CONF", str(home / "slurm.conf"))
        try:
            up = subprocess.run([SCRIPTS / "up.sh", home, *options], stdin=subprocess.DEVNULL, timeout=120)
            assert up.returncode == 0
            yield
        finally:
            subprocess.run([SCRIPTS / "down.sh", home], timeout=120, check=False)


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[None]:
    """A cluster, and with the parameter "accounting" one that has it."""
    with brought_up(*filter(None, [getattr(request, "param", None)])):
        yield


class Place:
    """A recipe, a results and a data folder, and what happened there."""

    def __init__(self, root: Path) -> None:
        self.root, self.results, self.data = root, root / "results", root / "data"
        self.data.mkdir()
        self.recipe = root / "small.yaml"
        self.recipe.write_text(RECIPE)
        self.hold = self.data / "hold"
        self.hold.touch()

    def cells(self, label: str = "ce") -> list[Cell]:
        return [point.cell for point in load(self.recipe).points if point.label == label]

    def submit(self, cells: list[Cell], ask: Ask, **options: Any) -> dict[str, list[Cell]]:
        return submit(cells, self.results, self.data, ask, worker=held, **options)

    def follow(self, cells: list[Cell]) -> Counter[str]:
        ends = follow(cells, self.results, self.data, listen=lambda *_: None, seconds=0.5)
        return Counter(state.status for state in ends.values())

    def run(self, cell: Cell) -> RunDir:
        return RunDir(self.results, cell.run_id)

    def await_held(self, cells: list[Cell]) -> None:
        await_(lambda: all(len(self.run(c).epochs()) == HELD_AT and self.run(c).is_running() for c in cells))

    def starts(self, cell: Cell) -> list[dict[str, Any]]:
        lines = (self.data / "starts").read_text().splitlines() if (self.data / "starts").exists() else []
        return [note for note in map(json.loads, lines) if note["run"] == cell.run_id]

    def job(self, cell: Cell) -> queue.Queued | None:
        return queue.queued(self.results).get(cell.run_id)

    def command(self, *arguments: object) -> list[str]:
        folders = ("--results", self.results, "--data", self.data, "--reports", self.root / "reports")
        if arguments[0] == "status":
            folders = folders[:2]
        return [sys.executable, str(ROOT / "run_bench.py"), *map(str, (*arguments, *folders))]

    def bench(self, *arguments: object) -> tuple[int, str]:
        """Run a command of the suite; return its exit code and what it printed."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=120)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def place(cluster: None, tmp_path: Path) -> Iterator[Place]:
    yield Place(tmp_path)
    ask_slurm("scancel", "--user=root")
    await_(lambda: not ask_slurm("squeue", "--noheader"))


def ask_slurm(*command: object) -> str:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=True).stdout.strip()


def await_(condition: Callable[[], object], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"it did not come about; the queue:\n{ask_slurm('squeue', '--array')}"
        time.sleep(0.1)


def is_undisturbed(place: Place, cell: Cell) -> bool:
    """Tell whether a run's record and weights are those of one that nobody disturbed."""
    reference = RunDir(place.root / "reference", cell.run_id)
    run_cell(cell, place.root / "reference", place.data)
    assert len(place.run(cell).epochs()) == cell.protocol.epochs
    return equal(place.run(cell).read_record(), reference.read_record())


def test_an_array_keeps_its_cap_shares_out_gpus_and_runs_no_cell_twice(place: Place) -> None:
    cells = place.cells()
    (array,) = place.submit(cells, Ask(at_once=2))
    await_(lambda: sum(len(place.run(cell).epochs()) == HELD_AT for cell in cells) == 2)
    jobs = queue.queued(place.results)
    assert Counter(job.state for job in jobs.values()) == {"RUNNING": 2, "PENDING": 1}
    (waits,) = (run_id for run_id, job in jobs.items() if job.state == "PENDING")
    assert jobs[waits].reason == "JobArrayTaskLimit"

    assert place.submit(cells, Ask()) == {}  # all of it is queued
    assert place.submit(cells, Ask(), rerun=[cell.run_id for cell in cells]) == {}
    code, out = place.bench("run", place.recipe, "--only", "label=ce", "--launcher", "slurm", "--no-wait")
    assert (code, f"already in the queue: job {array}" in out) == (0, True), out
    code, out = place.bench("status", place.recipe)
    assert out.count("epochs done: 2") == 2
    assert "(JobArrayTaskLimit)" in out

    for run_id in jobs.keys() - {waits}:
        ask_slurm("scancel", "--signal=TERM", jobs[run_id].id)  # as before a preemption, to every process
    place.hold.unlink()
    assert place.follow(cells) == {"done": 3}
    starts = [start for cell in cells for start in place.starts(cell)]
    assert len(starts) == 3
    assert {start["device"] for start in starts} == {"cuda"}
    first_two = [(s["SLURMD_NODENAME"], s["CUDA_VISIBLE_DEVICES"]) for s in starts if s["run"] != waits]
    assert len(set(first_two)) == 2
    assert {gpu for _, gpu in first_two} <= {"0", "1"}
    assert all(is_undisturbed(place, cell) for cell in cells)


def test_small_runs_share_a_gpu_in_one_job(place: Place) -> None:
    cells = place.cells()[:2]
    place.hold.unlink()
    place.submit(cells, Ask(runs=2))
    assert place.follow(cells) == {"done": 2}
    first, second = (place.starts(cell) for cell in cells)
    assert first[0]["process"] == second[0]["process"]
    assert first[0]["CUDA_VISIBLE_DEVICES"] == second[0]["CUDA_VISIBLE_DEVICES"] == "0"
    await_(lambda: not queue.queued(place.results))


def test_a_run_over_several_gpus_is_one_run(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, for want of GPUs: the ranks find each other and make what one process makes."""
    monkeypatch.setattr(slurm, "Task", OnCpu)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    (cell, *_) = place.cells()
    place.submit([cell], Ask(gpus=2))
    assert place.follow([cell]) == {"done": 1}
    assert place.run(cell).read_record()["environment"]["ranks"] == 2
    assert len(place.run(cell).epochs()) == cell.protocol.epochs


def test_whatever_ends_a_job_its_run_goes_on_in_another(place: Place) -> None:
    cells = preempted, timed_out, bereft = place.cells()
    ask = Ask(gpus=0, more={"cpus-per-task": "2"})  # a node for each
    place.submit(cells, ask)
    place.await_held(cells)
    nodes = {cell.seed: place.starts(cell)[0]["SLURMD_NODENAME"] for cell in cells}
    assert len(set(nodes.values())) == 3

    kill_node(nodes[bereft.seed])
    timed_out_job = place.job(timed_out)
    assert timed_out_job is not None
    ask_slurm("scontrol", "update", f"JobId={timed_out_job.id}", "TimeLimit=1")
    high = ("--partition=high", "--exclusive", "--output=/dev/null", "--wrap=sleep 5")
    ask_slurm("sbatch", f"--nodelist={nodes[preempted.seed]}", *high)
    for cell in cells:
        await_(lambda cell=cell: (job := place.job(cell)) and job.state == "PENDING")
    place.hold.unlink()
    revive_node(nodes[bereft.seed])

    assert place.follow(cells) == {"done": 3}
    for cell in cells:
        assert [start["epochs"] for start in place.starts(cell)][:2] == [0, HELD_AT], cell.seed
        assert is_undisturbed(place, cell), cell.seed


def processes(**environment: str) -> list[int]:
    """Find the processes that were started with these values in their environment, on this cluster."""
    wanted = {
        f"{name}={value}" for name, value in {"SLURM_CONF": os.environ["SLURM_CONF"], **environment}.items()
    }
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if wanted <= set((place / "environ").read_text(errors="replace").split("\0")):
                found.append(int(place.name))
    return found


def parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def kill_node(name: str) -> None:
    """End a node's daemon and all that runs there, as a power cut would."""
    home = Path(os.environ["SLURM_CONF"]).parent
    running = processes(SLURMD_NODENAME=name)
    keepers = {parent(process) for process in running} - set(running)
    for process in [int((home / "pid" / f"slurmd-{name}").read_text()), *keepers, *running]:
        assert process > 1
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def revive_node(name: str) -> None:
    subprocess.run(["slurmd", "-N", name], check=True)


def test_what_is_killed_or_cancelled_goes_on_with_a_child_or_the_next_submission(place: Place) -> None:
    cells = killed, cancelled, headless = place.cells()
    child = place.cells("shifted")[killed.seed]
    assert child.parent == killed
    _, second = place.submit([*cells, child], Ask(gpus=0))
    place.await_held(cells)
    waiting = place.job(child)
    assert waiting is not None
    assert (waiting.array, waiting.reason) == (second, "Dependency")

    os.kill(place.starts(killed)[0]["process"], signal.SIGKILL)
    ask_slurm("scancel", place.job(cancelled).id)
    step = processes(SLURM_JOB_ID=place.starts(headless)[0]["SLURM_JOB_ID"])
    (task,) = (
        p
        for p in step
        if b"submitit.core._submit" in Path(f"/proc/{p}/cmdline").read_bytes().split(b"\0")
        and Path(f"/proc/{p}/comm").read_text().startswith("python")
    )
    os.kill(task, signal.SIGKILL)
    await_(lambda: {job.array for job in queue.queued(place.results).values()} == {second})
    reason = place.run(killed).look()[0].reason
    assert reason is not None
    assert "killed by signal 9" in reason
    place.hold.unlink()
    assert place.follow([*cells, child]) == {"done": 2, "interrupted": 2}

    place.submit([*cells, child], Ask(gpus=0))
    assert place.follow([*cells, child]) == {"done": 4}
    for cell in cells:
        assert [start["epochs"] for start in place.starts(cell)] == [0, HELD_AT]
        assert is_undisturbed(place, cell)


def test_a_run_trained_once_more_goes_on_beside_the_old_one_in_a_job_that_is_requeued(place: Place) -> None:
    cell = place.cells()[0]
    run_cell(cell, place.results, place.data)
    before = place.run(cell).read_record()
    new = attempt(place.results, cell.run_id)
    place.submit([cell], Ask(gpus=0), rerun=[cell.run_id])
    await_(lambda: len(new.epochs()) == HELD_AT and new.is_running())
    job = place.job(cell)
    assert job is not None
    ask_slurm("scontrol", "requeue", job.id)
    await_(lambda: not new.is_running())
    assert place.run(cell).read_record() == before
    place.hold.unlink()
    assert place.follow([cell]) == {"done": 1}
    assert [start["epochs"] for start in place.starts(cell)] == [0, HELD_AT]
    assert equal(place.run(cell).read_record(), before)
    assert place.run(cell).read_record()["timing"] != before["timing"]
    assert not (place.results / "rerun").exists()


def test_slurms_refusal_is_reported_with_what_there_is(place: Place) -> None:
    with pytest.raises(BenchError, match=r"--partition mian: .*did you mean 'main'"):
        place.submit(place.cells(), Ask(partition="mian"))
    with pytest.raises(BenchError, match=r"sbatch: .*"):
        place.submit(place.cells(), Ask(more={"constraint": "teapot"}))
    assert not queue.queued(place.results)

    cell = place.cells()[0]
    run_cell(cell, place.results, place.data)
    with pytest.raises(BenchError, match=r"sbatch: .*"):
        place.submit([cell], Ask(more={"constraint": "teapot"}), rerun=[cell.run_id])
    assert place.run(cell).is_done()  # nothing is cleared for a job that is refused


@pytest.mark.skipif(shutil.which("slurmdbd") is None, reason="slurmdbd is not installed")
@pytest.mark.parametrize("cluster", ["accounting"], indirect=True)
def test_a_user_may_stop_watching_and_look_again(place: Place) -> None:
    """With accounting, of which nothing here takes notice."""
    text = place.recipe.read_text()
    place.recipe.write_text(text.replace("epochs: 4", "epochs: 40"))  # they outlast the second before Ctrl-C
    options = ("run", place.recipe, "--only", "seed=0", "--launcher", "slurm", "--gpus-per-run", 0)
    command = place.command(*options, "--partition", "main", "--time", 30)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a child of a background job would ignore it
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as first:
        assert first.stdout is not None
        reported = [first.stdout.readline(), first.stdout.readline()]
        assert all(line.startswith("submitted: job") for line in reported), reported
        time.sleep(1)
        first.send_signal(signal.SIGINT)
        reported = [*first.stdout.readlines()]
    assert first.returncode == 130
    assert "on its way; look again with the same command" in reported[-1]
    code, out = place.bench(*options)
    assert code == 0, out
    assert "already in the queue" in out
    assert "2 done" in out
    assert (place.root / "reports" / "small.html").exists()
    states = ask_slurm("sacct", "--allocations", "--noheader", "--format=State").split()
    assert states == ["COMPLETED", "COMPLETED"]
