"""Everything that needs a GPU, in one command of some minutes: tests, speed, and the next rows of a recipe.

In this order: a check of the machine, which must support bfloat16; the tests marked `gpu`, in parallel; the
speed of one run and of several at once; what `--compile` gains for one run; training of a recipe's missing
cells, until the time is nearly up. A part that fails or takes too long does not affect the others. Results
are written to the folder at once, in a few small files: log.txt, speed.json, compile.json, and runs-*.tar
with the finished runs and the checkpoints of others, to be unpacked in results/runs.

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
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: The maximum bytes of a file and of all files that are returned.
FILE, ALL = 15 * 2**20, 60 * 2**20
#: Files of a run that are returned, in this order, as long as they fit.
OF_A_RUN = ("cell.yaml", "epochs.jsonl", "logits.npz", "record.json")
#: Pytest's arguments for each process of the tests.
TESTS = {
    "augmentation": ["tests/data/test_augment_policies.py", "tests/data/test_data_loader.py"],
    "replay": ["tests/train/test_fast.py", "-k", "not every_method and not asks_the_device"],
    "refusal": ["tests/train/test_fast.py", "-k", "asks_the_device"],  # its error breaks CUDA in its process
    "together": ["tests/train/test_interleave.py"],
    "compile": ["tests/train/test_compiled.py"],
    "methods": ["tests/train/test_fast.py", "-k", "every_method", "-n", "4"],
}
#: Time limits of the tests and the measurements, in seconds.
TESTING, MEASURING = 100, {"speed": 80, "compile": 80}
#: Seconds after which pytest prints where a test waits.
HANGS = 40
RECIPES = ("cifar_lt_plain_rebuilt", "cifar_lt_autoaugment_rebuilt", "cifar_lt_experts_rebuilt")


class Log:
    """Prints lines, with the time, on the terminal and to a file."""

    def __init__(self, path: Path) -> None:
        self.path, self.started, self.lock = path, time.monotonic(), threading.Lock()

    def __call__(self, text: str) -> None:
        line = f"[{time.monotonic() - self.started:5.0f} s] {text}"
        with self.lock, self.path.open("a") as file:
            print(line, flush=True)
            print(line, file=file)


def finish(name: str, command: Sequence[str], seconds: float, log: Log, tail: int = 12) -> int | None:
    """Run a command for at most so many seconds; log the end of its output, and return its exit code."""
    if seconds < 1:
        log(f"{name}: no time left")
        return None
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True
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
        output.seek(0)
        lines = output.read().splitlines()[-tail:]
    end = f"stopped after {seconds:.0f} s" if code is None else f"exit code {code}"
    log("\n    ".join([f"{name}: {end}", *lines]))
    return code


# -- the parts ------------------------------------------------------------------------------------------
def machine(log: Log) -> bool:
    """Log the machine, and return whether it can make a step in bfloat16."""
    look = (
        "import platform, torch; from bench.vision import timm;"
        "print(platform.python_version(), torch.__version__, timm.__version__);"
        "c = torch.cuda.is_available(); print(torch.cuda.get_device_name() if c else 'no GPU');"
        "print(torch.cuda.mem_get_info() if c else '', torch.backends.cudnn.version());"
        "x = torch.ones(8, 3, 32, 32, device='cuda' if c else 'cpu', dtype=torch.bfloat16);"
        "w = torch.ones(16, 3, 3, 3, device=x.device, dtype=x.dtype, requires_grad=True);"
        "torch.nn.functional.conv2d(x, w).sum().backward(); print('gradient', w.grad.float().mean().item())"
    )
    works = finish("machine", [sys.executable, "-c", look], 90, log) == 0
    if shutil.which("nvidia-smi"):
        finish("nvidia-smi", ["nvidia-smi"], 20, log, tail=20)
    return works


def tests(seconds: float, log: Log, tiny: bool) -> None:
    """Run the tests that need a GPU in parallel; in a rehearsal only collect them."""

    def one(name: str, arguments: list[str]) -> None:
        pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", "--tb=short"]
        pytest += ["-o", f"faulthandler_timeout={HANGS}"]
        finish(
            f"tests, {name}", [*pytest, *arguments, *(["--collect-only"] if tiny else [])], seconds, log, 60
        )

    chosen = list(TESTS.items())[:1] if tiny else list(TESTS.items())
    threads = [threading.Thread(target=one, args=item) for item in chosen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def train(recipe: str, options: argparse.Namespace, where: Path, until: float, log: Log) -> None:
    """Train a recipe's missing cells."""
    data, only, per_gpu = options.data, options.only, options.per_gpu
    command = [sys.executable, "run_bench.py", "run", recipe, "--results", str(where), "--data", str(data)]
    command += [word for one in only for word in ("--only", one)]
    command += ["--reports", str(where.parent / "reports")]
    command += ["--per-gpu", str(per_gpu)] if per_gpu else []
    command += ["--compile"] if options.compile else []
    finish("training", command, until - time.monotonic(), log, tail=40)


