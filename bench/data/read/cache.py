"""Decoded images cached as arrays below the data directory, shared by all processes.

They are memory-mapped, so processes start at once and share one copy. The key of a cache is a hash of the
names, sizes and times of the files; when these change, another cache is made.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from bench.errors import BenchError
from bench.files import replacing

Arrays = dict[str, np.ndarray]


def key_of(root: Path, files: Iterable[Path], *salt: object) -> str:
    """Hash the names, sizes and times of files below `root`, without reading them."""
    digest = hashlib.sha256(repr(salt).encode())
    start = len(str(root))
    for path in files:
        try:
            stat = path.stat()
        except OSError as error:
            raise BenchError(f"{path}: {error.strerror}; replace or remove it") from error
        digest.update(os.fsencode(f"{str(path)[start:]}\0{stat.st_size}\0{stat.st_mtime_ns}\0"))
    return digest.hexdigest()[:16]


def through_cache(folder: Path, names: tuple[str, ...], decode: Callable[[], Arrays]) -> Arrays:
    """Map the arrays `names` from a cache folder, after filling a new one from `decode`.

    Where nothing can be written, the arrays are decoded every time.
    """
    if not _file(folder, names[-1]).exists():  # written last, when the cache is complete
        arrays = decode()
        try:
            for name in names:
                with replacing(_file(folder, name)) as temporary, temporary.open("wb") as file:
                    np.save(file, arrays[name])
        except OSError:
            return arrays  # a read-only or full disk
    try:
        # copy-on-write: torch needs writable arrays, and pages stay shared as nothing writes to them
        return {name: np.load(_file(folder, name), mmap_mode="c") for name in names}
    except (OSError, ValueError, EOFError) as error:
        raise BenchError(
            f"{folder}: damaged cache ({error}); delete this folder, and it is made again"
        ) from error


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"
