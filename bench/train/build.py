"""From a cell to its method, with the weights every method of that repetition starts from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench import backbones, ranks, registry
from bench.backbones import Backbone
from bench.cell import Cell
from bench.errors import BenchError
from bench.method import Method
from bench.randomness import seed_of

#: Puts a finished cell's weights into its freshly built method.
LoadWeights = Callable[[Cell, Method], None]


def build(cell: Cell, class_counts: np.ndarray, load_parent: LoadWeights | None = None) -> Method:
    """Build a cell's method, ready for its first step.

    The backbone's initial weights depend on the seed and the backbone alone, so methods that are compared
    start alike. Without `load_parent` the ancestors keep their initial weights, which is enough for a
    method whose own weights are loaded next.
    """
    entry = registry.find(cell.method.name)
    if entry.version != cell.method.version:
        raise BenchError(
            f"{cell.run_id}: made for version {cell.method.version} of {entry.name}, which is now version "
            f"{entry.version} and gives other numbers; run its recipe again"
        )
    calls = count()

    def make_backbone(**overrides: Any) -> Backbone:
        options = {**cell.backbone.options, **overrides}
        with _seeded("backbone", cell.backbone.name, next(calls), cell.seed):
            return backbones.create(cell.backbone.name, **options)

    with _seeded("heads", cell.seed):
        method = entry.build(make_backbone, class_counts, **cell.method.params)
        smooth(method, cell)
        parents = []
        for elder in cell.parents:
            parents.append(build(elder, class_counts, load_parent))
            if load_parent:
                load_parent(elder, parents[-1])
        if parents:
            method.start_from_all(parents)
    for module in method.modules():
        if isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(_rest_if_alone)
            module.register_forward_hook(_work_again)
    return method


def smooth(method: Method, cell: Cell) -> None:
    """Let a method smooth its labels as the protocol says.

    Raises:
        BenchError: its loss knows no smoothed labels.
    """
    share = cell.protocol.label_smoothing
    if share and not method.takes_label_smoothing():
        raise BenchError(
            f"{cell.run_id}: {cell.method.name} takes no smoothed labels; leave protocol.label_smoothing out"
        )
    method.label_smoothing = share


# -- batch norm of one value --------------------------------------------------------------------------
# A last batch of one image has no statistics of its own: where a channel has a single value (in a projector,
# or in a map of one pixel), batch norm takes its running averages, as in a test, and leaves them as they are.
def _rest_if_alone(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    values = inputs[0]
    if module.training and values.numel() == values.shape[1] and not ranks.in_piece():
        module.training, vars(module)["rests"] = False, True


def _work_again(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    if vars(module).pop("rests", False):
        module.training = True


@contextmanager
def _seeded(*names: object) -> Iterator[None]:
    """Seed torch's CPU generator from a named stream, and put it back afterwards."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed_of(*names))
    try:
        yield
    finally:
        torch.set_rng_state(state)
