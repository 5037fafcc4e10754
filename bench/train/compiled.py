"""`--compile`: backbones compiled by `torch.compile`, which fuses operations such as batch norm and ReLU.

It changes the speed only and is not part of a cell. The launcher imports this module, but not torch.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from typing import TYPE_CHECKING

from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.method import Method

#: The environment variable that is 1 where runs are to be compiled; their processes inherit it.
COMPILE = "LONGTAIL_COMPILE"

#: torch's limit on recompilations: each stage is compiled once for each batch size, and all stages count
#: together.
MOST_COMPILATIONS = 256


def is_asked() -> bool:
    """Whether the runs of this process are to be compiled."""
    return os.environ.get(COMPILE) == "1"


def refuse(device: str) -> None:
    """Refuse to compile, if that is asked, where torch could not.

    Raises:
        BenchError: triton or a C++ compiler is missing.
    """
    if not is_asked():
        return
    if device.startswith("cuda") and importlib.util.find_spec("triton") is None:
        raise BenchError("--compile: needs triton on a GPU; pip install triton, or leave it out")
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise BenchError(f"--compile: no C++ compiler {compiler!r} here; install it or set CXX")


def compile_stages(method: Method, backend: str = "inductor") -> None:
    """Compile the stages of a method's backbones at their first use in training; weights keep their names.

    Each stage is compiled by itself, because a method may put something between them. Outside of
    `Training._forward` nothing is compiled in this process from now on, such as evaluation.
    """
    import torch

    from bench.backbones import Backbone

    torch._dynamo.config.recompile_limit = MOST_COMPILATIONS
    torch.compiler.set_stance("force_eager")
    for module in method.modules():
        if isinstance(module, Backbone):
            for stage in module.stages.values():
                stage.compile(dynamic=False, backend=backend)
