"""Fill class folders with generated images, keeping good ones that exist."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from bench.data.read.folder import fit
from bench.data.split import manifest
from bench.data.split.manifest import Manifest, Settings
from bench.errors import BenchError
from bench.files import replacing
from bench.randomness import seed_of

#: Makes images (B, H, W, 3), float from 0 to 1, from prompts and seeds.
Paint = Callable[[Sequence[str], Sequence[int]], np.ndarray]

ATTEMPTS = 10  # at one image, after which its prompt or the safety filter must be the cause
LEAST_RANGE = 8  # of 255 levels: an image below it is black or constant

_ImageId = tuple[str, int]  # a class and an index in it


@dataclass(frozen=True)
class _Attempt:
    """An image to make, and the faults of earlier attempts."""

    image: _ImageId
    faults: tuple[str, ...] = ()


def fill(
    folder: Path,
    wanted: Mapping[str, int],
    settings: Settings,
    paint: Paint,
    batch_size: int,
    report: Callable[[str], None] = lambda name: None,
) -> dict[str, int]:
    """Fill every class up to the wanted number of images, `<folder>/<class>/<index>.png`; write a manifest.

    An image is a function of the settings, its class, its index and the number of failed attempts; existing
    good images are kept. A non-finite, black or constant image is discarded and made again from other noise.
    The PNG file stores the prompt and the faults of failed attempts.

    Args:
        paint: always gets `batch_size` prompts and seeds, as the size of a batch changes the last bits.
        report: is called with the class of each image that exists, was made or was given up.

    Returns:
        number of images given up, by class.

    Raises:
        BenchError: the folder has images that were made with other settings.
    """
    _check(folder, settings)
    images = [(name, index) for name, number in wanted.items() for index in range(number)]
    kept: dict[_ImageId, tuple[str, ...]] = {}
    lost: dict[_ImageId, tuple[str, ...]] = {}
    for name in wanted:
        for path in (folder / name).glob("*.png"):
            if path.stem.isdecimal() and (faults := _faults_before(path, settings.image_size)) is not None:
                kept[name, int(path.stem)] = faults
    for name, _ in (image for image in images if image in kept):
        report(name)

    manifest.write(folder, _manifest(settings, kept, lost))  # before any image, which it describes
    queue = deque(_Attempt(image) for image in images if image not in kept)
    try:
        while queue:
            batch = [queue.popleft() for _ in range(min(batch_size, len(queue)))]
            padded = batch + batch[-1:] * (batch_size - len(batch))
            prompts = [prompt_of(settings.prompt, one.image[0]) for one in padded]
            seeds = [seed_of("synthesis", settings.seed, *one.image, len(one.faults)) for one in padded]
            for one, prompt, painted in zip(batch, prompts, paint(prompts, seeds), strict=False):
                pixels, fault = _finish(painted, settings.image_size)
                if fault is None:
                    _save(_path(folder, one.image), pixels, prompt, one.faults)
                    kept[one.image] = one.faults
                elif len(faults := (*one.faults, fault)) < ATTEMPTS:
                    queue.append(_Attempt(one.image, faults))
                    continue
                else:
                    lost[one.image] = faults
                report(one.image[0])
    finally:
        manifest.write(folder, _manifest(settings, kept, lost))
    return dict(Counter(name for name, _ in lost))


def prompt_of(template: str, class_name: str) -> str:
    """Insert a class's name into a prompt; an ImageNet id (n01440764) is replaced by its name."""
    return template.replace("{class}", _words(class_name))


def _words(name: str) -> str:
    if re.fullmatch(r"n\d{8}", name):
        name = _imagenet().get(name, name)
    return name.replace("_", " ")


@cache
def _imagenet() -> dict[str, str]:
    """Return the first word for each ImageNet id."""
    from bench.vision import timm

    known = timm.data.imagenet_info.ImageNetInfo("imagenet-22k")
    return {name: known.label_name_to_description(name).partition(",")[0] for name in known.label_names()}


def _check(folder: Path, settings: Settings) -> None:
    """Refuse to mix images of different settings in one folder."""
    if next(folder.rglob("*.png"), None) is None:
        return
    found = manifest.read(folder)
    if found is None:
        raise BenchError(
            f"{folder}: has images, but no {manifest.NAME} with their settings; give another --out"
        )
    for key, value in settings.model_dump().items():
        if (before := getattr(found.settings, key)) != value:
            raise BenchError(
                f"{folder / manifest.NAME}: made with {key} {before!r}, not {value!r}; give another --out"
            )


def _finish(image: np.ndarray, size: int) -> tuple[np.ndarray, str | None]:
    """Return the pixels to save, and the fault of the image, if any."""
    if not np.isfinite(image).all():
        return image, "broken"
    pixels = np.rint(image.clip(0, 1) * 255).astype(np.uint8)
    pixels = np.asarray(fit(Image.fromarray(pixels), size))
    return pixels, _fault(pixels)


def _fault(pixels: np.ndarray) -> str | None:
    if pixels.max() < LEAST_RANGE:
        return "black"
    return "constant" if np.ptp(pixels, axis=(0, 1)).max() < LEAST_RANGE else None


def _save(path: Path, pixels: np.ndarray, prompt: str, faults: tuple[str, ...]) -> None:
    notes = PngImagePlugin.PngInfo()
    notes.add_text("prompt", prompt)
    notes.add_text("filtered", " ".join(faults))
    with replacing(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", pnginfo=notes)


def _faults_before(path: Path, size: int) -> tuple[str, ...] | None:
    """Return the faults of earlier attempts at an existing image; None if it is not good."""
    try:
        with Image.open(path) as file:
            image: Any = file
            pixels = np.asarray(image)
            notes = image.text
    except Exception:  # a broken file, whose exception depends on the decoder: the image is made again
        return None
    good = pixels.shape == (size, size, 3) and _fault(pixels) is None
    return tuple(notes.get("filtered", "").split()) if good else None


def _manifest(
    settings: Settings, kept: Mapping[_ImageId, tuple[str, ...]], lost: Mapping[_ImageId, tuple[str, ...]]
) -> Manifest:
    images = Counter(name for name, _ in kept)
    filtered = Counter(fault for faults in (*kept.values(), *lost.values()) for fault in faults)
    return Manifest(
        settings=settings, images=dict(sorted(images.items())), filtered=dict(sorted(filtered.items()))
    )


def _path(folder: Path, image: _ImageId) -> Path:
    return folder / image[0] / f"{image[1]:05}.png"