class Collector(threading.Thread):
    """Packs each run as it ends, so that none is lost if this is stopped."""

    def __init__(self, runs: Path, out: Path, log: Log) -> None:
        super().__init__(daemon=True)
        self.runs, self.out, self.log = runs, out, log
        self.taken: set[str] = set()
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.wait(2):
            self.collect()

    def collect(self) -> None:
        """Pack the runs that ended since the last call."""
        for record in sorted(self.runs.glob("*/record.json")):
            name = record.parent.name
            if name in self.taken or json.loads(record.read_text())["status"] == "interrupted":
                continue
            self.taken.add(name)
            content = json.loads(record.read_text())
            accuracy = content.get("metrics", {}).get("accuracy")
            pace = content.get("timing", {}).get("images_per_second")
            self.log(
                f"run {content['status']}: {name} {accuracy} ({pace} images/s) {content.get('reason') or ''}"
            )
            for file in OF_A_RUN:
                if (record.parent / file).exists():
                    self._add(record.parent / file, f"{name}/{file}")

    def collect_checkpoints(self) -> None:
        """Pack the checkpoints of unfinished runs, for a later call."""
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


def main() -> None:
    """Do all parts within the given time."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("out", type=Path, help="a folder for the results")
    arguments.add_argument("--minutes", type=float, default=9.0)
    arguments.add_argument("--pack", type=Path, help="a folder with packs of gpu_pack.py, to be unpacked")
    arguments.add_argument("--data", type=Path, default=ROOT / "data")
    arguments.add_argument("--results", type=Path, default=ROOT / "build" / "gpu" / "results")
    arguments.add_argument("--recipe", action="append", help=f"default: {', '.join(RECIPES)}")
    arguments.add_argument("--only", action="append", default=[], help="as of `run_bench.py run`")
    arguments.add_argument("--per-gpu", type=int, help="runs at once; default: by a trial")
    arguments.add_argument("--dataset", default="cifar100_rebuilt", help="of the measurements")
    arguments.add_argument("--parts", default="machine,tests,speed,compile,train")
    arguments.add_argument("--compile", action="store_true", help="of the training, as of `run_bench.py run`")
    arguments.add_argument("--tiny", action="store_true", help="a rehearsal on a CPU, with digits")
    options = arguments.parse_args()
    out, wanted = options.out.resolve(), options.parts.split(",")
    out.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + options.minutes * 60
    log = Log(out / "log.txt")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    if "machine" in wanted and not machine(log):
        log("this Python, torch and device do not work together; nothing else was tried")
        raise SystemExit(1)
    if options.pack:
        unpack = ["benchmarks/gpu_pack.py", "unpack", str(options.pack.resolve()), str(options.data)]
        finish("unpacking", [sys.executable, *unpack], 60, log)
    if "tests" in wanted:
        tests(min(TESTING, until - time.monotonic()), log, options.tiny)
    for part, seconds in MEASURING.items():
        if part in wanted:
            again = ["benchmarks/gpu_measure.py", str(out), "--part", part, "--data", str(options.data)]
            again += ["--dataset", options.dataset, *(["--tiny"] if options.tiny else [])]
            left = min(seconds, until - time.monotonic())
            finish(part, [sys.executable, *again], left, log, tail=60)
    if "train" in wanted:
        results = options.results.resolve()
        collector = Collector(results / "runs", out, log)
        collector.start()
        for recipe in options.recipe or RECIPES:
            train(recipe, options, results, until - 10, log)
        collector.stop.set()
        collector.join()
        collector.collect()
        collector.collect_checkpoints()
        log(f"{len(collector.taken)} runs ended")


if __name__ == "__main__":
    main()
