"""Backbones whose operations are joined by `torch.compile`: batch norm and ReLU in one pass over memory."""

from __future__ import annotations

import torch

from bench.backbones import Backbone
from bench.method import Method

#: Each stage is compiled anew for each size of a batch; all stages count together.
MOST_FORMS = 256


def compile_stages(method: Method, backend: str = "inductor") -> None:
    """Let the stages of a method's backbones be compiled at their first use; weights keep their names.

    A method may put something between stages, so each is compiled by itself.
    """
    torch._dynamo.config.recompile_limit = MOST_FORMS
    for module in method.modules():
        if isinstance(module, Backbone):
            for stage in module.stages.values():
                stage.compile(dynamic=False, backend=backend)
