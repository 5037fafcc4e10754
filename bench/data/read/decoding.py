"""The rules by which an image file becomes 8-bit RGB, for memory, disk and shards alike.

* **Grey, 16 bits**: the upper eight are kept, as Pillow does with 16-bit colour: 65535 becomes 255.
* **Grey, 32 bits, integer or float**: the range is not stored, so it is the smallest usual one that includes
  the image's largest value: 1 (float only), 255, 65535, 2^32 - 1. Negative and non-finite values are refused.
* **Transparency**, as alpha, in a palette or as one colour, is composed over white; opaque pixels keep their
  colours. Palettes, bilevel, CMYK, YCbCr, LAB and HSV are converted as Pillow does.
* **Animations and files of several pages**: the first frame is read.
* **EXIF orientation** is ignored, as torchvision and the published numbers do. Images of a data set with
  `orientation: exif` are turned as their files say.

A change of these rules raises `RULES`, so that caches of older pixels are not used.
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

#: Version of the rules, part of the key of cached pixels.
RULES = 2

ORIENTATION = 0x0112  # EXIF's tag

#: Image formats that Pillow may not read: errors, as to skip such files silently would change the counts.
FOREIGN = (".arw", ".avif", ".cr2", ".cr3", ".dcm", ".dng", ".exr", ".heic", ".heif", ".jxl", ".nef", ".svg")


@cache
def suffixes() -> frozenset[str]:
    """Return the suffixes, in lower case, of all image formats that this Pillow reads."""
    Image.init()
    return frozenset(end for end, kind in Image.registered_extensions().items() if kind in Image.OPEN)


def is_image(path: Path) -> bool:
    """Tell whether a file is an image, by its suffix or, if that is unknown, by its first bytes.

    Raises:
        BenchError: by its suffix it is an image that this Pillow does not read.
    """
    suffix = path.suffix.lower()
    if suffix in suffixes():
        return True
    if suffix in FOREIGN:
        raise BenchError(f"{path}: Pillow does not read {suffix} here; convert it, as to PNG, or remove it")
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path):
            return True
    except Exception:  # the exception depends on the format
        return False


def decode(content: Path | bytes, *, upright: bool = False) -> Image.Image:
    """Decode an image to RGB in its own size; `upright` turns it as its EXIF orientation says.

    Raises:
        Exception: the file is broken; the type depends on the format.
        ValueError: the rules refuse its values.
    """
    with Image.open(_openable(content)) as file:
        image = to_rgb(file)
        if upright:
            image.info["exif"] = file.getexif().tobytes()
            image = ImageOps.exif_transpose(image)
        return image


def peculiarity(content: Path | bytes, *, upright: bool = False) -> str:
    """Return what the rules ignore in a readable image and its owner may not know; "" if nothing."""
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
        raise ValueError(
            f"mode {image.mode} with values from {values.min()} to {values.max()}; "
            "save it as 8- or 16-bit grey"
        )
    most = values.max()
    if image.mode.startswith("I;") or image.format in ("PNG", "PPM"):  # these have a known range
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
