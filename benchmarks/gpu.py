"""Everything that wants a GPU, in one command of some minutes: tests, speed, and the next rows of a recipe.

In this order: the machine; the tests marked `gpu`, side by side; the pace of a run alone and of several at
once; the cells of a recipe that are not trained yet, until the time is nearly up. A part that fails or takes
too long takes nothing from the others. What is found lies in the folder as it comes, in a few small files:
log.txt, speed.json, and runs-*.tar with the finished runs and the checkpoints of others; unpacked in
results/runs they are runs as any other.

    python benchmarks/gpu.py OUT --minutes 9 --pack build/carry
    python benchmarks/gpu.py OUT --tiny             # the same on a CPU, with digits, to see that it works
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
#: What comes back is small: so many bytes a file, and in all.
FILE, ALL = 15 * 2**20, 60 * 2**20
#: Files of a run that come back, in this order, as far as there is room.
OF_A_RUN = ("cell.yaml", "epochs.jsonl", "logits.npz", "record.json")
#: The tests are so many processes, by what they hold for pytest's -k.
TESTS = {
    "augmentation": ["tests/test_augment_policies.py", "tests/test_data_loader.py"],
    "replay": ["tests/test_fast.py", "-k", "not every_method and not asks_the_device"],
    "refusal": ["tests/test_fast.py", "-k", "asks_the_device"],  # what it provokes spoils its process
    "together": ["tests/test_interleave.py"],
    "methods": ["tests/test_fast.py", "-k", "every_method", "-n", "4"],
}
#: Seconds that the tests and the measuring may take at most.
TESTING, MEASURING = 100, 80
RUNS = (1, 2, 4, 8, 16)
RECIPES = ("cifar_lt_plain_rebuilt", "cifar_lt_autoaugment_rebuilt", "cifar_lt_experts_rebuilt")


class Log:
    """Says what happens, on the terminal and in a file."""

    def __init__(self, path: Path) -> None:
        self.path, self.started, self.lock = path, time.monotonic(), threading.Lock()

    def __call__(self, text: str) -> None:
        line = f"[{time.monotonic() - self.started:5.0f} s] {text}"
        with self.lock, self.path.open("a") as file:
            print(line, flush=True)
            print(line, file=file)


def finish(name: str, command: Sequence[str], seconds: float, log: Log, tail: int = 12) -> int | None:
    """Run a command for so many seconds at most; log the end of what it says, and return its exit code."""
    if seconds < 1:
        log(f"{name}: no time left")
        return None
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            command, stdout=said, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True
        )
        try:
            code: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            code = None
        said.seek(0)
        lines = said.read().splitlines()[-tail:]
    end = f"stopped after {seconds:.0f} s" if code is None else f"exit code {code}"
    log("\n    ".join([f"{name}: {end}", *lines]))
    return code


# -- the parts ------------------------------------------------------------------------------------------
def machine(log: Log) -> None:
    """Say what this runs on."""
    look = (
        "import platform, torch; from bench.vision import timm;"
        "print(platform.python_version(), torch.__version__, timm.__version__);"
        "c = torch.cuda.is_available(); print(torch.cuda.get_device_name() if c else 'no GPU');"
        "print(torch.cuda.mem_get_info() if c else '', torch.backends.cudnn.version())"
    )
    finish("machine", [sys.executable, "-c", look], 60, log)
    if shutil.which("nvidia-smi"):
        finish("nvidia-smi", ["nvidia-smi"], 20, log, tail=20)


def tests(seconds: float, log: Log, tiny: bool) -> None:
    """Run the tests that need a GPU, side by side; in a rehearsal, collect them."""

    def one(name: str, arguments: list[str]) -> None:
        pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", "--tb=short"]
        finish(
            f"tests, {name}", [*pytest, *arguments, *(["--collect-only"] if tiny else [])], seconds, log, 60
        )

    chosen = list(TESTS.items())[:1] if tiny else list(TESTS.items())
    threads = [threading.Thread(target=one, args=item) for item in chosen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def train(recipe: str, only: list[str], per_gpu: int | None, where: Path, data: Path, until: float, log: Log):
    """Train what is not trained yet."""
    command = [sys.executable, "run_bench.py", "run", recipe, "--results", str(where), "--data", str(data)]
    command += [word for one in only for word in ("--only", one)]
    command += ["--reports", str(where.parent / "reports")]
    command += ["--per-gpu", str(per_gpu)] if per_gpu else []
    finish("training", command, until - time.monotonic(), log, tail=40)


class Collector(threading.Thread):
    """Puts each run into a file as it ends, so that whatever stops this loses none."""

    def __init__(self, runs: Path, out: Path, log: Log) -> None:
        super().__init__(daemon=True)
        self.runs, self.out, self.log = runs, out, log
        self.taken: set[str] = set()
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.wait(2):
            self.collect()

    def collect(self) -> None:
        """Take the runs that ended since."""
        for record in sorted(self.runs.glob("*/record.json")):
            name = record.parent.name
            if name in self.taken or json.loads(record.read_text())["status"] == "interrupted":
                continue
            self.taken.add(name)
            status = json.loads(record.read_text())
            accuracy = status.get("metrics", {}).get("accuracy")
            pace = status.get("timing", {}).get("images_per_second")
            self.log(
                f"run {status['status']}: {name} {accuracy} ({pace} images/s) {status.get('reason') or ''}"
            )
            for file in OF_A_RUN:
                if (record.parent / file).exists():
                    self._add(record.parent / file, f"{name}/{file}")

    def collect_checkpoints(self) -> None:
        """Take what a later call can go on from."""
        for checkpoint in sorted(self.runs.glob("*/checkpoint.pt")):
            name = checkpoint.parent.name
            if name not in self.taken:
                self.log(f"run not ended: {name}")
                for file in ("cell.yaml", "epochs.jsonl", "checkpoint.pt"):
                    self._add(checkpoint.parent / file, f"{name}/{file}")

    def _add(self, path: Path, name: str) -> None:
        size = path.stat().st_size + 2048
        files = sorted(self.out.glob("runs-*.tar"), key=lambda file: int(file.stem.split("-")[1]))
        if sum(file.stat().st_size for file in files) + size > ALL and path.suffix in (".npz", ".pt"):
            return
        if not files or files[-1].stat().st_size + size > FILE:
            files.append(self.out / f"runs-{len(files)}.tar")
        with tarfile.open(files[-1], "a") as tar:
            content = path.read_bytes()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


# -- measuring, in a process of its own -------------------------------------------------------------------
def measure(out: Path, data: Path, dataset: str, tiny: bool) -> None:
    """Measure the pace of runs, alone and together, and of their parts; write each figure as it comes."""
    import torch
    from common import long_tail, official

    from bench.cell import BackboneChoice, Cell, Optimizer, Protocol
    from bench.data.catalogue import DATASETS
    from bench.registry import find
    from bench.train.trial import Trial

    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows: list[dict[str, Any]] = []

    def note(what: str, **figures: Any) -> None:
        rows.append({"what": what, **figures})
        print(rows[-1], flush=True)
        (out / "speed.json").write_text(json.dumps(rows, indent=1) + "\n")

    def cell(method: str, augmentation: str, batch: int = 128) -> Cell:
        return Cell(
            method=find(method).choose(),
            dataset=DATASETS["digits" if tiny else dataset],
            imbalance_factor=20.0 if tiny else 100.0,
            backbone=BackboneChoice(name="resnet8_cifar" if tiny else "resnet32_cifar"),
            protocol=Protocol(
                batch_size=8 if tiny else batch, optimizer=Optimizer(), augmentation=augmentation
            ),
        )

    def attempt(name: str, measuring: Callable[[], None]) -> None:
        try:
            measuring()
        except Exception as error:
            note(name, failed=repr(error)[:500])

    def ladder(name: str, one: Cell, most: int) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            trial = Trial(one, data, device, Path(scratch))
            for runs in RUNS:
                if runs > (1 if tiny else most):
                    break
                rate = trial.rate(runs)
                if rate is None:
                    note(name, runs=runs, images_per_second=None)
                    break
                memory = torch.cuda.memory_reserved() / 2**20 if device == "cuda" else None
                note(
                    name,
                    runs=runs,
                    images_per_second=round(rate * one.protocol.batch_size),
                    reserved_mb=memory,
                )

    plain, strong = cell("ce", "crop_flip"), cell("ce", "autoaugment_cutout")
    attempt("parts", lambda: parts(strong, data, device, note))
    attempt("three views", lambda: ladder("three views", cell("bcl", "autoaugment_cutout", 256), 8))
    attempt("AutoAugment", lambda: ladder("AutoAugment and Cutout", strong, 16))
    attempt("crop and flip", lambda: ladder("crop and flip", plain, 16))
    for workers in (0,) if tiny else (8,):
        steps = official(plain, long_tail(10_847, 100), workers, device)
        for _ in range(2 if tiny else 20):
            next(steps)
        note(
            "papers' loop, crop and flip",
            workers=workers,
            images_per_second=round(pace(steps, 1 if tiny else 4)),
        )


def pace(steps: Iterator[tuple[Any, int]], seconds: float) -> float:
    """Return the images per second of a loop that yields how many each step had."""
    started, done = time.monotonic(), 0
    while time.monotonic() - started < seconds:
        done += next(steps)[1]
    return done / (time.monotonic() - started)


def parts(cell: Any, data: Path, device: str, note: Callable[..., None]) -> None:
    """Measure what a step and an evaluation consist of."""
    import torch

    from bench.train.interleave import Turns
    from bench.train.trial import Trial

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def milliseconds(function: Callable[[], object], count: int) -> float:
        function()
        wait()
        times = []
        for _ in range(5):
            started = time.monotonic()
            for _ in range(count):
                function()
            wait()
            times.append((time.monotonic() - started) / count * 1e3)
        return round(statistics.median(times), 3)

    count = 40 if device == "cuda" else 1
    with tempfile.TemporaryDirectory() as scratch:
        training = Trial(cell, data, device, Path(scratch))._training(0)

    def measured() -> Iterator[None]:
        steps = training.steps(lambda line: None)
        for _ in range(3):
            next(steps)
        yield
        rows = training.loader._rows
        for key, (graph, _) in getattr(training.loader.play, "recorded", {}).items():

            def again(graph: Any = graph) -> None:
                torch.arange(len(rows), out=rows)  # a batch moves on from here
                graph.replay()

            note(f"replay of {key}", milliseconds=milliseconds(again, count))
        started = time.monotonic()
        for _ in range(count):
            next(steps)
        host = (time.monotonic() - started) / count * 1e3
        wait()
        whole = (time.monotonic() - started) / count * 1e3
        note("a step", host_ms=round(host, 3), whole_ms=round(whole, 3))
        note("scoring, as it is", milliseconds=milliseconds(training.score, 1))
        if device == "cuda":
            note("reserved", megabytes=torch.cuda.max_memory_reserved() / 2**20)
            images = next(images for images, _ in training.loader.test()).clone()
            method = training.method.eval()
            for form in (torch.channels_last, torch.contiguous_format):
                method.to(memory_format=form)
                for tf32 in (False, True):
                    torch.backends.cudnn.allow_tf32 = tf32
                    for size in (250, 1000):
                        some = images[:size].contiguous(memory_format=form)
                        with torch.inference_mode():
                            took = milliseconds(lambda some=some: method(some), 5)
                        note("scores, eager", images=size, format=str(form), tf32=tf32, milliseconds=took)
            with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
                method.to(memory_format=torch.channels_last)
                some = images.contiguous(memory_format=torch.channels_last)
                note(
                    "scores, eager, bfloat16", images=1000, milliseconds=milliseconds(lambda: method(some), 5)
                )

    turns = Turns[str](device)
    turns.add("it", measured())
    for _, error in turns.take():
        if error:
            raise error


def main() -> None:
    """Do all parts within the time given."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("out", type=Path, help="a folder for what is found")
    arguments.add_argument("--minutes", type=float, default=9.0)
    arguments.add_argument("--pack", type=Path, help="a folder with packs of gpu_pack.py, to be unpacked")
    arguments.add_argument("--data", type=Path, default=ROOT / "data")
    arguments.add_argument("--results", type=Path, default=ROOT / "build" / "gpu" / "results")
    arguments.add_argument("--recipe", action="append", help=f"default: {', '.join(RECIPES)}")
    arguments.add_argument("--only", action="append", default=[], help="as of `run_bench.py run`")
    arguments.add_argument("--per-gpu", type=int, help="runs at once; default: by a trial")
    arguments.add_argument("--dataset", default="cifar100_rebuilt", help="of the measurements")
    arguments.add_argument("--parts", default="machine,tests,speed,train")
    arguments.add_argument("--tiny", action="store_true", help="a rehearsal on a CPU, with digits")
    arguments.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    out, wanted = options.out.resolve(), options.parts.split(",")
    out.mkdir(parents=True, exist_ok=True)
    if options.measure:
        measure(out, options.data, options.dataset, options.tiny)
        return
    until = time.monotonic() + options.minutes * 60
    log = Log(out / "log.txt")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    if "machine" in wanted:
        machine(log)
    if options.pack:
        unpack = ["benchmarks/gpu_pack.py", "unpack", str(options.pack.resolve()), str(options.data)]
        finish("unpacking", [sys.executable, *unpack], 60, log)
    if "tests" in wanted:
        tests(min(TESTING, until - time.monotonic()), log, options.tiny)
    if "speed" in wanted:
        again = [sys.executable, __file__, str(out), "--measure", "--data", str(options.data)]
        again += ["--dataset", options.dataset, *(["--tiny"] if options.tiny else [])]
        finish("speed", again, min(MEASURING, until - time.monotonic()), log, tail=60)
    if "train" in wanted:
        results = options.results.resolve()
        collector = Collector(results / "runs", out, log)
        collector.start()
        for recipe in options.recipe or RECIPES:
            train(recipe, options.only, options.per_gpu, results, options.data, until - 10, log)
        collector.stop.set()
        collector.join()
        collector.collect()
        collector.collect_checkpoints()
        log(f"{len(collector.taken)} runs ended")


if __name__ == "__main__":
    main()
