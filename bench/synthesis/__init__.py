"""Filling rare classes with images that a Stable Diffusion pipeline makes, image by image the same again."""
