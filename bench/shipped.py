"""Folders that are at the top of a checkout, and in this package in a wheel (see pyproject.toml)."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def _folder(in_wheel: str, in_checkout: str) -> Path:
    inside = _PACKAGE / in_wheel
    return inside if inside.is_dir() else _PACKAGE.parent / in_checkout


#: The published numbers of the literature.
LITERATURE = _folder("literature", "results/published")

#: The recipes of this project, in folders.
RECIPES = _folder("recipes", "recipes")
