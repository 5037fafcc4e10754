"""Augment whole batches of uint8 images, each image by its own row of tables drawn on the host.

A policy is drawn once per epoch with numpy and applied to tensors (B, 3, H, W) wherever they live: the
same bytes come out on CPU and GPU, and in batches of any size.
"""

from bench.data.augment.operations import crop_boxes
from bench.data.augment.policy import POLICIES, Policy, policy

__all__ = ["POLICIES", "Policy", "crop_boxes", "policy"]
