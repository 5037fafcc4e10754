"""How a machine carries its runs out: options that change the pace, and no part of a cell.

Those that `--execute` names are in the environment variable LONGTAIL_EXECUTE, which processes of runs
inherit. What an option did to a run stands in its record.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass, fields
from typing import Any, Self

from bench.errors import BenchError, did_you_mean

#: The environment variable that has the options, as "compile,no-channels-last,steps=4".
EXECUTE = "LONGTAIL_EXECUTE"
MOST_STEPS = 64


@dataclass(frozen=True)
class Execution:
    """The options, in fast mode; in exact mode `benchmark` alone means something.

    Attributes:
        compile: join the operations of the backbone's stages by `torch.compile`, while training; scores come
            from the plain network.
        channels_last: keep images and weights with their channels last in memory.
        steps: how many steps of learning are one CUDA graph.
        benchmark: let cuDNN try its algorithms and take the fastest.
    """

    compile: bool = False
    channels_last: bool = True
    steps: int = 1
    benchmark: bool = True

    @classmethod
    def read(cls, text: str, where: str = "--execute") -> Self:
        """Read options as "compile,no-channels-last,steps=4,no-benchmark".

        Raises:
            BenchError: one is not known, or has no such value.
        """
        known = {field.name.replace("_", "-"): field.name for field in fields(cls)}
        chosen: dict[str, Any] = {}
        for word in filter(None, (part.strip() for part in text.split(","))):
            name, given, value = word.partition("=")
            plain = name.removeprefix("no-")
            if plain not in known:
                raise BenchError(f"{where}: unknown option {word[:40]!r}{did_you_mean(plain, known)}")
            if plain == "steps":
                number = int(value) if value.isascii() and value.isdigit() and len(value) < 4 else 0
                if name != plain or not 1 <= number <= MOST_STEPS:
                    raise BenchError(f"{where}: {word[:40]!r} should be steps=1 to steps={MOST_STEPS}")
                chosen[plain] = number
            elif given:
                raise BenchError(f"{where}: {word[:40]!r} should be {plain} or no-{plain}")
            else:
                chosen[known[plain]] = name == plain
        return cls(**chosen)

    @classmethod
    def here(cls) -> Self:
        """Return the options of this process."""
        return cls.read(os.environ.get(EXECUTE, ""), EXECUTE)

    def changes(self) -> dict[str, Any]:
        """Return what differs from the defaults."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value != getattr(Execution(), name)}

    def refuse(self, device: str) -> None:
        """See that this machine can do what is asked.

        Raises:
            BenchError: it cannot, and why.
        """
        on_gpu = device.startswith("cuda")
        if not on_gpu and (self.steps > 1 or not self.benchmark):
            option = "no-benchmark" if self.steps == 1 else f"steps={self.steps}"
            raise BenchError(
                f"--execute {option}: means something on a GPU only, and these runs are on the CPU"
            )
        if self.compile and on_gpu and importlib.util.find_spec("triton") is None:
            raise BenchError("--execute compile: needs triton on a GPU; pip install triton, or leave it out")
        compiler = os.environ.get("CXX", "g++")
        if self.compile and shutil.which(compiler) is None:
            raise BenchError(f"--execute compile: no C++ compiler {compiler!r} here; install it or set CXX")


def choose(text: str | None) -> None:
    """Let the runs of this process and its children have these options, if any are given.

    Raises:
        BenchError: one is not known, or has no such value.
    """
    if text is not None:
        Execution.read(text)
        os.environ[EXECUTE] = text
