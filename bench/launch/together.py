"""Runs over several GPUs each: torchrun starts the command once for every GPU, and runs follow each other.

All these processes, the ranks, go through the same cells with the same steps (see `bench.ranks`). The first
decides what is run, writes and tells; the others read parents and checkpoints where it wrote them. They talk
through torchrun's store, which works while a GPU does not.
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
from bench.launch.anew import begin
from bench.launch.local import Listen
from bench.launch.orders import Order, orders_for, prepare
from bench.records import Busy, RunDir, State, states
from bench.registry import load_files

#: Seconds that ranks are given to fail as another did, before all are ended.
GRACE = 3.0
#: Seconds that the first rank waits for a word of the others, whom torchrun ends with it if one has died.
PATIENCE = 60.0


def under_torchrun() -> bool:
    """Tell whether this process is one of several that torchrun started."""
    return "LOCAL_RANK" in os.environ and int(os.environ.get("WORLD_SIZE", 1)) > 1


def is_first() -> bool:
    """Tell whether this process is the one that writes and tells."""
    return not under_torchrun() or int(os.environ["RANK"]) == 0


def run_together(
    cells: Sequence[Cell],
    results: Path,
    data: Path,
    *,
    gpus: Sequence[str] = (),
    retry_failed: bool = False,
    methods: Sequence[Path] = (),
    anew: Collection[str] = (),
    over: Collection[str] = (),
    listen: Listen = lambda cell, event, detail: None,
    checkpoint_seconds: float = 30.0,
) -> dict[str, State]:
    """Run the cells and their ancestors one after the other, parents first, each over all ranks.

    It does as `run_grid`, and returns how each cell stands, on the first rank. A run that fails in the same
    way on all ranks leaves the others alone; one that fails on some of them ends the command.

    Args:
        gpus: one for each process of this machine; none: the runs are on the CPU.
    """
    from torch.distributed.rendezvous import rendezvous

    from bench import ranks

    load_files(methods)
    device = _settle_on(gpus)
    store, rank, world = next(rendezvous("env://", timeout=ranks.PATIENCE))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a rank that waits for a dead one hears of nothing else
    if rank:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    talk, family = _Talk(store, rank, world), families(cells)

    def ask() -> bool:
        begin(results, family.values(), over, retry_failed=retry_failed)
        return True

    talk.decide(ask)  # before the others look
    orders = orders_for(cells, results, data, methods=methods, anew=anew)
    if rank == 0:
        for order in orders:
            if order.wants(order.run.look()[0].status):
                listen(order.cell, "planned", {})
    with ranks.join(store, rank, world, device), tempfile.TemporaryDirectory() as scratch:
        for number, order in enumerate(orders):
            _run(talk, number, order, device, Path(scratch), listen, checkpoint_seconds)
            if rank == 0:
                order.settle()  # now that nothing holds it
    asked = {order.cell.run_id for order in orders if order.beside}
    return states(results, family.values(), asked) if rank == 0 else {}


def _settle_on(gpus: Sequence[str]) -> str:
    """Choose this process's GPU, if there are any, and return the device."""
    if not gpus:
        return "cpu"
    import torch

    place, here = int(os.environ["LOCAL_RANK"]), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if here > len(gpus):
        raise BenchError(f"torchrun: --nproc-per-node {here}, for {len(gpus)} GPUs; ask for as many")
    read_with(cores() // here)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    torch.cuda.set_device(visible.split(",").index(gpus[place]) if visible else int(gpus[place]))
    return "cuda"


def _run(
    talk: _Talk,
    number: int,
    order: Order,
    device: str,
    scratch: Path,
    listen: Listen,
    checkpoint_seconds: float,
) -> None:
    """Run one cell, if the first rank finds that it can and shall be run."""
    from bench.train.run import recorded_steps

    cell, first = order.cell, talk.rank == 0
    run = order.run if first else RunDir(scratch, cell.run_id)  # the others' words are for nobody
    run.checkpoint = order.run.checkpoint
    with ExitStack() as held:
        if not talk.decide(lambda: _begin(order, held, listen)):
            return

        def fail(ends: dict[int, dict[str, Any]]) -> None:
            content = {"cell": cell.model_dump(mode="json"), **_cause(ends, talk.world)}
            run.write_record(content)
            listen(cell, "failed", content)

        if first:
            run.write_cell(cell)
            listen(cell, "started", {})
            threading.Thread(target=_watch, args=(talk, number, fail), daemon=True).start()

        def report(line: dict[str, Any]) -> None:
            if first:
                listen(cell, "epoch", line)

        seconds = checkpoint_seconds if first else float("inf")
        record = _last(recorded_steps(cell, run, order.folder, order.data, device, report, seconds))
        talk.tell_end(number, record)
        alike = False
        if first:
            ends = talk.ends(number)
            alike = len({(len(ends), end["status"], end["reason"]) for end in ends.values()}) == 1
            alike = alike and len(ends) == talk.world
            if alike:
                run.write_record(record)
                listen(cell, record["status"], record)
            elif _known(ends):
                fail(ends)
        if not talk.decide(lambda: alike):
            _leave()


def _begin(order: Order, held: ExitStack, listen: Listen) -> bool:
    """Take hold of a run; if it cannot or need not be run, say why."""
    cell = order.cell
    if not order.wants(order.run.look()[0].status):
        return False
    for parent in cell.parents:
        elder = order.elder(parent).status
        if elder != "done":
            status = "missing" if elder == "running" else "blocked"
            listen(cell, status, {"reason": f"its parent {parent.run_id} is {elder}"})
            return False
    with suppress(Busy):
        if prepare(order):
            held.enter_context(order.run.lock())
            if not order.run.is_done():
                return True
    listen(cell, "running", {"reason": "by another launcher, which was faster"})
    return False


class _Talk:
    """What the ranks tell each other: the first's decisions, and how a run ended on each."""

    def __init__(self, store: Any, rank: int, world: int) -> None:
        self.store, self.rank, self.world, self.decided = store, rank, world, 0

    def decide(self, make: Callable[[], bool]) -> bool:
        """Return what `make` gives on the first rank, to all."""
        self.decided += 1
        key = f"decision {self.decided}"
        if self.rank == 0:
            made = make()
            self.store.set(key, json.dumps(made))
            return made
        while not self.store.check([key]):
            time.sleep(0.02)
        return bool(json.loads(self.store.get(key)))

    def tell_end(self, run: int, record: dict[str, Any]) -> None:
        """Tell how a run ended here."""
        end = {key: record[key] for key in ("status", "reason", "traceback")}
        end["place"] = self.store.add(f"ended {run}", 1)  # who was first to fail has the cause
        self.store.set(f"end {run} {self.rank}", json.dumps(end))

    def ends(self, run: int) -> dict[int, dict[str, Any]]:
        """Wait for all ranks to tell how a run ended, or not much longer than the first that failed."""
        waited = 0.0
        while True:
            told = [rank for rank in range(self.world) if self.store.check([f"end {run} {rank}"])]
            ends = {rank: json.loads(self.store.get(f"end {run} {rank}")) for rank in told}
            if len(ends) == self.world or waited > (GRACE if _known(ends) else PATIENCE):
                return ends
            time.sleep(0.1)
            if ends:
                waited += 0.1


def _known(ends: dict[int, dict[str, Any]]) -> list[int]:
    """Return the ranks that failed by themselves, in the order in which they did."""
    own = [r for r, end in ends.items() if end["status"] == "failed" and "LostRankError" not in end["reason"]]
    return sorted(own, key=lambda rank: ends[rank]["place"])


def _cause(ends: dict[int, dict[str, Any]], world: int) -> dict[str, Any]:
    rank = _known(ends)[0]
    reason = f"rank {rank} of {world}: {ends[rank]['reason']}"
    return {"status": "failed", "reason": reason, "traceback": ends[rank]["traceback"]}


def _watch(talk: _Talk, number: int, fail: Callable[[dict[int, dict[str, Any]]], None]) -> None:
    """Look out for ranks that failed alone, while the first one, this, waits for them in vain."""
    ends = talk.ends(number)
    if 0 not in ends and _known(ends):
        fail(ends)
        _leave()


def _leave() -> None:
    """End this process, and with it, by torchrun, all ranks: some of them may wait for others for ever."""
    print("error: the ranks came apart; the same command goes on with what is left", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _last(steps: Any) -> dict[str, Any]:
    """Make all steps, and return what they end with."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
