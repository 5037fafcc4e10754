"""Runs that use several GPUs each: torchrun starts the command once per GPU, and runs follow each other.

These processes, the ranks, go through the same cells with the same steps (see `bench.ranks`). The first
decides what is run, writes and reports; the others read parents and checkpoints where it wrote them. They
communicate through torchrun's store, which works even if a GPU does not.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from bench.cell import Cell, families
from bench.cores import cores, read_with
from bench.errors import BenchError
from bench.launch.jobs import Job, jobs_for, prepare
from bench.launch.local import Listen
from bench.launch.rerun import begin
from bench.records import Results
from bench.registry import load_files
from bench.rundir import Busy, RunDir, State

#: Seconds that ranks have to fail as another did, before all are stopped.
GRACE = 3.0
#: Seconds that the first rank waits for the others; if one has died, torchrun stops them all.
PATIENCE = 60.0


def under_torchrun() -> bool:
    """Whether this process is one of several that torchrun started."""
    return "LOCAL_RANK" in os.environ and int(os.environ.get("WORLD_SIZE", 1)) > 1


def is_first() -> bool:
    """Whether this process is the one that writes and reports."""
    return not under_torchrun() or int(os.environ["RANK"]) == 0


def run_together(
    cells: Sequence[Cell],
    results: Path,
    data: Path,
    *,
    gpus: Sequence[str] = (),
    retry_failed: bool = False,
    methods: Sequence[Path] = (),
    needed: Collection[str] = (),
    rerun: Collection[str] = (),
    listen: Listen = lambda cell, event, detail: None,
    checkpoint_seconds: float = 30.0,
) -> dict[str, State]:
    """Run the cells and their ancestors one after another, parents first, each on all ranks.

    Like `run_grid`; on the first rank it returns the state of each cell. If a run fails in the same way on
    all ranks, the next run starts; if it fails on some of them, the command ends.

    Args:
        gpus: one for each process of this machine; none: run on the CPU.
    """
    from torch.distributed.rendezvous import rendezvous

    from bench import ranks

    load_files(methods)
    device = _set_device(gpus)
    store, rank, world = next(rendezvous("env://", timeout=ranks.PATIENCE))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing else reaches a rank that waits for a dead one
    if rank:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    channel, family = _Channel(store, rank, world), families(cells)

    def begin_reruns() -> bool:
        begin(results, family.values(), rerun, retry_failed=retry_failed)
        return True

    channel.decide(begin_reruns)  # before the others look
    jobs = jobs_for(cells, results, data, methods=methods, needed=needed)
    if rank == 0:
        for job in jobs:
            if job.wants(job.run.look()[0].status):
                listen(job.cell, "planned", {})
    with ranks.join(store, rank, world, device), tempfile.TemporaryDirectory() as scratch:
        for number, job in enumerate(jobs):
            _run(channel, number, job, device, Path(scratch), listen, checkpoint_seconds)
            if rank == 0:
                job.settle()  # its lock is released
    asked = {job.cell.run_id for job in jobs if job.beside}
    return Results(results).states(family.values(), asked) if rank == 0 else {}


def _set_device(gpus: Sequence[str]) -> str:
    """Set this process's GPU, if there are any, and return the device."""
    if not gpus:
        return "cpu"
    import torch

    local_rank, here = int(os.environ["LOCAL_RANK"]), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if here > len(gpus):
        raise BenchError(f"torchrun: --nproc-per-node {here}, for {len(gpus)} GPUs; ask for as many")
    read_with(cores() // here)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    torch.cuda.set_device(visible.split(",").index(gpus[local_rank]) if visible else int(gpus[local_rank]))
    return "cuda"


def _run(
    channel: _Channel,
    number: int,
    job: Job,
    device: str,
    scratch: Path,
    listen: Listen,
    checkpoint_seconds: float,
) -> None:
    """Run one cell, if the first rank finds that it can and should be run."""
    from bench.train.run import Request, recorded_steps

    cell, first = job.cell, channel.rank == 0
    run = job.run if first else RunDir(scratch, cell.run_id)  # nobody reads what the others write
    run.checkpoint = job.run.checkpoint
    with ExitStack() as held:
        if not channel.decide(lambda: _begin(job, held, listen)):
            return

        def fail(ends: dict[int, dict[str, Any]]) -> None:
            content = {"cell": cell.model_dump(mode="json"), **_cause(ends, channel.world)}
            run.write_record(content)
            listen(cell, "failed", content)

        if first:
            run.write_cell(cell)
            listen(cell, "started", {})
            threading.Thread(target=_watch, args=(channel, number, fail), daemon=True).start()

        def report(line: dict[str, Any]) -> None:
            if first:
                listen(cell, "epoch", line)

        seconds = checkpoint_seconds if first else float("inf")
        request = Request(cell, run, job.folder, job.data, device, report, seconds)
        record = _last(recorded_steps(request))
        channel.send_end(number, record)
        alike = False
        if first:
            ends = channel.ends(number)
            alike = len({(len(ends), end["status"], end["reason"]) for end in ends.values()}) == 1
            alike = alike and len(ends) == channel.world
            if alike:
                run.write_record(record)
                listen(cell, record["status"], record)
            elif _known(ends):
                fail(ends)
        if not channel.decide(lambda: alike):
            _leave()


def _begin(job: Job, held: ExitStack, listen: Listen) -> bool:
    """Lock a run; if it cannot or need not be run, report why."""
    cell = job.cell
    if not job.wants(job.run.look()[0].status):
        return False
    for parent in cell.parents:
        found = job.parent_state(parent).status
        if found != "done":
            status = "missing" if found == "running" else "blocked"
            listen(cell, status, {"reason": f"its parent {parent.run_id} is {found}"})
            return False
    with suppress(Busy):
        if prepare(job):
            held.enter_context(job.run.lock())
            if not job.run.is_done():
                return True
    listen(cell, "running", {"reason": "by another launcher, which was faster"})
    return False


class _Channel:
    """Messages between ranks: the first's decisions, and how a run ended on each."""

    def __init__(self, store: Any, rank: int, world: int) -> None:
        self.store, self.rank, self.world, self.decided = store, rank, world, 0

    def decide(self, make: Callable[[], bool]) -> bool:
        """Return on all ranks what `make` returns on the first."""
        self.decided += 1
        key = f"decision {self.decided}"
        if self.rank == 0:
            made = make()
            self.store.set(key, json.dumps(made))
            return made
        while not self.store.check([key]):
            time.sleep(0.02)
        return bool(json.loads(self.store.get(key)))

    def send_end(self, run: int, record: dict[str, Any]) -> None:
        """Send how a run ended on this rank."""
        end = {key: record[key] for key in ("status", "reason", "traceback")}
        end["position"] = self.store.add(f"ended {run}", 1)  # the first to fail has the cause
        self.store.set(f"end {run} {self.rank}", json.dumps(end))

    def ends(self, run: int) -> dict[int, dict[str, Any]]:
        """Return how a run ended on each rank, except those that send none soon after the first failure."""
        waited = 0.0
        while True:
            ended = [rank for rank in range(self.world) if self.store.check([f"end {run} {rank}"])]
            ends = {rank: json.loads(self.store.get(f"end {run} {rank}")) for rank in ended}
            if len(ends) == self.world or waited > (GRACE if _known(ends) else PATIENCE):
                return ends
            time.sleep(0.1)
            if ends:
                waited += 0.1


def _known(ends: dict[int, dict[str, Any]]) -> list[int]:
    """Return the ranks that failed by themselves, in the order of failing."""
    own = [r for r, end in ends.items() if end["status"] == "failed" and "LostRankError" not in end["reason"]]
    return sorted(own, key=lambda rank: ends[rank]["position"])


def _cause(ends: dict[int, dict[str, Any]], world: int) -> dict[str, Any]:
    rank = _known(ends)[0]
    reason = f"rank {rank} of {world}: {ends[rank]['reason']}"
    return {"status": "failed", "reason": reason, "traceback": ends[rank]["traceback"]}


def _watch(channel: _Channel, number: int, fail: Callable[[dict[int, dict[str, Any]]], None]) -> None:
    """On the first rank, notice others that failed alone, for which it would wait in vain."""
    ends = channel.ends(number)
    if 0 not in ends and _known(ends):
        fail(ends)
        _leave()


def _leave() -> None:
    """End this process, and so, through torchrun, all ranks: some may wait for others for ever."""
    print("error: the ranks came apart; the same command continues with what is left", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _last(steps: Any) -> dict[str, Any]:
    """Make all steps, and return the generator's value."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
