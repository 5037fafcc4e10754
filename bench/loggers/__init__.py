"""External loggers of runs: TensorBoard, Weights & Biases, MLflow, trackio.

A logger is written as `tensorboard` or `wandb:project=lt,mode=offline`: its name and its options, which are
the fields of its class. It works in a process of its own (see `bench.loggers.relay`), so that it cannot
affect a run, and it is not part of a cell.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

from bench.cell import Cell, Scalar
from bench.errors import BenchError, did_you_mean

#: The loggers, and the class of each in its module here.
KINDS = {"tensorboard": "TensorBoard", "wandb": "Wandb", "mlflow": "MLflow", "trackio": "Trackio"}

#: Selects no logger, whatever the recipe says.
NONE = "none"


@dataclass(frozen=True)
class Started:
    """A run that starts or continues, as a logger sees it.

    `group` is shared with the runs of other seeds. A `first_epoch` above 0 continues what was logged before.
    Local files go below `home`.
    """

    run_id: str
    group: str
    config: Mapping[str, Scalar]
    first_epoch: int
    home: Path


@dataclass
class Logger:
    """Logs one run; one object is made for each. What it raises ends the logging of that run, not the run."""

    #: The package that must be installed.
    package: ClassVar[str]

    def start(self, run: Started) -> None:
        """Start, or continue."""
        raise NotImplementedError

    def epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        """Log an epoch, counted from 0."""
        raise NotImplementedError

    def end(self, status: str, values: Mapping[str, float]) -> None:
        """Log the run's final status, as in its record, and its metrics if it is done."""
        raise NotImplementedError


@dataclass(frozen=True)
class Wanted:
    """A selected logger: its name, and its options as text."""

    name: str
    options: Mapping[str, str]

    @property
    def kind(self) -> type[Logger]:
        """The class of the logger."""
        return getattr(importlib.import_module(f"bench.loggers.{self.name}"), KINDS[self.name])

    def make(self) -> Logger:
        """Return a logger for one run."""
        return self.kind(**self.options)


def parse(text: str) -> Wanted:
    """Read `name` or `name:key=value,key=value`.

    Raises:
        BenchError: an unknown logger or option, or one that is not key=value.
    """
    name, _, rest = text.partition(":")
    if name not in KINDS:
        raise BenchError(f"unknown logger {name!r}{did_you_mean(name, KINDS)}")
    options = {}
    known = [field.name for field in fields(Wanted(name, {}).kind)]
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise BenchError(f"{part!r}: write {name}:key=value, with a comma between two")
        if key not in known:
            raise BenchError(f"{name} has no option {key!r}{did_you_mean(key, known)}")
        options[key] = value
    return Wanted(name, options)


def chosen(asked: Iterable[str] | None, recipe: Iterable[str] = ()) -> list[Wanted]:
    """Return the loggers of the command or else of the recipe; `none` means no logger.

    Raises:
        BenchError: a logger is unknown, or its package is not installed.
    """
    texts = list(asked or recipe)
    wanted = []
    for text in dict.fromkeys(texts) if texts != [NONE] else ():
        try:
            found = parse(text)
        except BenchError as error:
            raise BenchError(f"--log: {error}") from None
        if importlib.util.find_spec(found.kind.package) is None:
            remedy = f'pip install -e ".[{found.name}]", or run with --log {NONE}'
            raise BenchError(f"--log {found.name}: {found.kind.package} is not installed; {remedy}")
        wanted.append(found)
    return wanted


def describe(cell: Cell) -> dict[str, Scalar]:
    """Return a cell's settings under flat keys, with the names of its parents."""
    content: dict[str, object] = {
        "dataset": cell.dataset.name,
        "imbalance_factor": cell.imbalance_factor,
        "method": cell.method.name,
        "params": cell.method.params,
        "backbone": cell.backbone.name,
        "backbone.options": cell.backbone.options,
        "protocol": cell.protocol.model_dump(mode="json"),
        "seed": cell.seed,
        "mode": cell.mode,
        "parent": ", ".join(parent.run_id for parent in cell.parents) or None,
    }
    flat: dict[str, Scalar] = {}

    def put(key: str, value: object) -> None:
        if isinstance(value, dict):
            for name, item in value.items():
                put(f"{key}.{name}" if key else name, item)
        elif isinstance(value, list | tuple):
            flat[key] = ", ".join(map(str, value))
        elif value is not None:
            flat[key] = value  # type: ignore[assignment]

    put("", content)
    return flat
