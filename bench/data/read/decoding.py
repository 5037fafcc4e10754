"""How an image file becomes 8-bit RGB: decided here alone, for memory, disk and shards alike.

* **Grey of 16 bits** keeps its upper eight, as Pillow itself does with 16-bit colour: 65535 becomes 255.
* **Grey of 32 bits, whole or floating**, says nothing of its range. The smallest usual one that holds the
  image's largest value is taken: 1 (floating only), 255, 65535, 2^32 - 1. Values below 0, and such as are not
  finite, are refused.
* **Transparency** is laid over white, whether it comes as alpha, of a palette, or as one colour; what is
  opaque keeps its colours. Palettes, bilevel, CMYK, YCbCr, LAB and HSV are converted as Pillow does.
* **Of an animation or a file of several pages** the first is read.
* **EXIF orientation** is ignored, as torchvision and the published numbers do: pixels are as they are stored.
  A data set with `orientation: exif` is turned as its files say.

What is decoded otherwise than before gets another `RULES`, so that no cache of older pixels is taken for it.
"""

from __future__ import annotations

import io
import os
import warnings
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from bench.errors import BenchError

#: Rises when an image is decoded otherwise than before; caches of pixels carry it.
RULES = 2

ORIENTATION = 0x0112  # EXIF's tag

#: Images that not every Pillow reads, if any does: to leave them out unasked would move the counts.
FOREIGN = (".arw", ".avif", ".cr2", ".cr3", ".dcm", ".dng", ".exr", ".heic", ".heif", ".jxl", ".nef", ".svg")


@cache
def suffixes() -> frozenset[str]:
    """Return the suffixes, in small letters, of all files that this Pillow reads as images."""
    Image.init()
    return frozenset(end for end, kind in Image.registered_extensions().items() if kind in Image.OPEN)


def is_image(path: Path) -> bool:
    """Tell whether a file is an image: by its suffix, or, where that says nothing, by how it begins.

    Raises:
        BenchError: it is an image by its suffix, but of a kind that this Pillow does not read.
    """
    suffix = path.suffix.lower()
    if suffix in suffixes():
        return True
    if suffix in FOREIGN:
        raise BenchError(f"{path}: Pillow does not read {suffix} here; convert it, to PNG say, or remove it")
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path):
            return True
    except Exception:  # whatever a decoder says of it
        return False


def decode(content: Path | bytes, *, upright: bool = False) -> Image.Image:
    """Decode an image to RGB, in its own size; `upright` turns it as its EXIF orientation says.

    Raises:
        Exception: what Pillow raises on a broken file, which depends on the format.
        ValueError: its values have no place in 8 bits by the rules above.
    """
    with Image.open(_openable(content)) as file:
        image = to_rgb(file)
        if upright:
            image.info["exif"] = file.getexif().tobytes()
            image = ImageOps.exif_transpose(image)
        return image


def peculiar(content: Path | bytes, *, upright: bool = False) -> str:
    """Say what of a readable image a rule passes over that its owner may not know of; "" if nothing."""
    with Image.open(_openable(content)) as file:
        if getattr(file, "n_frames", 1) > 1:
            return "of several frames, of which the first is read"
        if not upright and file.getexif().get(ORIENTATION, 1) != 1:
            return "turned by EXIF, which is ignored without orientation: exif"
        if file.mode.startswith("I;") and np.asarray(file).max() < 4096:
            return "of 16 bits but below 4096, so nearly black; scale them to 65535"
    return ""


def _openable(content: Path | bytes) -> io.BytesIO | bytes:
    return io.BytesIO(content) if isinstance(content, bytes) else os.fsencode(content)


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an open image as RGB, by the rules above."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return _grey(image).convert("RGB")
    if image.has_transparency_data:
        over = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    return image.convert("RGB")


def _grey(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if not np.isfinite(values).all() or values.min() < 0:
        told = f"mode {image.mode} with values from {values.min()} to {values.max()}"
        raise ValueError(f"{told}; save it as 8- or 16-bit grey")
    most = values.max()
    if image.mode.startswith("I;") or image.format in ("PNG", "PPM"):  # their range is known, however dark
        shades = (values.astype(np.uint32) >> 8).astype(np.uint8)
        if "transparency" in image.info:
            shades[values == image.info["transparency"]] = 255
    elif image.mode == "F" and most <= 1:
        shades = np.rint(values * 255).astype(np.uint8)
    elif most <= 255:
        return image.convert("L")
    elif most < 2**32:
        shades = (values.astype(np.uint32) >> (8 if most < 2**16 else 24)).astype(np.uint8)
    else:
        raise ValueError(f"mode {image.mode} with values up to {most}; save it as 8- or 16-bit grey")
    return Image.fromarray(shades)
