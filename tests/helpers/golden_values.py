"""Reads the golden files: values that the authors' own code gave on stored inputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from project import ROOT, SHARED
from torch import Tensor

FOLDER = ROOT / "tests/golden"

#: Where those of 2026 lie, beside the repository; a test of theirs is skipped without them.
BESIDE = SHARED / "golden"


def golden(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a golden file's arrays as tensors, and its hyper-parameters."""
    where = next((f for f in (FOLDER, BESIDE) if (f / f"{name}.npz").is_file()), None)
    if where is None:
        pytest.skip(f"{name}.npz is absent")
    with np.load(where / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    settings = json.loads(str(arrays.get("hp_json", arrays.get("meta_json", "{}"))))
    return {key: torch.from_numpy(a) for key, a in arrays.items() if a.dtype.kind in "fiu"}, settings


def check(
    loss_of: Callable[[Tensor], Tensor],
    inputs: Tensor,
    loss: Tensor,
    grad: Tensor,
    rtol: float = 1e-4,
    grad_rtol: float = 1e-3,
    atol: float = 1e-6,
) -> None:
    """Assert that a loss and its gradient are the authors', within the file's tolerance."""
    leaf = inputs.clone().requires_grad_()
    value = loss_of(leaf)
    value.backward()
    torch.testing.assert_close(value.detach(), loss.to(value.dtype), rtol=rtol, atol=atol)
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, grad.to(leaf.dtype), rtol=grad_rtol, atol=atol)
