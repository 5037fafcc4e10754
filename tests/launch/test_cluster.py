"""Running on a cluster, as far as it needs none: what Slurm is asked, waves, the queue as Slurm lists it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from project import ROOT
from records_factory import finish

from bench import ledger
from bench.cell import BackboneChoice, Cell, DataSet, MethodChoice, Protocol
from bench.cli import main
from bench.errors import BenchError
from bench.launch import queue, slurm
from bench.launch.queue import Queued
from bench.launch.rerun import settle
from bench.launch.slurm import Ask, Task, follow, submit, waves
from bench.records import Results
from bench.rundir import RunDir, State, Status, attempt

RECIPE = """\
# Digits, for a test.
title: A small story
grid: {dataset: digits, imbalance_factor: 10, backbone: resnet8_cifar, seed: 0}
protocol: {epochs: 1, batch_size: 128}
methods: {ce: {}}
"""


def make(name: str, parent: Cell | None = None, **more: Any) -> Cell:
    return Cell(
        method=MethodChoice(name=name),
        dataset=DataSet(name="digits", source="digits"),
        imbalance_factor=10.0,
        backbone=BackboneChoice(name="resnet8_cifar"),
        protocol=Protocol(epochs=3),
        parent=parent,
        **more,
    )


def script(ask: Ask, tasks: int = 3, after: tuple[str, ...] = ()) -> str:
    submitit = pytest.importorskip("submitit.slurm.slurm")
    parameters = ask.parameters(tasks, after)
    text: str = submitit._make_sbatch_string("work", "folder", map_count=tasks, **parameters)
    return text


def test_the_script_asks_for_what_was_asked() -> None:
    more = {"account": "lab", "exclusive": True}
    reported = script(Ask(partition="gpu", minutes=90, at_once=2, more=more), after=("7", "8"))
    for line in (
        "exclusive",
        "partition=gpu",
        "time=90",
        "array=0-2%2",
        "gres=gpu:1",
        "account=lab",
        "requeue",
    ):
        assert f"#SBATCH --{line}\n" in reported
    assert "#SBATCH --dependency=afterany:7:8\n" in reported
    assert "#SBATCH --signal=USR2@90\n" in reported


def test_runs_on_the_cpu_have_a_core_each_and_options_of_the_user_win() -> None:
    reported = script(Ask(gpus=0, runs=4))
    assert "#SBATCH --cpus-per-task=4\n" in reported
    assert "array=0-2%3" in reported
    assert "gres" not in reported
    assert "dependency" not in reported
    assert "#SBATCH --gres=gpu:a100:1\n" in script(Ask(more={"gres": "gpu:a100:1"}))
    assert script(Ask(gpus=0, more={"cpus-per-task": "8"})).count("cpus-per-task=") == 1


def test_a_run_over_several_gpus_has_a_rank_for_each() -> None:
    reported = script(Ask(gpus=4))
    assert "#SBATCH --gres=gpu:4\n" in reported
    assert "#SBATCH --ntasks-per-node=4\n" in reported
    assert "srun --unbuffered" in reported
    assert "--kill-on-bad-exit=1" in reported


@pytest.mark.parametrize(
    ("reported", "own"),
    [
        ({"SLURM_CPUS_ON_NODE": "48", "SLURM_NTASKS_PER_NODE": "4"}, "12"),  # as a cluster gives them to GPUs
        ({"SLURM_CPUS_ON_NODE": "16"}, "16"),
        ({"SLURM_CPUS_ON_NODE": "16", "SLURM_CPUS_PER_TASK": "6"}, "6"),  # as the user asked
        ({"SLURM_CPUS_ON_NODE": "1", "SLURM_NTASKS_PER_NODE": "4"}, "1"),
    ],
)
def test_a_step_has_its_share_of_the_cores_that_the_job_was_given(reported: dict[str, str], own: str) -> None:
    setup = [*Ask().parameters(1, ())["setup"], "echo $SRUN_CPUS_PER_TASK"]
    done = subprocess.run(["bash", "-ec", "\n".join(setup)], env=reported, capture_output=True, text=True)
    assert done.stdout.strip() == own, done.stderr


def test_waves_put_parents_before_children() -> None:
    elder = make("ce")
    middle = make("crt", elder)
    youngest = make("tau", middle)
    assert waves([youngest, elder, middle, make("ldam")]) == [[elder, make("ldam")], [middle], [youngest]]
    assert waves([youngest, elder]) == [[elder], [youngest]]
    assert waves([youngest]) == [[youngest]]
    assert waves([youngest, make("ldam")], queued={elder.run_id}) == [[make("ldam")], [youngest]]
    assert waves([]) == []


def test_the_queue_is_read_as_squeue_tells_it() -> None:
    reported = "12_0|RUNNING|None\n12_3|PENDING|Resources\n13|PENDING|launch failed requeued held\n"
    first, second, third = queue.read_queue(reported)
    assert str(first) == "job 12_0 running"
    assert (second.array, str(second)) == ("12", "job 12_3 pending (Resources)")
    assert (third.array, third.reason) == ("13", "launch failed requeued held")
    assert queue.read_queue("") == []


def test_jobs_are_known_by_the_runs_that_were_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reported = "12_0|RUNNING|None\n12_1|PENDING|Priority\n13|PENDING|Dependency\n99_0|RUNNING|None\n"
    monkeypatch.setattr(queue, "_squeue", lambda: reported)
    monkeypatch.setattr(queue.shutil, "which", lambda name: name)
    assert queue.queued(tmp_path) == {}
    queue.note(tmp_path, "12", [["a", "b"], ["c"]])
    queue.note(tmp_path, "13", [["d"]])
    assert {run_id: job.id for run_id, job in queue.queued(tmp_path).items()} == {
        "a": "12_0",
        "b": "12_0",
        "c": "12_1",
        "d": "13",
    }


def test_only_what_is_still_to_run_is_queued() -> None:
    jobs = dict.fromkeys(("a", "b", "c", "d"), Queued("12_1", "PENDING", "Priority"))
    statuses: list[Status] = ["done", "running", "missing", "interrupted", "missing"]
    known = {name: State(status) for name, status in zip("abcde", statuses, strict=True)}
    seen = queue.with_queue(known, jobs)
    assert [state.status for state in seen.values()] == ["done", "running", "queued", "queued", "missing"]
    assert seen["c"].reason == "job 12_1 pending (Priority)"


class FakeSlurm:
    """Takes submissions and tells of them until they are over; nothing runs."""

    def __init__(self) -> None:
        self.arrays: dict[str, tuple[list[Task], list[str]]] = {}
        self.live: set[str] = set()
        self.looks: Iterator[Callable[[], object]] = iter(())

    def sbatch(self, folder: Path, ask: Ask, tasks: list[Task], after: list[str]) -> str:
        if ask.partition == "refused":
            raise BenchError("--partition refused")
        array = str(len(self.arrays) + 1)
        self.arrays[array] = (tasks, after)
        self.live.add(array)
        return array

    def squeue(self) -> str:
        next(self.looks, lambda: None)()
        lines = [f"{a}_{i}|PENDING|None\n" for a in sorted(self.live) for i in range(len(self.arrays[a][0]))]
        return "".join(lines)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm()
    monkeypatch.setattr(slurm, "check_commands", lambda: None)
    monkeypatch.setattr(slurm, "_sbatch", fake.sbatch)
    monkeypatch.setattr(queue, "_squeue", fake.squeue)
    monkeypatch.setattr(queue.shutil, "which", lambda name: name)
    return fake


def end(results: Path, cell: Cell, status: str = "done") -> None:
    run = RunDir(results, cell.run_id)
    run.write_cell(cell)
    run.write_record({"cell": cell.model_dump(mode="json"), "status": status, "reason": None})


def test_waves_wait_for_the_arrays_of_their_ancestors_and_tasks_pack_runs(
    fake: FakeSlurm, tmp_path: Path
) -> None:
    elders = [make("ce", seed=seed) for seed in range(3)]
    children = [make("crt", elder, seed=elder.seed) for elder in elders]
    submitted = submit(children[:2], tmp_path, tmp_path, Ask(runs=2))
    assert submitted == {"1": elders[:2], "2": children[:2]}
    assert [[task.cells for task in tasks] for tasks, _ in fake.arrays.values()] == [
        [tuple(elders[:2])],
        [tuple(children[:2])],
    ]
    assert [after for _, after in fake.arrays.values()] == [[], ["1"]]
    # what is queued is not submitted again, but waited for
    cousin = make("tau", elders[0])
    assert submit([cousin, *children], tmp_path, tmp_path, Ask()) == {
        "3": [elders[2]],
        "4": [cousin, children[2]],
    }
    assert fake.arrays["4"][1] == ["1", "3"]


def test_what_is_done_failed_or_running_is_not_submitted(fake: FakeSlurm, tmp_path: Path) -> None:
    done, failed, running, left = (make(name) for name in ("ce", "ldam", "focal", "crt"))
    end(tmp_path, done)
    end(tmp_path, failed, "failed")
    blocked = make("tau", failed)
    with RunDir(tmp_path, running.run_id).lock():
        cells = [done, failed, running, left, blocked]
        assert submit(cells, tmp_path, tmp_path, Ask()) == {"1": [left]}
        assert submit([running], tmp_path, tmp_path, Ask(), rerun=[running.run_id]) == {}
    assert submit([failed, blocked], tmp_path, tmp_path, Ask(), retry_failed=True) == {
        "2": [failed],
        "3": [blocked],
    }


def test_a_committed_run_is_submitted_only_where_its_weights_are_needed(
    fake: FakeSlurm, tmp_path: Path
) -> None:
    parent = make("ce")
    child, other = make("crt", parent), make("tau", parent)
    for cell in (parent, child):
        finish(tmp_path, cell)
    ledger.export(tmp_path)
    shutil.rmtree(tmp_path / "runs")
    assert submit([parent, child], tmp_path, tmp_path, Ask()) == {}
    assert submit([other], tmp_path, tmp_path, Ask()) == {"1": [parent], "2": [other]}
    assert fake.arrays["1"][0][0].needed == {parent.run_id}
    fake.live.clear()
    assert submit([child], tmp_path, tmp_path, Ask(), rerun=[child.run_id]) == {"3": [parent], "4": [child]}


def test_what_is_trained_once_more_is_asked_for_on_submission_and_harms_nothing(
    fake: FakeSlurm, tmp_path: Path
) -> None:
    cell = make("ce")
    end(tmp_path, cell)
    own, new = RunDir(tmp_path, cell.run_id), attempt(tmp_path, cell.run_id)
    before = own.record.read_bytes()
    with pytest.raises(BenchError, match="refused"):
        submit([cell], tmp_path, tmp_path, Ask(partition="refused"), rerun=[cell.run_id])
    assert not new.path.exists()  # nothing was asked for
    assert submit([cell], tmp_path, tmp_path, Ask(), rerun=[cell.run_id]) == {"1": [cell]}
    assert new.look()[0].status == "interrupted"
    assert Results(tmp_path).states([cell])[cell.run_id] == State(
        "done", "trained once more: interrupted, epochs done: 0; the next run continues"
    )
    new.append_epoch({"epoch": 0})
    fake.live.clear()  # the job was cancelled, and the same command goes on with what it left
    assert submit([cell], tmp_path, tmp_path, Ask(), rerun=[cell.run_id]) == {"2": [cell]}
    assert len(new.epochs()) == 1
    assert own.record.read_bytes() == before


def test_a_watcher_hears_of_a_new_training_and_not_of_the_old_run(fake: FakeSlurm, tmp_path: Path) -> None:
    cell, failing = make("ce"), make("ldam")
    for one in (cell, failing):
        end(tmp_path, one)
    submit([cell, failing], tmp_path, tmp_path, Ask(), rerun=[cell.run_id, failing.run_id])
    new = {one.run_id: attempt(tmp_path, one.run_id) for one in (cell, failing)}
    heard: list[tuple[str, str]] = []

    def over() -> None:
        for one, status in ((cell, "done"), (failing, "failed")):
            content = {"cell": one.model_dump(mode="json"), "status": status, "reason": None}
            new[one.run_id].append_epoch({"epoch": 0})
            new[one.run_id].write_record(content)
        settle(tmp_path, cell.run_id)
        fake.live.clear()

    fake.looks = iter([over])

    def listen(cell: Cell, event: str, detail: dict[str, Any]) -> None:
        heard.append((cell.method.name, event))

    ends = follow([cell, failing], tmp_path, tmp_path, listen=listen, seconds=0)
    assert ("ce", "done") in heard
    assert ("ldam", "failed") in heard
    assert {ends[one.run_id].status for one in (cell, failing)} == {"done", "failed"}
    assert RunDir(tmp_path, failing.run_id).is_done()


def test_a_watcher_hears_of_runs_that_others_make(fake: FakeSlurm, tmp_path: Path) -> None:
    cell, child, failed = make("ce"), make("crt", make("ldam")), make("ldam")
    run = RunDir(tmp_path, cell.run_id)
    run.append_epoch({"epoch": 0})  # by an earlier job
    submit([cell, child], tmp_path, tmp_path, Ask())

    def preempted() -> None:
        run.keep_epochs(1)
        raise BenchError("squeue: try again later")

    def over() -> None:
        end(tmp_path, cell)
        end(tmp_path, failed, "failed")
        fake.live.clear()

    fake.looks = iter(
        [lambda: run.append_epoch({"epoch": 1}), preempted, lambda: run.append_epoch({"epoch": 1}), over]
    )
    heard: list[tuple[str, str, Any]] = []

    def listen(cell: Cell, event: str, detail: dict[str, Any]) -> None:
        heard.append((cell.method.name, event, detail.get("epoch")))

    ends = follow([cell, child], tmp_path, tmp_path, listen=listen, seconds=0)
    assert [what for what in heard if what[0] == "ce"] == [
        ("ce", "planned", None),
        ("ce", "started", None),
        ("ce", "epoch", 1),
        ("ce", "epoch", 1),
        ("ce", "done", None),
    ]
    assert ("crt", "blocked", None) in heard
    assert {cell.method.name: ends[cell.run_id].status for cell in (cell, failed, child)} == {
        "ce": "done",
        "ldam": "failed",
        "crt": "blocked",
    }


def test_a_task_that_gets_nowhere_is_not_requeued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setattr(slurm, "run_grid", lambda *_, **__: {})
    now = [0.0]
    monkeypatch.setattr(slurm.time, "monotonic", lambda: now[0])
    cell = make("crt", make("ce"))
    task = Task((cell,), tmp_path, tmp_path, (), Ask(gpus=0, minutes=10), None)
    task()
    now[0] = 60.0
    again = task.checkpoint()
    assert again is not None  # preempted, having had no time
    assert again.function is task
    now[0] = 9 * 60.0
    assert task.checkpoint() is None
    assert "longer --time" in capsys.readouterr().out
    assert cell.parent is not None
    RunDir(tmp_path, cell.parent.run_id).append_epoch({"epoch": 0})
    assert task.checkpoint() is not None


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    assert exit_.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "reported"),
    [
        (("--partition", "gpu"), "--partition: not with --launcher local"),
        (("--gpus-per-run", 0), "--gpus-per-run: not with --launcher local"),
        (
            ("--launcher", "slurm", "--gpus-per-run", 2, "--runs-per-gpu", 2),
            "--runs-per-gpu 2: runs on 2 GPUs each do not share a GPU",
        ),
        (("--launcher", "slurm", "--jobs", 2), "--jobs: not with --launcher slurm"),
        (("--launcher", "slurm", "--sbatch", "array=0-3"), "--sbatch array: is the launcher's to set"),
        (("--launcher", "slurm", "--sbatch", "--time=9"), "--sbatch time: is the launcher's to set"),
    ],
)
def test_wrong_options_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[object, ...], reported: str
) -> None:
    (tmp_path / "small.yaml").write_text(RECIPE)
    folders = ("--results", tmp_path / "results", "--data", tmp_path / "data")
    assert reported in refused(capsys, "run", tmp_path / "small.yaml", *folders, *options)


@pytest.mark.parametrize(("recipe", "options"), [("log: tensorboard\n", ()), ("", ("--log", "tensorboard"))])
def test_loggers_need_a_command_that_waits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recipe: str, options: tuple[str, ...]
) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "small.yaml").write_text(RECIPE + recipe)
    folders = ("--results", tmp_path / "results", "--data", tmp_path / "data")
    submission = ("run", tmp_path / "small.yaml", *folders, "--launcher", "slurm", "--no-wait")
    message = refused(capsys, *submission, *options)
    assert "--no-wait: runs are logged (tensorboard) only while this command waits" in message
    assert "--log none" in message
    assert not (tmp_path / "results").exists()


def test_without_slurm_or_submitit_the_remedy_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(slurm.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BenchError, match=r'pip install -e "\.\[slurm\]"'):
        submit([make("ce")], tmp_path, tmp_path, Ask())
    monkeypatch.setattr(slurm.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(slurm.shutil, "which", lambda name: None)
    with pytest.raises(BenchError, match="no sbatch here"):
        submit([make("ce")], tmp_path, tmp_path, Ask())


def test_looking_at_the_queue_needs_no_torch() -> None:
    code = "import sys, bench.launch.queue; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
