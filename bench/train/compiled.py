"""Backbones compiled by `torch.compile`, which fuses operations such as batch norm and ReLU."""

from __future__ import annotations

import torch

from bench.backbones import Backbone
from bench.method import Method

#: torch's limit on recompilations: each stage is compiled once for each batch size, and all stages count
#: together.
MOST_COMPILATIONS = 256


def compile_stages(method: Method, backend: str = "inductor") -> None:
    """Compile the stages of a method's backbones at their first use; weights keep their names.

    Each stage is compiled by itself, because a method may put something between them.
    """
    torch._dynamo.config.recompile_limit = MOST_COMPILATIONS
    for module in method.modules():
        if isinstance(module, Backbone):
            for stage in module.stages.values():
                stage.compile(dynamic=False, backend=backend)
