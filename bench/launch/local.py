"""Runs cells on this machine: as many at once as it has cores, or as its GPUs have room for.

The run directories are the only state: whatever kills a launcher, the next one looks there and goes on,
and two launchers share the work of one grid.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from bench.cell import Cell, families
from bench.cores import cores
from bench.launch.anew import begin
from bench.launch.orders import Order, orders_for, record
from bench.launch.process import Child, Place, Worker, starter
from bench.records import State, states

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
    per_gpu: int | None = None,
    retry_failed: bool = False,
    methods: Sequence[Path] = (),
    anew: Collection[str] = (),
    over: Collection[str] = (),
    listen: Listen = lambda cell, event, detail: None,
    worker: Worker | None = None,
) -> dict[str, State]:
    """Run the cells and their ancestors, parents first, and return how each stands in the end.

    What is done is kept, what was interrupted goes on from its checkpoint, and what another process runs
    is left to it. A run that fails leaves the others alone; only its children are blocked.

    Args:
        jobs: how many at once; default: one per core, or what the GPUs have room for.
        gpus: GPUs as `CUDA_VISIBLE_DEVICES` names them; none: the runs are on the CPU.
        per_gpu: how many runs share a GPU; default: as many as a short trial finds best.
        retry_failed: train once more what failed or cannot be read.
        methods: files of a user's own methods, which each run loads.
        anew: ids of committed runs that are to be trained although they are done.
        over: ids of runs that are to be trained once more however they stand. They are trained beside the
            old ones, as is what failed, and take their places when they are done (see `bench.launch.anew`).
        worker: what trains a cell; default: `bench.train.run.steps`.

    Raises:
        KeyboardInterrupt: the runs are stopped, and the next call goes on with them.
    """
    if worker is None:
        from bench.train.run import steps

        worker = steps
    family = families(cells)
    begin(results, family.values(), over, retry_failed=retry_failed)
    orders = orders_for(cells, results, data, methods=methods, anew=anew)
    if min(len(orders), jobs or len(orders)) <= len(gpus):
        per_gpu = 1  # nothing to share, and no trial needed
    launcher = _Launcher(orders, places(jobs, gpus, per_gpu), jobs, worker, listen)
    try:
        launcher.run()
    finally:
        launcher.stop()
    return states(results, family.values(), {order.cell.run_id for order in orders if order.beside})


def places(jobs: int | None, gpus: Sequence[str], per_gpu: int | None = None) -> list[Place]:
    """Return where processes can be at once: one on each GPU, or as many as there are cores."""
    if gpus:
        return [Place(gpu, per_gpu, cores() // len(gpus)) for gpu in gpus]
    return [Place()] * (jobs or cores())


class _Launcher:
    """Fills the places with runs until none is left that could start.

    Attributes:
        suspects: runs whose process died, or ran out of memory, while it had others too; which of them was
            to blame shows when each goes on in a process of its own.
    """

    def __init__(
        self,
        orders: Iterable[Order],
        places: list[Place],
        jobs: int | None,
        worker: Worker,
        listen: Listen,
    ) -> None:
        self.places, self.jobs, self.worker, self.listen = places, jobs, worker, listen
        self.children: list[Child] = []
        self.suspects: set[str] = set()
        self.pending = {o.cell.run_id: o for o in orders if o.wants(o.run.look()[0].status)}
        for order in self.pending.values():
            listen(order.cell, "planned", {})

    def run(self) -> None:
        if not self.pending:
            return
        start = starter(self.worker)
        while True:
            self._hand_out(start)
            if not self.children:
                break
            self._attend()
        for order in self.pending.values():
            self.listen(order.cell, "missing", {"reason": "its parent runs elsewhere"})

    def stop(self) -> None:
        """Stop what still runs."""
        stopped, self.children = self.children, []
        for child in stopped:
            child.process.kill()
        for child in stopped:
            child.stop()
        for child in stopped:
            for order in child.orders.values():
                self._tell_end(order, None)

    def _running(self) -> set[str]:
        return {run_id for child in self.children for run_id in child.orders}

    def _hand_out(self, start: Callable[[Place], Child]) -> None:
        """Start what can start: first in places that are free, then beside other runs."""
        while self.jobs is None or len(self._running()) < self.jobs:
            child, alone = next((child for child in self.children if child.takes_more()), None), False
            if not self.places and child is None:
                break
            order = self._next(with_suspects=bool(self.places))
            if order is None:
                break
            if self.places:
                place = self.places.pop(0)
                alone = place.room == 1 or order.cell.run_id in self.suspects
                child = start(replace(place, room=1) if alone else place)
                child.place = place
                self.children.append(child)
            assert child is not None
            child.give(order)
            if alone:
                child.close()
            self.listen(order.cell, "started", {})
        if not self._running() or not self.pending.keys() - self.suspects:
            for child in self.children:
                child.close()

    def _next(self, with_suspects: bool) -> Order | None:
        """Take out the first cell that can start, and on the way there those that no longer will."""
        for run_id, order in list(self.pending.items()):
            if run_id in self.suspects and not with_suspects:
                continue
            status, reason = self._outlook(order)
            if status != "waiting":
                del self.pending[run_id]
                if status == "ready":
                    return order
                if status == "done":  # by another launcher
                    self._tell_end(order, None)
                else:
                    self.listen(order.cell, status, {"reason": reason})
        return None

    def _outlook(self, order: Order) -> tuple[str, str | None]:
        for parent in order.cell.parents:
            if parent.run_id in self.pending or parent.run_id in self._running():
                return "waiting", None
            elder = order.elder(parent).status
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
        ready = wait(ends + [child.pipe for child in self.children])
        for child in list(self.children):
            dead = child.process.sentinel in ready
            for run_id, event, detail in child.hear():
                order = child.orders[run_id]
                if event == "epoch":
                    self.listen(order.cell, "epoch", detail)
                    continue
                del child.orders[run_id]
                if event == "crowded":
                    child.room = min(child.room, max(1, len(child.orders)))
                    self._suspect(order, "it ran out of memory beside others; it goes on alone")
                    continue
                if detail:
                    record(order, **detail)
                self._tell_end(order, detail.get("reason"))
            if dead:
                self._bury(child)

    def _bury(self, child: Child) -> None:
        end, left = child.bury(), list(child.orders.values())
        self.children.remove(child)
        self.places.append(child.place)
        for order in left:
            if len(left) > 1:
                self._suspect(order, f"{end['reason']} beside others; it goes on alone")
            else:
                record(order, **end)
                self._tell_end(order, end["reason"])

    def _suspect(self, order: Order, reason: str) -> None:
        """Let a run go on from its checkpoint in a process of its own."""
        self.suspects.add(order.cell.run_id)
        self.pending[order.cell.run_id] = order
        self.listen(order.cell, "interrupted", {"reason": reason})
        self.listen(order.cell, "planned", {})

    def _tell_end(self, order: Order, reason: str | None) -> None:
        order.settle()
        state, record = order.run.look()
        detail = {"reason": order.told(reason or state.reason)} if state.status != "done" else record
        self.listen(order.cell, state.status, detail or {})
