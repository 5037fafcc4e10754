"""Images on disk, read one by one: from the files of a list, or from shards."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from bench.cell import DataSet
from bench.data.read.decoding import decode
from bench.data.read.lists import Listing
from bench.data.read.shards import Shards, find
from bench.errors import BenchError


@dataclass(frozen=True, eq=False)
class Pictures:
    """Some images of a data set, cheap to send to another process.

    Attributes:
        root: the folder of `paths`.
        paths: (n,) bytes.
        indices: (n,) of each image in its list, and so in the shards.
        upright: whether they are turned as their EXIF orientation says.
    """

    root: Path
    paths: np.ndarray
    indices: np.ndarray
    shards: Shards | None = None
    upright: bool = False

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, positions: np.ndarray) -> Pictures:
        """Return the images at some positions, in this order."""
        return replace(self, paths=self.paths[positions], indices=self.indices[positions])

    def file(self, position: int) -> Path:
        """Return the path of an image, which need not exist once it is packed."""
        return self.root / os.fsdecode(bytes(self.paths[position]))

    def open(self, position: int) -> Image.Image:
        """Decode an image to RGB in its own size.

        Raises:
            BenchError: it is missing or cannot be decoded.
        """
        path = self.file(position)
        try:
            content = path if self.shards is None else self.shards.content(self.indices[position])
            return decode(content, upright=self.upright)
        except Exception as error:  # the exception depends on the format
            where = path if self.shards is None else f"{path} in {self.shards.folder}"
            raise BenchError(
                f"{where}: not a readable image ({type(error).__name__}: {error}); replace it"
            ) from error

    def sizes(self) -> np.ndarray:
        """Return the bytes (n,) int64 of each image.

        Raises:
            BenchError: one is missing or empty.
        """
        if self.shards is not None:
            return self.shards.lengths()[self.indices]
        sizes = np.empty(len(self), np.int64)
        for position in range(len(self)):
            path = self.file(position)
            try:
                sizes[position] = os.stat(path).st_size
            except OSError as error:
                raise BenchError(f"{path}: {error.strerror}; `run_bench.py data check` lists all") from error
        for empty in np.flatnonzero(sizes == 0).tolist():
            raise BenchError(f"{self.file(empty)}: an empty file; replace it")
        return sizes

    def fingerprint(self, labels: np.ndarray) -> str:
        """Hash names, labels and sizes of the files to 16 hexadecimal digits.

        Hashing all pixels would take longer than many runs. Folders are left out, as the same lists are
        published for several layouts; images that were shrunk or saved again have other sizes.
        """
        digest = hashlib.sha256(b"files")
        names = [os.path.basename(path) for path in self.paths.tolist()]
        digest.update(b"\0".join(names))
        if self.upright:
            digest.update(b"upright")
        for array in (labels, self.sizes()):
            digest.update(array.astype("<i8").tobytes())
        return digest.hexdigest()[:16]


def pictures(dataset: DataSet, data_dir: Path, root: Path, listing: Listing) -> Pictures:
    """Return the images of a list: from shards with `dataset.short_side` if there are any, or its files.

    Raises:
        BenchError: the data set needs shards and there are none.
    """
    shards = find(data_dir, str(dataset.folder), listing, dataset.short_side, dataset.upright)
    name, side = dataset.name, dataset.short_side
    if shards is None and listing.hashes is not None:
        raise BenchError(
            f"{name}: images of {dataset.source} are streamed from shards; run `run_bench.py data prepare "
            f"{name} --recipe FILE`, where FILE is the recipe"
        )
    if shards is None and side is not None:
        raise BenchError(
            f"{name}: {listing.file.name} is not packed with short_side {side}; run `run_bench.py data "
            f"prepare {name} --recipe FILE --short-side {side}`, where FILE is the recipe"
        )
    return Pictures(root, listing.paths, np.arange(len(listing)), shards, dataset.upright)
