"""Fill class folders with generated images that are good, going on from those that are there."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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

ATTEMPTS = 10  # at one image; then its prompt or the safety filter is to blame
LEAST_RANGE = 8  # of 255 levels: below, an image shows nothing

_Slot = tuple[str, int]  # a class and an index in it


@dataclass(frozen=True)
class _Job:
    """An image to make, and what was wrong with earlier attempts at it."""

    slot: _Slot
    faults: tuple[str, ...] = ()


def fill(
    folder: Path,
    wanted: Mapping[str, int],
    settings: Settings,
    paint: Paint,
    batch_size: int,
    tell: Callable[[str], None] = lambda name: None,
) -> dict[str, int]:
    """Bring every class to its wanted number of images, `<folder>/<class>/<index>.png`, and write a manifest.

    An image is a function of the settings, its class, its index and how many attempts at it failed; good
    ones that are there already stay. An image that is not finite, black or constant is not kept but tried
    again, from other noise. The prompt, and why attempts failed, stand in the PNG file.

    Args:
        paint: always gets `batch_size` prompts and seeds, as the size of a batch changes the last bits.
        tell: hears the class of each image that is there, made or given up.

    Returns:
        how many images were given up, by class.

    Raises:
        BenchError: the folder holds images that were made with other settings.
    """
    _check(folder, settings)
    slots = [(name, index) for name, number in wanted.items() for index in range(number)]
    kept: dict[_Slot, tuple[str, ...]] = {}
    lost: dict[_Slot, tuple[str, ...]] = {}
    for name in wanted:
        for path in (folder / name).glob("*.png"):
            if path.stem.isdecimal() and (faults := _faults_before(path, settings.image_size)) is not None:
                kept[name, int(path.stem)] = faults
    for name, _ in (slot for slot in slots if slot in kept):
        tell(name)

    manifest.write(folder, _manifest(settings, kept, lost))  # first: it says whose images these are
    queue = deque(_Job(slot) for slot in slots if slot not in kept)
    try:
        while queue:
            jobs = [queue.popleft() for _ in range(min(batch_size, len(queue)))]
            whole = jobs + jobs[-1:] * (batch_size - len(jobs))
            prompts = [prompt_of(settings.prompt, job.slot[0]) for job in whole]
            seeds = [seed_of("synthesis", settings.seed, *job.slot, len(job.faults)) for job in whole]
            for job, prompt, image in zip(jobs, prompts, paint(prompts, seeds), strict=False):
                pixels, fault = _finish(image, settings.image_size)
                if fault is None:
                    _save(_path(folder, job.slot), pixels, prompt, job.faults)
                    kept[job.slot] = job.faults
                    tell(job.slot[0])
                    continue
                job = replace(job, faults=(*job.faults, fault))
                if len(job.faults) < ATTEMPTS:
                    queue.append(job)
                else:
                    lost[job.slot] = job.faults
                    tell(job.slot[0])
    finally:
        manifest.write(folder, _manifest(settings, kept, lost))
    return dict(Counter(name for name, _ in lost))


def prompt_of(template: str, class_name: str) -> str:
    """Put a class's name into a prompt; an ImageNet id (n01440764) is said in words."""
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
    """Refuse to mix images of different making in one folder."""
    if next(folder.rglob("*.png"), None) is None:
        return
    there = manifest.read(folder)
    if there is None:
        raise BenchError(
            f"{folder}: holds images, but no {manifest.NAME} that says how they were made; give another --out"
        )
    for key, value in settings.model_dump().items():
        if (before := getattr(there.settings, key)) != value:
            raise BenchError(
                f"{folder / manifest.NAME}: made with {key} {before!r}, not {value!r}; give another --out"
            )


def _finish(image: np.ndarray, size: int) -> tuple[np.ndarray, str | None]:
    """Return an image as it is saved, and what is wrong with it."""
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
    """Return the faults of earlier attempts at an image that is there; None where it is not a good one."""
    try:
        with Image.open(path) as file:
            image: Any = file
            pixels = np.asarray(image)
            notes = image.text
    except Exception:  # what a decoder raises on a broken file is its own affair: the image is made anew
        return None
    good = pixels.shape == (size, size, 3) and _fault(pixels) is None
    return tuple(notes.get("filtered", "").split()) if good else None


def _manifest(
    settings: Settings, kept: Mapping[_Slot, tuple[str, ...]], lost: Mapping[_Slot, tuple[str, ...]]
) -> Manifest:
    images = Counter(name for name, _ in kept)
    filtered = Counter(fault for faults in (*kept.values(), *lost.values()) for fault in faults)
    return Manifest(
        settings=settings, images=dict(sorted(images.items())), filtered=dict(sorted(filtered.items()))
    )


def _path(folder: Path, slot: _Slot) -> Path:
    return folder / slot[0] / f"{slot[1]:05}.png"
