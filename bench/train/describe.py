"""The description of method, data, model and machine in a record."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import registry
from bench.backbones import count_parameters
from bench.cell import Cell
from bench.data.split.load import Split
from bench.method import Method
from bench.version import revision
from bench.vision import timm


def describe_method(cell: Cell, method: Method) -> dict[str, Any]:
    """Return the facts of a method, for readers without the registry."""
    spec = registry.find(cell.method.name)
    shown = ("name", "title", "family", "venue", "year", "paper", "reconstruction", "pretrained")
    return {
        **{key: getattr(spec, key) for key in shown},
        "views": [view.policy for view in method.views],
        "scores": method.scores,
        "experts": method.experts if method.experts > 1 else None,  # as in older records
    }


def describe_data(cell: Cell, split: Split) -> dict[str, Any]:
    """Return the split's fingerprint, class counts, original data set and extra images."""
    described = {
        "title": cell.dataset.title,
        "copy_of": cell.dataset.copy_of,
        "copy_kind": cell.dataset.copy_kind,
        "comparable": cell.dataset.comparable,
        "fingerprint": split.fingerprint,
        "class_names": list(split.class_names),
        "class_counts": split.class_counts.tolist(),
        "test_counts": np.bincount(split.test_labels, minlength=len(split.class_counts)).tolist(),
    }
    if split.extra is not None:
        described["extra_train"] = split.extra.describe()
    if not np.array_equal(split.epoch_counts, split.class_counts):
        described["epoch_counts"] = split.epoch_counts.tolist()
    return described


def describe_model(method: Method, images: torch.Tensor) -> dict[str, Any]:
    """Count the method's parameters, and those that its logits of a few images depend on."""
    method.eval()
    parameters = list(method.parameters())
    trainable = [p.requires_grad for p in parameters]
    method.requires_grad_(True)
    used = torch.autograd.grad(method(images).float().sum(), parameters, allow_unused=True)
    for parameter, was in zip(parameters, trainable, strict=True):
        parameter.requires_grad_(was)
    at_inference = sum(p.numel() for p, grad in zip(parameters, used, strict=True) if grad is not None)
    return {"parameters": count_parameters(method), "inference_parameters": at_inference}


def environment(device: str) -> dict[str, Any]:
    """Return versions, device name and revision of the code; no paths, no host name."""
    return {
        "git": revision(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else _cpu_name(),
        "threads": torch.get_num_threads(),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
