"""Builds a cell's method, with initial weights that all methods of a seed share."""

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

#: Loads a finished cell's weights into its newly built method.
LoadWeights = Callable[[Cell, Method], None]


def build(cell: Cell, class_counts: np.ndarray, load_parent: LoadWeights | None = None) -> Method:
    """Build a cell's method, ready for its first step.

    The backbone's initial weights depend only on the seed and the backbone, so all methods start alike.
    Without `load_parent` the ancestors keep their initial weights, which is enough if the method's own
    weights are loaded next.

    Raises:
        BenchError: the cell was made for another version of the method, or its method does not fit it.
    """
    spec = registry.find(cell.method.name)
    if spec.version != cell.method.version:
        raise BenchError(
            f"{cell.run_id}: made for version {cell.method.version} of {spec.name}, which is now version "
            f"{spec.version} and gives other numbers; run its recipe again"
        )
    calls = count()

    def make_backbone(**overrides: Any) -> Backbone:
        options = {**cell.backbone.options, **overrides}
        with _seeded("backbone", cell.backbone.name, next(calls), cell.seed):
            return backbones.create(cell.backbone.name, **options)

    with _seeded("heads", cell.seed):
        # A record that is older than a hyper-parameter was trained with what is its default.
        method = spec.build(make_backbone, class_counts, **spec.unchanged | cell.method.params)
        smooth(method, cell)
        parents = []
        for parent in cell.parents:
            parents.append(build(parent, class_counts, load_parent))
            if load_parent:
                load_parent(parent, parents[-1])
        if parents:
            method.start_from_all(parents)
    for module in method.modules():
        if isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(_evaluate_if_single)
            module.register_forward_hook(_train_again)
    return method


def smooth(method: Method, cell: Cell) -> None:
    """Set a method's label smoothing as in the protocol.

    Raises:
        BenchError: its loss takes no smoothed labels.
    """
    share = cell.protocol.label_smoothing
    if share and not method.takes_label_smoothing():
        raise BenchError(f"{cell.method.name} takes no smoothed labels; leave protocol.label_smoothing out")
    method.label_smoothing = share


# -- batch norm of one value --------------------------------------------------------------------------
# A single value per channel has no variance (a last batch of one image, in a projector or a map of one
# pixel). There batch norm uses its running averages, as in a test, and does not change them.
def _evaluate_if_single(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    values = inputs[0]
    if module.training and values.numel() == values.shape[1] and not ranks.in_rows():
        module.training, vars(module)["evaluates"] = False, True


def _train_again(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    if getattr(module, "evaluates", False):  # torch 2.11 compiles this, and no `pop`
        module.training, vars(module)["evaluates"] = True, False


@contextmanager
def _seeded(*names: object) -> Iterator[None]:
    """Seed torch's CPU generator from a named stream, and restore it afterwards."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed_of(*names))
    try:
        yield
    finally:
        torch.set_rng_state(state)
