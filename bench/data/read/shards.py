"""Shards: many images in few files, because disks read few large files faster than many small ones.

A shard is the beginnings of its images and the end of the last (int64, from the shard's first byte on), then
their encoded bytes. `shards.json` is written last: with it all shards are whole.
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


class Manifest(Frozen):
    """What was packed: how many images, shrunk to which shorter side, and the shards' sizes in bytes.

    `made_of` is a hash of the files' paths and sizes, which older ones have not.
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

    def content(self, place: int) -> bytes:
        """Return the encoded bytes of an image by its place in the list."""
        number, within = divmod(int(place), PER_SHARD)
        with _shard(self.folder, number).open("rb", buffering=0) as file:
            file.seek(8 * within)
            start, stop = struct.unpack("<qq", file.read(16))
            file.seek(start)
            return file.read(stop - start)

    def lengths(self) -> np.ndarray:
        """Return the number of bytes (n,) int64 of each image."""
        starts = range(0, self.images, PER_SHARD)
        counts = [min(PER_SHARD, self.images - start) for start in starts]
        offsets = [
            np.fromfile(_shard(self.folder, number), "<i8", count + 1) for number, count in enumerate(counts)
        ]
        return np.concatenate([np.diff(some) for some in offsets]).astype(np.int64)


def place_of(
    data_dir: Path, folder: str, listing: Listing, short_side: int | None, upright: bool = False
) -> Path:
    """Return the folder of a list's shards; another list, or another size, has another one."""
    digest = hashlib.sha256(b"\0".join(os.path.basename(path) for path in listing.paths.tolist()))
    digest.update(listing.labels.astype("<i8").tobytes())
    if listing.hashes is not None:
        digest.update(listing.hashes.tobytes())
    kind = "original" if short_side is None else f"{short_side}{'-upright' * upright}"
    return data_dir / ".shards" / folder / f"{listing.file.stem}-{kind}-{digest.hexdigest()[:8]}"


def find(
    data_dir: Path, folder: str, listing: Listing, short_side: int | None, upright: bool = False
) -> Shards | None:
    """Return the shards of a list, None where there are none.

    Raises:
        BenchError: they are damaged.
    """
    place = place_of(data_dir, folder, listing, short_side, upright)
    remedy = "delete this folder and run `data prepare` again"
    try:
        manifest = Manifest.model_validate_json((place / NAME).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise BenchError(f"{place / NAME}: damaged ({type(error).__name__}); {remedy}") from None
    for number, size in enumerate(manifest.sizes):
        shard = _shard(place, number)
        if not shard.is_file() or shard.stat().st_size != size:
            raise BenchError(f"{shard}: missing, or not of the {size:,} bytes it was written with; {remedy}")
    if manifest.images != len(listing) or len(manifest.sizes) != -(-len(listing) // PER_SHARD):
        raise BenchError(f"{place / NAME}: not of this list; {remedy}")
    return Shards(place, manifest.images)


def pack(
    files: Sequence[Path],
    place: Path,
    short_side: int | None,
    report: Callable[[int], None],
    workers: int,
    upright: bool = False,
    contents: Iterator[bytes] | None = None,
) -> int:
    """Write the shards of `files`, in this order, and return their size in bytes.

    Shards that are there are kept, so it may be stopped and goes on. Each image is `report`ed as 1. Where
    images are inside of larger files, `files` name them and `contents` yields their encoded bytes.

    Raises:
        BenchError: an image is missing or broken, or what is there was packed from other files.
    """
    made_of = _made_of(files)
    if (place / NAME).is_file():
        before = Manifest.model_validate_json((place / NAME).read_bytes()).made_of
        if None not in (before, made_of) and before != made_of:
            raise BenchError(f"{place}: packed from other files than these; delete this folder, or keep it")
    sizes = []
    with ThreadPoolExecutor(workers) as pool:  # Pillow lets go of the interpreter while it works
        for number, start in enumerate(range(0, len(files), PER_SHARD)):
            some, shard = files[start : start + PER_SHARD], _shard(place, number)
            given: Iterable[bytes | None] = repeat(None) if contents is None else islice(contents, len(some))
            if not shard.exists():
                packed = pool.map(
                    lambda path, content: _encoded(path, content, short_side, upright, report), some, given
                )
                _write(shard, list(packed))
            else:
                deque(zip(some, given, strict=False), maxlen=0)  # what is packed already is passed over
                report(len(some))
            sizes.append(shard.stat().st_size)
    manifest = Manifest(images=len(files), short_side=short_side, sizes=tuple(sizes), made_of=made_of)
    write_text(place / NAME, manifest.model_dump_json(indent=1) + "\n")
    return sum(sizes)


def _made_of(files: Sequence[Path]) -> str | None:
    """Hash where files are, below what they have in common, and their sizes; None if one is gone."""
    if not all(file.is_file() for file in files):
        return None  # as after packing they may be
    start = len(os.path.commonpath(files))
    lines = (f"{str(file)[start:]}\0{file.stat().st_size}\0" for file in files)
    return hashlib.sha256(os.fsencode("".join(lines))).hexdigest()[:16]


def _encoded(
    path: Path, given: bytes | None, short_side: int | None, upright: bool, report: Callable[[int], None]
) -> bytes:
    """Return a file's bytes, or those that are given, or those of the image shrunk."""
    try:
        content = path.read_bytes() if given is None else given
        if short_side is not None:
            content = _shrunk(content, short_side, upright)
    except Exception as error:  # what a decoder raises on a broken file depends on the format
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
    image = image.resize((width, height), Image.Resampling.BICUBIC)  # Pillow's is antialiased
    image.save(shrunk, "JPEG", quality=QUALITY, subsampling=0)
    return shrunk.getvalue()


def _write(shard: Path, contents: Sequence[bytes]) -> None:
    ends = 8 * (len(contents) + 1) + np.cumsum([0, *map(len, contents)])
    with replacing(shard) as temporary, temporary.open("wb") as file:
        file.write(ends.astype("<i8").tobytes())
        file.writelines(contents)


def _shard(folder: Path, number: int) -> Path:
    return folder / f"{number:05}.bin"
