"""Decoded images kept as plain arrays below the data directory, shared by all processes.

They are mapped into memory, so many processes start at once and share one copy. A cache belongs to the
names, sizes and times of the files it was made of; when these change, another is made.
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
    """Hash the names, sizes and times of files below `root`, which costs far less than reading them."""
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
    """Map the arrays called `names` from a cache folder, after filling it from `decode` where it is new.

    Where nothing can be written, the decoded arrays themselves are returned, every time anew.
    """
    if not _file(folder, names[-1]).exists():  # written last: with it the cache is whole
        arrays = decode()
        try:
            for name in names:
                with replacing(_file(folder, name)) as temporary, temporary.open("wb") as file:
                    np.save(file, arrays[name])
        except OSError:
            return arrays  # a read-only or full disk costs the time to decode, no more
    try:
        # copy-on-write: pages stay shared as nobody writes, and torch wants writable arrays
        return {name: np.load(_file(folder, name), mmap_mode="c") for name in names}
    except (OSError, ValueError, EOFError) as error:
        raise BenchError(
            f"{folder}: damaged cache ({error}); delete this folder, and it is made again"
        ) from error


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"
