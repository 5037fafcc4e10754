"""Runs cells on this machine: as many at once as it has cores, or as its GPUs have room for.

The run directories are the only state. If a launcher is killed, the next one continues from them, and two
launchers share the work of one grid.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from bench.cell import Cell, families
from bench.cores import cores
from bench.launch.jobs import Job, jobs_for, record
from bench.launch.process import Child, Slot, Worker, starter
from bench.launch.rerun import begin
from bench.records import Results
from bench.rundir import State

#: Called with each event of a cell: "planned", "started", "epoch" (with the epoch's line), and at the end its
#: status (with its record if it is done, else with the `reason`).
Listen = Callable[[Cell, str, dict[str, Any]], None]


def run_grid(
    cells: Sequence[Cell],
    results: Path,
    data: Path,
    *,
    jobs: int | None = None,
    gpus: Sequence[str | int] = (),
    per_gpu: int | None = None,
    retry_failed: bool = False,
    methods: Sequence[Path] = (),
    needed: Collection[str] = (),
    rerun: Collection[str] = (),
    listen: Listen = lambda cell, event, detail: None,
    worker: Worker | None = None,
) -> dict[str, State]:
    """Run the cells and their ancestors, parents first, and return the state of each.

    Finished runs are kept, interrupted ones continue from their checkpoints, and those that another process
    runs are left to it. If a run fails, only its children are blocked.

    Args:
        jobs: how many at once; default: one per core, or as many as fit on the GPUs.
        gpus: GPUs as `CUDA_VISIBLE_DEVICES` names them; none: run on the CPU.
        per_gpu: how many runs share a GPU; default: found by a short trial.
        retry_failed: train again what failed or cannot be read.
        methods: files of a user's own methods, which each run loads.
        needed: ids of committed runs that are to be trained although they are done.
        rerun: ids of runs to train again, whatever their status, beside the old runs (see
            `bench.launch.rerun`).
        worker: trains a cell; default: `bench.train.run.steps`.

    Raises:
        KeyboardInterrupt: the runs are stopped, and the next call continues them.
    """
    if worker is None:
        from bench.train.run import steps

        worker = steps
    family = families(cells)
    begin(results, family.values(), rerun, retry_failed=retry_failed)
    todo = jobs_for(cells, results, data, methods=methods, needed=needed)
    wanted = [job for job in todo if job.wants(job.run.look()[0].status)]
    if min(len(wanted), jobs or len(wanted)) <= len(gpus):
        per_gpu = 1  # nothing to share, and no trial needed
    launcher = _Launcher(wanted, slots_for(jobs, gpus, per_gpu), jobs, worker, listen)
    try:
        launcher.run()
    finally:
        launcher.stop()
    return Results(results).states(family.values(), {job.cell.run_id for job in todo if job.beside})


def slots_for(jobs: int | None, gpus: Sequence[str | int], per_gpu: int | None = None) -> list[Slot]:
    """Return the slots for processes: one per GPU, or one per core."""
    if gpus:
        return [Slot(str(gpu), per_gpu, cores() // len(gpus)) for gpu in gpus]
    return [Slot()] * (jobs or cores())


class _Launcher:
    """Fills the slots with runs until none is left that could start.

    Attributes:
        suspects: runs whose process died, or ran out of memory, beside other runs. Each continues in a
            process of its own, which shows which of them was at fault.
        begun: runs of which an epoch has ended here.
        moved: runs that a GPU could not begin, with its slot: it is left out, unless the run fails on
            another GPU as well, which shows that the run is at fault.
    """

    def __init__(
        self, jobs: Iterable[Job], slots: list[Slot], at_once: int | None, worker: Worker, listen: Listen
    ) -> None:
        self.slots, self.at_once, self.worker, self.listen = slots, at_once, worker, listen
        self.children: list[Child] = []
        self.suspects: set[str] = set()
        self.begun: set[str] = set()
        self.moved: dict[str, Slot] = {}
        self.pending = {job.cell.run_id: job for job in jobs}
        for job in self.pending.values():
            listen(job.cell, "planned", {})

    def run(self) -> None:
        if not self.pending:
            return
        start = starter(self.worker)
        while True:
            self._start_jobs(start)
            if not self.children:
                break
            self._wait()
        for job in self.pending.values():
            self.listen(job.cell, "missing", {"reason": "its parent runs elsewhere"})

    def stop(self) -> None:
        """Stop what still runs."""
        stopped, self.children = self.children, []
        for child in stopped:
            child.process.kill()
        for child in stopped:
            child.stop()
        for child in stopped:
            for job in child.jobs.values():
                self._report_end(job, None)

    def _running(self) -> set[str]:
        return {run_id for child in self.children for run_id in child.jobs}

    def _start_jobs(self, start: Callable[[Slot], Child]) -> None:
        """Start what can start: first in free slots, then beside other runs."""
        while self.at_once is None or len(self._running()) < self.at_once:
            child, alone = next((child for child in self.children if child.has_room()), None), False
            if not self.slots and child is None:
                break
            job = self._next(with_suspects=bool(self.slots))
            if job is None:
                break
            if self.slots:
                slot = self.slots.pop(0)
                alone = slot.room == 1 or job.cell.run_id in self.suspects
                child = start(replace(slot, room=1) if alone else slot)
                child.slot = slot
                self.children.append(child)
            assert child is not None
            child.give(job)
            if alone:
                child.close()
            self.listen(job.cell, "started", {})
        if not self._running() or not self.pending.keys() - self.suspects:
            for child in self.children:
                child.close()

    def _next(self, with_suspects: bool) -> Job | None:
        """Remove and return the first job that can start; also remove those that no longer can."""
        for run_id, job in list(self.pending.items()):
            if run_id in self.suspects and not with_suspects:
                continue
            status, reason = self._outlook(job)
            if status != "waiting":
                del self.pending[run_id]
                if status == "ready":
                    return job
                if status == "done":  # by another launcher
                    self._report_end(job, None)
                else:
                    self.listen(job.cell, status, {"reason": reason})
        return None

    def _outlook(self, job: Job) -> tuple[str, str | None]:
        """Return "ready", "waiting" or the status that the job ends with, and the reason."""
        for parent in job.cell.parents:
            if parent.run_id in self.pending or parent.run_id in self._running():
                return "waiting", None
            status = job.parent_state(parent).status
            if status == "running":  # elsewhere; it may end while others of ours still run
                return "waiting", None
            if status != "done":
                return "blocked", f"its parent {parent.run_id} is {status}"
        own = job.run.look()[0]
        if own.status == "running" or not job.wants(own.status):
            return own.status, own.reason  # another launcher was faster
        return "ready", None

    def _wait(self) -> None:
        """Wait for messages of the runs, pass them on, and handle those that ended."""
        ends: list[Any] = [child.process.sentinel for child in self.children]
        ready = wait(ends + [child.pipe for child in self.children])
        for child in list(self.children):
            dead = child.process.sentinel in ready
            for run_id, event, detail in child.receive():
                job = child.jobs[run_id]
                if event == "epoch":
                    self.begun.add(run_id)
                    self.listen(job.cell, "epoch", detail)
                    continue
                del child.jobs[run_id]
                if event == "crowded":
                    child.room = min(child.room, max(1, len(child.jobs)))
                    self._suspect(job, "it ran out of memory beside others; it continues alone")
                    continue
                self._end(child, job, detail)
            if dead:
                self._reap(child)

    def _reap(self, child: Child) -> None:
        end, left = child.reap(), list(child.jobs.values())
        self.children.remove(child)
        for job in left:
            if len(left) > 1:
                self._suspect(job, f"{end['reason']} beside others; it continues alone")
            else:
                self._end(child, job, end)
        if child.slot not in self.moved.values():
            self.slots.append(child.slot)

    def _end(self, child: Child, job: Job, end: dict[str, Any]) -> None:
        """Handle a run that ended; `end` is the record it could not write, empty if it has one."""
        if end:
            record(job, **end)
        run_id, content = job.cell.run_id, job.run.look()[1] or {}
        unfit = content.get("status") == "failed" and not content.get("own_fault", not end)
        if unfit and run_id in self.moved:
            slot = self.moved.pop(run_id)
            if slot not in [child.slot for child in self.children]:
                self.slots.append(slot)
        elif unfit and run_id not in self.begun and self._has_another(child.slot):
            self.moved[run_id] = child.slot
            child.close()
            job.run.record.unlink()
            reason = f"GPU {child.slot.gpu} is left out, as it could not begin a run: {content['reason']}"
            self._again(job, f"{reason}; it goes on elsewhere")
            return
        self._report_end(job, end.get("reason"))

    def _has_another(self, slot: Slot) -> bool:
        """Whether there is another GPU than that of a slot, and those that are left out."""
        others = {one.gpu for one in (*self.slots, *(child.slot for child in self.children))}
        return slot.gpu is not None and bool(others - {slot.gpu, *(out.gpu for out in self.moved.values())})

    def _suspect(self, job: Job, reason: str) -> None:
        """Let a run continue from its checkpoint in a process of its own."""
        self.suspects.add(job.cell.run_id)
        self._again(job, reason)

    def _again(self, job: Job, reason: str) -> None:
        """Let a run start again before others, from its checkpoint if it has one."""
        self.pending = {job.cell.run_id: job, **self.pending}
        self.listen(job.cell, "interrupted", {"reason": reason})
        self.listen(job.cell, "planned", {})

    def _report_end(self, job: Job, reason: str | None) -> None:
        job.settle()
        state, record = job.run.look()
        detail = {"reason": job.full_reason(reason or state.reason)} if state.status != "done" else record
        self.listen(job.cell, state.status, detail or {})
