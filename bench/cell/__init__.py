"""A cell: one fully resolved point of a grid.

Its id is a hash of everything that can change its result, and of nothing else: no device, number of workers,
path or title.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field

from bench.cell.base import Count, Frozen, HeldOut, Name, Param, Positive, Scalar
from bench.cell.dataset import STANDARD, Columns, DataSet, ExtraTrain, ListFiles, Parts, ShotRule
from bench.cell.protocol import Averaging, Optimizer, Protocol, Schedule, Sharpness
from bench.json_text import hash_of

__all__ = [
    "STANDARD",
    "Averaging",
    "BackboneChoice",
    "Cell",
    "Columns",
    "Count",
    "DataSet",
    "ExtraTrain",
    "Frozen",
    "HeldOut",
    "ListFiles",
    "MethodChoice",
    "Name",
    "Optimizer",
    "Param",
    "Parts",
    "Positive",
    "Protocol",
    "Scalar",
    "Schedule",
    "Sharpness",
    "ShotRule",
    "families",
]


class MethodChoice(Frozen):
    """A registered method with all its hyper-parameters written out.

    `changed` names those that are not the method's defaults: only they enter the id.
    """

    name: Name
    version: Count = 1
    params: dict[str, Param] = Field({})
    changed: tuple[str, ...] = ()

    def identity(self) -> dict[str, Any]:
        changed = {name: self.params[name] for name in self.changed}
        return {"name": self.name, "version": self.version, "params": changed}


class BackboneChoice(Frozen):
    """A timm model name and the keyword arguments it is created with."""

    name: str
    options: dict[str, Param] = Field({})


class Cell(Frozen):
    """One point of a grid; `id` is its short hash, `run_id` the name of its run directory.

    It starts from `parent`, or from `parent` and `others`, in this order.
    """

    method: MethodChoice
    dataset: DataSet
    imbalance_factor: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    backbone: BackboneChoice
    protocol: Protocol
    seed: Annotated[int, Field(ge=0)] = 0
    mode: Literal["fast", "exact"] = "fast"
    parent: Cell | None = None
    others: tuple[Cell, ...] = ()

    @property
    def parents(self) -> tuple[Cell, ...]:
        """All cells that it starts from, in the recipe's order."""
        return () if self.parent is None else (self.parent, *self.others)

    @cached_property
    def id(self) -> str:
        """Ten hexadecimal digits of the hash of the canonical form, in which keys are sorted."""
        return hash_of(self.identity())[:10]

    @cached_property
    def run_id(self) -> str:
        """The run directory's name: readable axes, then the id, which alone identifies it."""
        axes = f"{self.dataset.name}-if{self.imbalance_factor:g}-{self.method.name}-s{self.seed}"
        return f"{axes}-{self.id}"

    def family(self) -> list[Cell]:
        """Return the ancestors and the cell, parents first: the order in which they train."""
        return [*(member for parent in self.parents for member in parent.family()), self]


def families(cells: Iterable[Cell]) -> dict[str, Cell]:
    """Return the cells and their ancestors by run id, parents first."""
    return {member.run_id: member for cell in cells for member in cell.family()}
