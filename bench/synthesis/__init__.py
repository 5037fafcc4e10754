"""Filling rare classes with images of a Stable Diffusion pipeline, reproducible image by image."""
