"""Kills processes of a grid at random, and checks that its records are the same as without kills.

A small grid on digits is run once undisturbed. Then `run` is started on another results folder, sometimes
twice at once as from two terminals, and at random times a run's process, the launcher, both, or the server
that starts processes is killed; all files are read, and `run` is started again. A complete grid is compared,
and the next one started. After the last kill one more `run` must complete the grid.

It fails if a file is half-written, a run is in two processes, a process outlives its launcher, or a record,
which has the hashes of weights and logits, differs from the undisturbed one in more than timing, environment
and checksum. Checkpoints are written after every epoch here.

    python benchmarks/soak.py
    python benchmarks/soak.py --kills 5 --minutes 5 --seed 1
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from processes import alive, family, kill, targets, within

from bench.cell import Cell
from bench.errors import BenchError
from bench.files import sha256
from bench.records import Results
from bench.rundir import RunDir, equal

HERE = Path(__file__).parent
RECIPE = """\
grid: {{dataset: digits, imbalance_factor: 20, backbone: resnet8_cifar, seed: {seeds}}}
protocol: {{epochs: {epochs}, batch_size: 64, schedule: {{warmup_epochs: 1}}}}
methods:
  ce: {{}}
  ldam_drw: {{}}
  crt: {{from: ce}}
  shifted: {{method: posthoc_logit_adjustment, from: ce}}
