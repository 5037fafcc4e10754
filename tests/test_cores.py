"""How many processes read images for a run, by who else is on the machine."""

from __future__ import annotations

import os

import pytest

from bench.cores import MOST_WORKERS, WORKERS, cores, read_with, readers
from bench.launch import local


@pytest.fixture(autouse=True)
def forty_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(40)), raising=False)
    monkeypatch.setattr(os, "environ", {})


def test_a_run_on_the_cpu_reads_for_itself_and_one_on_a_gpu_has_readers() -> None:
    assert (cores(), readers(on_gpu=False), readers(on_gpu=True)) == (40, 0, MOST_WORKERS)


def test_a_task_of_slurm_has_the_cores_it_asked_for_though_it_sees_all() -> None:
    os.environ["SLURM_CPUS_PER_TASK"] = "6"
    assert (cores(), readers(on_gpu=True)) == (6, 6)


@pytest.mark.parametrize(("gpus", "each"), [(1, MOST_WORKERS), (4, 10), (64, 1)])
def test_the_gpus_of_a_machine_share_its_cores(gpus: int, each: int) -> None:
    slots = local.slots_for(None, [str(gpu) for gpu in range(gpus)])
    assert len(slots) == gpus
    read_with(slots[0].cores)
    assert readers(on_gpu=True) == each


def test_a_choice_of_the_user_stands() -> None:
    os.environ[WORKERS] = "3"
    read_with(8)
    assert (readers(on_gpu=True), readers(on_gpu=False)) == (3, 3)
