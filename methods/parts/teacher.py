"""A trained method as a teacher of another."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from bench.method import Method


class Teacher(nn.Module):
    """A trained method that predicts, is not trained, and is not part of the child's weights."""

    def __init__(self) -> None:
        super().__init__()
        self._method: list[Method] = []  # in a list, so that its weights are not the child's

    def take(self, method: Method) -> None:
        """Set the teacher."""
        self._method[:] = [method.eval().requires_grad_(False)]

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        for method in self._method:
            method._apply(fn, recurse)
        return super()._apply(fn, recurse)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return self._method[0](images)
