"""Scoring a trained method on its test set."""

from __future__ import annotations

import numpy as np
import torch

from bench.data.loader import Loader
from bench.method import Method


@torch.inference_mode()
def test_scores(method: Method, loader: Loader) -> np.ndarray:
    """Return the scores of the test set, (N, C) float16, in its order.

    Every metric is computed from these rounded scores, so that all can be redone from what is stored.
    """
    method.eval()
    return torch.cat([method(images).half().cpu() for images, _ in loader.test()]).numpy()
