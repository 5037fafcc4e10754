"""timm and torchvision, importable beside any torch: everything takes them from here.

A CPU torch beside a CUDA-built torchvision is common: its C++ operators cannot load, and its import
dies with "operator torchvision::nms does not exist" (pytorch/vision#9085), and timm's with it. Declaring
the two operators it asks for is enough for data sets, transforms, models and timm. With matching wheels
nothing happens. This is not in `bench/__init__.py` because what only tells of results must not pay for
importing torch.
"""

from __future__ import annotations

import sys

import torch

_library: torch.library.Library | None = None  # its operators live as long as it does

try:
    import torchvision
except RuntimeError as error:
    if "operator torchvision::" not in str(error):
        raise
    for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    _library = torch.library.Library("torchvision", "FRAGMENT")
    _library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

import timm  # noqa: E402  (only after the remedy)

__all__ = ["timm", "torchvision"]
