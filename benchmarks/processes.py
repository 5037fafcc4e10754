"""The processes of a launcher, found in /proc and killed."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path


def parents() -> dict[int, int]:
    """Return the parents of all processes that have not ended."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                _, _, rest = (folder / "stat").read_text().rpartition(")")
            except OSError:
                continue  # it has just ended
            state, parent = rest.split()[:2]
            if state not in "ZX":
                found[int(folder.name)] = int(parent)
    return found


def alive(process: int) -> bool:
    """Whether a process has not ended."""
    return process in parents()


def children(process: int) -> list[int]:
    """Return the processes that a process started."""
    return [child for child, parent in parents().items() if parent == process]


def family(process: int) -> list[int]:
    """Return a process and all below it."""
    return [process, *(member for child in children(process) for member in family(child))]


def server(launcher: int) -> int | None:
    """Return the server that starts a launcher's runs."""
    for child in children(launcher):
        try:
            if b"multiprocessing.forkserver" in Path(f"/proc/{child}/cmdline").read_bytes():
                return child
        except OSError:
            continue
    return None


def targets(kind: str, launcher: int, rng: random.Random) -> list[int]:
    """Return the processes to kill; none if there is no such process."""
    source = server(launcher)
    runs = children(source) if source else []
    match kind:
        case "run":
            return [rng.choice(runs)] if runs else []
        case "launcher":
            return [launcher]
        case "server":
            return [source] if source else []
        case _:
            return [launcher, *runs] if runs else []


def kill(processes: list[int]) -> None:
    """Kill processes with SIGKILL."""
    for process in processes:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Wait until a condition holds, and return whether it did in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
