"""Runs cells on this machine: as many at once as it has cores, or places on its GPUs.

The run directories are the only state: whatever kills a launcher, the next one looks there and goes on,
and two launchers share the work of one grid.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from bench.cell import Cell
from bench.launch.process import BAD, Child, Order, Worker, starter
from bench.records import RunDir, State, states

#: Is told what happens to a cell: "planned", "started", "epoch" (with the epoch's line), and in the end
#: its status (with its record if it is done, else with the `reason`).
Listen = Callable[[Cell, str, dict[str, Any]], None]


def run_grid(
    cells: Sequence[Cell],
    results: Path,
    data: Path,
    *,
    jobs: int | None = None,
    gpus: Sequence[str] = (),
    per_gpu: int = 1,
    force: bool = False,
    retry_failed: bool = False,
    methods: Sequence[Path] = (),
    listen: Listen = lambda cell, event, detail: None,
    worker: Worker | None = None,
) -> dict[str, State]:
    """Run the cells and their ancestors, parents first, and return how each stands in the end.

    What is done is kept, what was interrupted goes on from its checkpoint, and what another process runs
    is left to it. A run that fails leaves the others alone; only its children are blocked.

    Args:
        jobs: how many at once; default: one per core, or per place on the GPUs.
        gpus: GPUs as `CUDA_VISIBLE_DEVICES` names them; none: the runs are on the CPU.
        per_gpu: how many runs share a GPU.
        force: start `cells` (not their ancestors) over, whatever is there of them.
        retry_failed: start over what failed or cannot be read.
        methods: files of a user's own methods, which each run loads.
        worker: what trains a cell; default: `bench.train.run.run_cell`.

    Raises:
        KeyboardInterrupt: the runs are stopped, and the next call goes on with them.
    """
    if worker is None:
        from bench.train.run import run_cell

        worker = run_cell
    family = {member.run_id: member for cell in cells for member in cell.family()}
    forced = {cell.run_id for cell in cells} if force else set()
    again = frozenset({"missing", "interrupted"}) | (BAD if retry_failed else frozenset())
    orders = [
        Order(cell, results, data, again, run_id in forced, tuple(methods)) for run_id, cell in family.items()
    ]
    launcher = _Launcher(orders, places(jobs, gpus, per_gpu), worker, listen)
    try:
        launcher.run()
    finally:
        launcher.stop()
    return states(results, family.values())


def places(jobs: int | None, gpus: Sequence[str], per_gpu: int) -> list[str | None]:
    """Return where runs can be at once: the GPU of each place, or None for a core of the CPU."""
    on_gpus: list[str | None] = [gpu for _ in range(per_gpu) for gpu in gpus]
    return on_gpus[:jobs] or [None] * (jobs or _cores())


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # what a scheduler leaves us of the machine; not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Launcher:
    """Fills the places with runs until none is left that could start."""

    def __init__(
        self,
        orders: Iterable[Order],
        places: list[str | None],
        worker: Worker,
        listen: Listen,
    ) -> None:
        self.places, self.worker, self.listen = places, worker, listen
        self.children: list[Child] = []
        self.pending = {o.cell.run_id: o for o in orders if o.wants(o.run.look()[0].status)}
        for order in self.pending.values():
            listen(order.cell, "planned", {})

    def run(self) -> None:
        if not self.pending:
            return
        start = starter(self.worker)
        while self.pending or self.children:
            while self.places and (order := self._next()):
                self.children.append(start(replace(order, gpu=self.places.pop(0))))
                self.listen(order.cell, "started", {})
            if not self.children:
                break
            self._attend()
        for order in self.pending.values():
            self.listen(order.cell, "missing", {"reason": "its parent runs elsewhere"})

    def stop(self) -> None:
        """Stop what still runs."""
        stopped, self.children = self.children, []
        for child in stopped:
            child.process.terminate()
        for child in stopped:
            child.stop()
        for child in stopped:
            self._tell_end(child.order, None)

    def _next(self) -> Order | None:
        """Take out the first cell that can start, and on the way there those that no longer will."""
        for run_id, order in list(self.pending.items()):
            status, reason = self._outlook(order)
            if status != "waiting":
                del self.pending[run_id]
                if status == "ready":
                    return order
                self.listen(order.cell, status, {"reason": reason})
        return None

    def _outlook(self, order: Order) -> tuple[str, str | None]:
        parent = order.cell.parent
        if parent is not None:
            running = (child.order.cell.run_id for child in self.children)
            if parent.run_id in self.pending or parent.run_id in running:
                return "waiting", None
            elder = RunDir(order.results, parent.run_id).look()[0].status
            if elder == "running":  # elsewhere; it may end while others of ours still run
                return "waiting", None
            if elder != "done":
                return "blocked", f"its parent {parent.run_id} is {elder}"
        own = order.run.look()[0]
        if own.status == "running" or not order.wants(own.status):
            return own.status, own.reason  # another launcher was faster
        return "ready", None

    def _attend(self) -> None:
        """Wait for news of the runs, pass them on, and see off those that ended."""
        ends: list[Any] = [child.process.sentinel for child in self.children]
        ready = wait(ends + [child.news for child in self.children])
        for child in list(self.children):
            ended = child.process.sentinel in ready
            for line in child.hear():
                self.listen(child.order.cell, "epoch", line)
            if ended:
                reason = child.bury()
                self.children.remove(child)
                self.places.append(child.order.gpu)
                self._tell_end(child.order, reason)

    def _tell_end(self, order: Order, reason: str | None) -> None:
        state, record = order.run.look()
        detail = {"reason": reason or state.reason} if state.status != "done" else record
        self.listen(order.cell, state.status, detail or {})
