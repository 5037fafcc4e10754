"""LIFT and its kin on a ViT of two blocks."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from bench import backbones, registry
from bench.method import Batch

COUNTS = np.array([40, 5, 120, 12])


OPTIONS = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 48, "num_heads": 3}


tiny = partial(backbones.create, "vit_tiny_patch16_224", **OPTIONS)


def make(name="lift", backbone=tiny, counts=COUNTS, **params):
    entry = registry.find(name)
    return entry.build(backbone, counts, **entry.hyperparameters(**params).model_dump())


def batch_of(labels, side=32):
    return Batch((torch.randn(len(labels), 3, side, side),), torch.tensor(labels), torch.arange(len(labels)))
