"""Small methods and recipes for the tests of recipes, which depend on no real method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import pytest

import methods
from bench import registry
from bench.method import Method
from bench.recipe import Recipe, load

GRID = """\
grid:
  dataset: digits
  imbalance_factor: [10, 20]
  backbone: resnet8_cifar
  seed: [0, 1]
"""
SMALL = "methods: {plain: {}}\ngrid: {dataset: digits, imbalance_factor: 10, backbone: resnet8_cifar}\n"


class Plain(Method):
    """Two numbers and a list."""

    def __init__(
        self,
        *args: object,
        alpha: float = 1,
        scales: tuple[float, ...] = (),
        kind: Literal["soft", "hard"] = "soft",
    ) -> None: ...


class Tail(Method):
    """One number that may be absent."""

    def __init__(self, *args: object, gamma: float | None = None) -> None: ...


class Second(Method):
    """Starts from a trained cell."""

    needs_parent = True

    def __init__(self, *args: object, tau: float = 1.0) -> None: ...


@pytest.fixture(scope="module", autouse=True)
def fakes() -> Iterator[None]:
    """Let the registry hold these methods only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_specs", {})
        patch.setattr(methods, "__path__", [])
        for build in (Plain, Tail, Second):
            name = build.__name__.lower()
            registry.register(name, title=name, family="fake", venue="", year=2020, paper="")(build)
        yield


@pytest.fixture
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in an empty folder of recipes, so that errors name files shortly."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(text: str, sets: Sequence[str] = (), name: str = "r.yaml") -> Recipe:
    """Load a recipe given as text, from the current folder."""
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text, encoding="utf-8")
    return load(Path(name), sets)


def ids(recipe: Recipe) -> set[tuple[str, str]]:
    """Return what is to be run, without its order."""
    return {(point.label, point.cell.id) for point in recipe.points}
