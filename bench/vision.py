"""timm and torchvision, importable with any torch; all code imports them from here.

A CPU torch with a CUDA-built torchvision is common. torchvision's C++ operators then cannot load, and its
import fails with "operator torchvision::nms does not exist" (pytorch/vision#9085), as does timm's. Declaring
the two missing operators is enough for data sets, transforms, models and timm. With matching wheels this does
nothing. It is not in `bench/__init__.py`, because the reporting side must not import torch.
"""

from __future__ import annotations

import sys

import torch

_library: torch.library.Library | None = None  # it must stay alive for its operators

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

import timm  # noqa: E402  (after the fix)

__all__ = ["timm", "torchvision"]