"""
KINDS = {"run": 4, "launcher": 3, "both": 3, "server": 1}  # what is killed, and the weights
TWICE = 0.3  # the share of starts of two `run` commands at once
TRAINING = 0.7  # the share of kills that wait until a run is at work
GONE = 30  # seconds in which the processes of a dead launcher must end


# -- in the processes that are killed --------------------------------------------------------------------
def command(arguments: list[str]) -> None:
    """Do the same as the command line, with a checkpoint after every epoch."""
    from bench.cli import main
    from bench.train import run

    run.steps = watched
    main(arguments)


def watched(cell: Cell, results: Path, *more: Any) -> Iterator[object]:
    """Do the same as `bench.train.run.steps`, and leave a mark if another process has the same run."""
    from bench.train.run import steps

    mark = results / "at_work" / cell.run_id
    for number, step in enumerate(steps(cell, results, *more, checkpoint_seconds=0)):
        if number == 0:  # now it has the lock
            mark.parent.mkdir(exist_ok=True)
            if mark.exists() and mark.read_text().isdigit() and alive(int(mark.read_text())):
                (results / "twice").write_text(cell.run_id)
            mark.write_text(str(os.getpid()))
        yield step
    mark.unlink(missing_ok=True)


# -- the soak --------------------------------------------------------------------------------------------
class Soak:
    """A grid that is disturbed.

    Attributes:
        faults: what went wrong.
        counts: how often each event happened.
    """

    def __init__(self, root: Path, epochs: int, seeds: int, seed: int) -> None:
        self.root, self.rng = root, random.Random(seed)
        self.recipe = root / "soak.yaml"
        self.recipe.write_text(RECIPE.format(epochs=epochs, seeds=list(range(seeds))))
        self.faults: list[str] = []
        self.counts = Counter[str]()
        self.expected: dict[str, dict[str, Any]] = {}

    def start(self, results: Path) -> subprocess.Popen[bytes]:
        """Start `run` like a user."""
        paths = os.pathsep.join([str(HERE.parent), str(HERE)])
        options = {"--results": results, "--data": self.root / "data", "--reports": self.root / "reports"}
        arguments = ["run", str(self.recipe), "--gpus", "none", "--jobs", "2"]
        arguments += [str(part) for option in options.items() for part in option]
        self.counts["starts of run"] += 1
        with (self.root / "log.txt").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", "import sys, soak; soak.command(sys.argv[1:])", *arguments],
                env=os.environ | {"PYTHONPATH": paths},
                stdout=log,
                stderr=log,
            )

    def undisturbed(self) -> float:
        """Run the grid without kills, keep its records, and return its time in seconds."""
        started = time.monotonic()
        if self.start(self.root / "undisturbed").wait():
            raise SystemExit((self.root / "log.txt").read_text())
        self.expected = records(self.root / "undisturbed")
        return time.monotonic() - started

    def disturb(self, results: Path, longest: float, kills: int) -> int:
        """Start `run`, kill up to `kills` times until no launcher is left, and return how often."""
        launchers = [self.start(results)]
        if self.rng.random() < TWICE:
            launchers.append(self.start(results))
            self.counts["starts of two at once"] += 1
        done = 0
        while (left := [launcher for launcher in launchers if launcher.poll() is None]) and done < kills:
            launcher = self.rng.choice(left)
            kind = self.rng.choices(list(KINDS), list(KINDS.values()))[0]
            if self.rng.random() < TRAINING:
                within(longest, lambda at=launcher.pid: bool(targets("run", at, self.rng)))
            within(self.rng.uniform(0, longest / 2), lambda at=launcher: at.poll() is not None)
            self.look(results)  # while they write
            chosen: list[int] = []

            def found(at: int = launcher.pid, kind: str = kind, chosen: list[int] = chosen) -> bool:
                chosen[:] = targets(kind, at, self.rng)
                return bool(chosen) or not alive(at)

            within(longest, found)
            if not chosen or launcher.poll() is not None:
                continue
            below = family(launcher.pid)
            kill(chosen)
            done += 1
            self.counts[f"kills: {kind}"] += 1
            if kind in ("launcher", "both"):
                launcher.wait()
                if not within(GONE, lambda below=below: not any(map(alive, below))):
                    self.faults.append(f"a process outlived its launcher by {GONE} s")
                    kill(below)
            self.look(results)
        for launcher in launchers:
            if launcher.wait() not in (0, 1, -signal.SIGKILL):
                self.faults.append(f"run ended with exit code {launcher.returncode}")
        return done

    def look(self, results: Path) -> None:
        """Read all files: none may be incomplete."""
        from bench.train.checkpoint import read_checkpoint

        self.counts["readings of all files"] += 1
        for path in sorted(results.glob("runs/*")):
            run = RunDir(results, path.name)
            try:
                state, record = run.look()
                if state.status == "unreadable":
                    raise BenchError(str(state.reason))
                for name, digest in (record or {}).get("files", {}).items():
                    if sha256(path / name) != digest:
                        raise BenchError(f"{name} is not that of the record")
                if run.cell.exists():
                    checkpoint = read_checkpoint(run.checkpoint, run.read_cell().id, "cpu")
                    if checkpoint is not None and record is None:
                        self.counts["checkpoints of unfinished runs read"] += 1
                run.epochs()
            except (BenchError, OSError) as error:
                self.faults.append(f"{path.name}: {error}")
        try:
            _ = Results(results).grids
        except BenchError as error:
            self.faults.append(str(error))
        if (results / "twice").exists():
            self.faults.append(f"{(results / 'twice').read_text()}: two processes were at it at once")

    def complete(self, results: Path) -> bool:
        """Return whether all runs are done, and compare their records with the undisturbed ones."""
        found = records(results)
        if found.keys() != self.expected.keys() or any(r["status"] != "done" for r in found.values()):
            return False
        for run_id, record in found.items():
            self.counts["records compared"] += 1
            if not equal(record, self.expected[run_id]):
                self.faults.append(f"{run_id}: its record differs from the undisturbed one")
        self.counts["grids completed and compared"] += 1
        return True


def records(results: Path) -> dict[str, dict[str, Any]]:
    """Return the records of a results folder by run id."""
    paths = sorted(results.glob("runs/*/record.json"))
    return {path.parent.name: RunDir(results, path.parent.name).read_record() for path in paths}


def main() -> None:
    """Kill until there were enough kills or the time is over; exit with 1 after any fault."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--kills", type=int, default=50)
    arguments.add_argument("--minutes", type=float, default=60, help="no kills after that")
    arguments.add_argument("--seed", type=int, default=0, help="of the moments, not of the runs")
    arguments.add_argument("--seeds", type=int, default=2, help="of the runs: four cells each")
    arguments.add_argument("--epochs", type=int, default=6)
    options = arguments.parse_args()
    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        soak = Soak(Path(scratch), options.epochs, options.seeds, options.seed)
        seconds = soak.undisturbed()
        print(f"seed {options.seed}; undisturbed: {len(soak.expected)} runs in {seconds:.1f} s", flush=True)
        done, number = 0, 0
        while done < options.kills and time.monotonic() < end:
            results = soak.root / f"disturbed{number}"
            done += soak.disturb(results, seconds / 2, options.kills - done)
            print(f"{done} kills, {len(soak.faults)} faults", flush=True)
            if done < options.kills and soak.complete(results):
                number += 1
        code = soak.start(results).wait()
        soak.look(results)
        if code or not soak.complete(results):
            soak.faults.append(f"the next run did not complete the grid (exit code {code})")
        log = (soak.root / "log.txt").read_text()
    if "Traceback" in log:
        soak.faults.append(f"a traceback: {log[log.index('Traceback') :][:3000]}")
    for name, count in sorted(soak.counts.items()):
        print(f"{count:6}  {name}")
    print(f"{done:6}  kills in all, {len(soak.faults)} faults")
    for fault in soak.faults:
        print(f"fault: {fault}")
    if soak.faults:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
