"""Augmentation of batches of uint8 images, each image by its own row of tables drawn on the host.

The tables of a policy are drawn once per epoch with NumPy and applied to tensors (B, 3, H, W) on any device:
CPU and GPU, and batches of any size, give the same bytes.
"""

from bench.data.augment.operations import crop_boxes
from bench.data.augment.policy import POLICIES, Policy, policy

__all__ = ["POLICIES", "Policy", "crop_boxes", "policy"]
