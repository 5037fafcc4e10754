"""How a machine executes runs: options that change the speed and are not part of a cell.

`--execute` puts them into the environment variable LONGTAIL_EXECUTE, which the runs' processes inherit. The
options that a run used are in its record.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass, fields
from typing import Any, Self

from bench.errors import BenchError, did_you_mean

#: The environment variable with the options, as "compile,no-channels-last,steps=4".
EXECUTE = "LONGTAIL_EXECUTE"
MOST_STEPS = 64


@dataclass(frozen=True)
class Execution:
    """The options. In exact mode only `benchmark` has an effect.

    Attributes:
        compile: compile the backbone's stages by `torch.compile` for training; evaluation is not compiled.
        channels_last: store images and weights with channels last.
        steps: how many training steps make one CUDA graph.
        benchmark: let cuDNN try its algorithms and use the fastest.
    """

    compile: bool = False
    channels_last: bool = True
    steps: int = 1
    benchmark: bool = True

    @classmethod
    def read(cls, text: str, where: str = "--execute") -> Self:
        """Parse options such as "compile,no-channels-last,steps=4,no-benchmark".

        Raises:
            BenchError: an unknown option or value.
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
        """Return the options that differ from the defaults."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value != getattr(Execution(), name)}

    def refuse(self, device: str) -> None:
        """Refuse options that this machine does not support.

        Raises:
            BenchError: there is one.
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
    """Set the options for the runs of this process and its children, if any are given.

    Raises:
        BenchError: an unknown option or value.
    """
    if text is not None:
        Execution.read(text)
        os.environ[EXECUTE] = text
