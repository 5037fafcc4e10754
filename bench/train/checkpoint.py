"""Checkpoints, from which a killed run continues as if it had not been killed."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save

from bench.cell import Cell
from bench.errors import BenchError
from bench.files import write_bytes
from bench.method import Method
from bench.rundir import RunDir
from bench.train.build import build

_DIGEST = 32  # bytes of sha256, after the payload


def write_checkpoint(path: Path, cell_id: str, state: dict[str, Any]) -> None:
    """Write a checkpoint with its cell's id and a checksum."""
    buffer = io.BytesIO()
    torch.save({"cell": cell_id, **state}, buffer)
    payload = buffer.getvalue()
    write_bytes(path, payload + hashlib.sha256(payload).digest())


def read_checkpoint(path: Path, cell_id: str, device: str) -> dict[str, Any] | None:
    """Return a checkpoint's state, or None where there is none.

    Raises:
        BenchError: it is damaged, or of another cell. The checksum is checked before unpickling.
    """
    if not path.exists():
        return None
    content = path.read_bytes()
    payload, digest = content[:-_DIGEST], content[-_DIGEST:]
    if hashlib.sha256(payload).digest() != digest:
        raise BenchError(f"{path}: damaged checkpoint (checksum differs); delete it and the run starts over")
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
        owner = state.pop("cell")
    except (UnpicklingError, EOFError, AttributeError, KeyError, TypeError) as error:
        raise BenchError(f"{path}: no checkpoint of ours; delete it and the run starts over") from error
    if owner != cell_id:
        raise BenchError(f"{path}: checkpoint of another cell; delete it and the run starts over")
    return state


def write_weights(path: Path, method: Method) -> str:
    """Write a method's state as safetensors and return the file's sha256."""
    payload = save({name: t.detach().cpu().contiguous() for name, t in method.state_dict().items()})
    write_bytes(path, payload)
    return hashlib.sha256(payload).hexdigest()


def restored(run: RunDir, cell: Cell, record: Mapping[str, Any]) -> Method:
    """Build a finished run's method, with its weights.

    Raises:
        BenchError: the weights are missing or damaged, or the method is now of another version.
    """
    counts = record["data"].get("epoch_counts", record["data"]["class_counts"])
    method = build(cell, np.array(counts))
    read_weights(run.weights, method, record["files"][run.weights.name])
    return method


def read_weights(path: Path, method: Method, sha256: str) -> None:
    """Load a weights file into a method built for the same cell.

    Raises:
        BenchError: the file is missing or damaged, or holds another method's state.
    """
    if not path.exists():
        raise BenchError(f"{path}: no weights there; train the run again (rerun keeps its cell)")
    payload = path.read_bytes()
    if hashlib.sha256(payload).hexdigest() != sha256:
        raise BenchError(f"{path}: damaged weights (checksum differs from the record); rerun the run")
    try:
        method.load_state_dict(load(payload))
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise BenchError(f"{path}: not the weights of {type(method).__name__}: {reason}") from error
