"""Shards: many images in few files, as disks read few large files faster than many small ones.

A shard is the start of each image and the end of the last one (int64, in bytes from the shard's start), then
the encoded images. `shards.json` is written last, when all shards are complete.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import ValidationError

from bench.cell import Count, Frozen
from bench.data.read.decoding import decode
from bench.data.read.lists import Listing
from bench.errors import BenchError
from bench.files import replacing, write_text

PER_SHARD = 2048
QUALITY = 95  # of a shrunk image's JPEG, with full colour resolution
NAME = "shards.json"


class ShardIndex(Frozen):
    """The content of `shards.json`.

    Attributes:
        short_side: to which the images were shrunk, if they were.
        sizes: of the shards in bytes.
        made_of: hash of the files' paths and sizes; None in older indices.
    """

    schema_version: Literal[1] = 1
    images: Count
    short_side: Count | None
    sizes: tuple[int, ...]
    made_of: str | None = None


@dataclass(frozen=True)
class Shards:
    """The packed images of one list."""

    folder: Path
    images: int

    def content(self, i: int) -> bytes:
        """Return the encoded bytes of an image by its index in the list."""
        number, within = divmod(int(i), PER_SHARD)
        with _shard(self.folder, number).open("rb", buffering=0) as file:
            file.seek(8 * within)
            start, stop = struct.unpack("<qq", file.read(16))
            file.seek(start)
            return file.read(stop - start)

    def lengths(self) -> np.ndarray:
        """Return the number of bytes (n,) int64 of each image."""
        starts = range(0, self.images, PER_SHARD)
        counts = [min(PER_SHARD, self.images - start) for start in starts]
        offsets = (
            np.fromfile(_shard(self.folder, number), "<i8", count + 1) for number, count in enumerate(counts)
        )
        return np.concatenate([*map(np.diff, offsets)]).astype(np.int64)


def folder_of(
    data_dir: Path, folder: str, listing: Listing, short_side: int | None, upright: bool = False
) -> Path:
    """Return the folder of a list's shards, which depends on the list and the size."""
    digest = hashlib.sha256(b"\0".join(os.path.basename(path) for path in listing.paths.tolist()))
    digest.update(listing.labels.astype("<i8").tobytes())
    if listing.hashes is not None:
        digest.update(listing.hashes.tobytes())
    kind = "original" if short_side is None else f"{short_side}{'-upright' * upright}"
    return data_dir / ".shards" / folder / f"{listing.file.stem}-{kind}-{digest.hexdigest()[:8]}"


def find(
    data_dir: Path, folder: str, listing: Listing, short_side: int | None, upright: bool = False
) -> Shards | None:
    """Return the shards of a list, None if there are none.

    Raises:
        BenchError: they are damaged.
    """
    home = folder_of(data_dir, folder, listing, short_side, upright)
    remedy = "delete this folder and run `data prepare` again"
    try:
        index = ShardIndex.model_validate_json((home / NAME).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise BenchError(f"{home / NAME}: damaged ({type(error).__name__}); {remedy}") from None
    for number, size in enumerate(index.sizes):
        shard = _shard(home, number)
        if not shard.is_file() or shard.stat().st_size != size:
            raise BenchError(f"{shard}: missing, or not of the {size:,} bytes it was written with; {remedy}")
    if index.images != len(listing) or len(index.sizes) != -(-len(listing) // PER_SHARD):
        raise BenchError(f"{home / NAME}: not of this list; {remedy}")
    return Shards(home, index.images)


def pack(
    files: Sequence[Path],
    home: Path,
    short_side: int | None,
    report: Callable[[int], None],
    workers: int,
    upright: bool = False,
    contents: Iterator[bytes] | None = None,
) -> int:
    """Write the shards of `files`, in this order, to the folder `home`, and return their size in bytes.

    Existing shards are kept, so packing may be stopped and continued.

    Args:
        report: is called with the number of images packed since its last call.
        contents: the encoded images, if these are inside larger files; then `files` only have their names.

    Raises:
        BenchError: an image is missing or broken, or the existing shards were packed from other files.
    """
    made_of = _made_of(files)
    if (home / NAME).is_file():
        before = ShardIndex.model_validate_json((home / NAME).read_bytes()).made_of
        if None not in (before, made_of) and before != made_of:
            raise BenchError(f"{home}: packed from other files than these; delete this folder, or keep it")
    sizes = []
    with ThreadPoolExecutor(workers) as pool:  # Pillow releases the GIL
        for number, start in enumerate(range(0, len(files), PER_SHARD)):
            some, shard = files[start : start + PER_SHARD], _shard(home, number)
            given: Iterable[bytes | None] = repeat(None) if contents is None else islice(contents, len(some))
            if not shard.exists():
                packed = pool.map(
                    lambda path, content: _encoded(path, content, short_side, upright, report), some, given
                )
                _write(shard, list(packed))
            else:
                deque(zip(some, given, strict=False), maxlen=0)  # skip the contents of a shard that exists
                report(len(some))
            sizes.append(shard.stat().st_size)
    index = ShardIndex(images=len(files), short_side=short_side, sizes=tuple(sizes), made_of=made_of)
    write_text(home / NAME, index.model_dump_json(indent=1) + "\n")
    return sum(sizes)


def _made_of(files: Sequence[Path]) -> str | None:
    """Hash the files' paths below their common folder, and their sizes; None if a file is missing."""
    if not all(file.is_file() for file in files):
        return None  # they may be deleted after packing
    start = len(os.path.commonpath(files))
    lines = (f"{str(file)[start:]}\0{file.stat().st_size}\0" for file in files)
    return hashlib.sha256(os.fsencode("".join(lines))).hexdigest()[:16]


def _encoded(
    path: Path, given: bytes | None, short_side: int | None, upright: bool, report: Callable[[int], None]
) -> bytes:
    """Return the encoded image, `given` or read from its file, shrunk if asked for."""
    try:
        content = path.read_bytes() if given is None else given
        if short_side is not None:
            content = _shrunk(content, short_side, upright)
    except Exception as error:  # the exception depends on the format
        raise BenchError(f"{path}: cannot be packed ({type(error).__name__}: {error}); replace it") from error
    report(1)
    return content


def _shrunk(content: bytes, short_side: int, upright: bool) -> bytes:
    image = decode(content, upright=upright)
    scale = short_side / min(image.size)
    if scale >= 1:
        return content
    width, height = (max(short_side, round(side * scale)) for side in image.size)
    shrunk = io.BytesIO()
    image = image.resize((width, height), Image.Resampling.BICUBIC)  # antialiased
    image.save(shrunk, "JPEG", quality=QUALITY, subsampling=0)
    return shrunk.getvalue()


def _write(shard: Path, contents: Sequence[bytes]) -> None:
    ends = 8 * (len(contents) + 1) + np.cumsum([0, *map(len, contents)])
    with replacing(shard) as temporary, temporary.open("wb") as file:
        file.write(ends.astype("<i8").tobytes())
        file.writelines(contents)


def _shard(folder: Path, number: int) -> Path:
    return folder / f"{number:05}.bin"
