"""Compares batched augmentation with Pillow image by image: the same bytes, and the CPU times.

All three sides end in normalised float tensors. `papers`: the transforms of the papers' code, torchvision's
(timm's for RandAugment) on Pillow images. `Pillow`: only the Pillow calls, with numbers drawn before, for the
same bytes as `batched`, which is this package, with drawing. On one thread; each time is the median CPU time
of interleaved rounds; the photographs are scikit-learn's two, cut into patches.

    python benchmarks/augment.py
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from sklearn.datasets import load_sample_images

from bench.data.augment import POLICIES, automatic, operations
from bench.vision import timm, torchvision

Row = Mapping[str, Any]
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def photographs(n: int, size: int) -> np.ndarray:
    """Cut `n` patches (n, size, size, 3) out of two photographs, the same at each call."""
    photos, rng = load_sample_images().images, np.random.default_rng(0)
    height, width = photos[0].shape[:2]
    y, x = rng.integers(height - size, size=n), rng.integers(width - size, size=n)
    return np.stack([photos[i % 2][y[i] :, x[i] :][:size, :size] for i in range(n)])


# -- Pillow's side: one image and its row of the tables --------------------------------------------
def crop(image: Image.Image, row: Row) -> Image.Image:
    size, border = image.width, image.width // 8
    bordered = ImageOps.expand(image, border)
    return bordered.crop((row["left"], row["top"], row["left"] + size, row["top"] + size))


def flip(image: Image.Image, row: Row) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if row["chosen"] else image


def affine(image: Image.Image, matrix: Any, resample: int, fill: tuple[int, ...]) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, tuple(matrix), resample, fillcolor=fill)


def jitter(image: Image.Image, row: Row) -> Image.Image:
    for kind in row["order"]:
        if kind == 4:
            image = hue(image, int(row["values"][3]))
        elif kind:
            enhance = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[kind - 1]
            image = enhance(image).enhance(row["values"][kind - 1])
    return image


def hue(image: Image.Image, shift: int) -> Image.Image:
    h, s, v = image.convert("HSV").split()
    turned = Image.fromarray(np.asarray(h) + np.array(shift).astype(np.uint8))
    return Image.merge("HSV", (turned, s, v)).convert("RGB")


COLOURS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "brightness": lambda image, value: ImageEnhance.Brightness(image).enhance(value),
    "color": lambda image, value: ImageEnhance.Color(image).enhance(value),
    "contrast": lambda image, value: ImageEnhance.Contrast(image).enhance(value),
    "equalize": lambda image, _: ImageOps.equalize(image),
    "posterize": lambda image, value: ImageOps.posterize(image, int(value)),
    "sharpness": lambda image, value: ImageEnhance.Sharpness(image).enhance(value),
    "solarize": lambda image, value: ImageOps.solarize(image, value),
    "solarize_add": lambda image, value: image.point(
        [min(255, level + int(value)) if level < 128 else level for level in range(256)] * 3
    ),
}


def two_of(kinds: list[str], fill: tuple[int, ...]) -> Callable[[Image.Image, Row], Image.Image]:
    how = {
        "move": Image.Resampling.NEAREST,
        "linear": Image.Resampling.BILINEAR,
        "cubic": Image.Resampling.BICUBIC,
        "shear_y": Image.Resampling.BICUBIC,
    }

    def apply(image: Image.Image, row: Row) -> Image.Image:
        for kind, numbers in zip(row["kind"], row["numbers"], strict=True):
            name = kinds[kind]
            if name in how:
                image = affine(image, numbers, how[name], fill)
            elif name != "keep":
                image = COLOURS[name](image, numbers[0])
        return image

    return apply


def cutout(image: Image.Image, row: Row) -> Image.Image:
    half, image = image.width // 4, image.copy()
    y, x = int(row["y"]), int(row["x"])
    image.paste((0, 0, 0), (max(x - half, 0), max(y - half, 0), x + half, y + half))
    return image


PILLOW: dict[str, Callable[[Image.Image, Row], Image.Image]] = {
    "crop": crop,
    "flip": flip,
    "rotation": lambda image, row: affine(image, row["matrix"], 0, (0, 0, 0)),
    "resizedcrop": lambda image, row: image.crop(tuple(row["box"])).resize(
        image.size, Image.Resampling.BILINEAR
    ),
    "minimalcrop": lambda image, row: image.crop(tuple(row["box"])).resize(
        image.size, Image.Resampling.BILINEAR
    ),
    "jitter": jitter,
    "grayscale": lambda image, row: image.convert("L").convert("RGB") if row["chosen"] else image,
    "blur": lambda image, row: (
        image.filter(ImageFilter.GaussianBlur(float(row["radius"]))) if row["chosen"] else image
    ),
    "cutout": cutout,
    "autoaugment": two_of(list(automatic.AUTOAUGMENT), (128, 128, 128)),
    "randaugment": two_of(list(automatic.RANDAUGMENT), (124, 116, 104)),
}


def pillow(name: str, images: np.ndarray, tables: Mapping[str, np.ndarray]) -> list[Image.Image]:
    """Apply the policy image by image."""
    policy = POLICIES[name]
    steps = []
    for op in (*policy.geometry_ops, *policy.colour_ops):
        start = f"{type(op).__name__.lower()}."
        own = {k.removeprefix(start): v for k, v in tables.items() if k.startswith(start)}
        steps.append((PILLOW[start[:-1]], own))
    results = []
    for i, pixels in enumerate(images):
        image = Image.fromarray(pixels)
        for apply, rows in steps:
            image = apply(image, {key: values[i] for key, values in rows.items()})
        results.append(image)
    return results


def difference(name: str, images: np.ndarray, batch_size: int) -> tuple[float, int]:
    """Return the share of bytes that differ between both sides, and the largest difference."""
    tables = POLICIES[name].draw(np.random.default_rng(1), len(images), images.shape[1])
    theirs = np.stack([np.asarray(image) for image in pillow(name, images, tables)])
    ours = torch.cat(list(batched(name, images_of(images), tables, batch_size)))
    gap = np.abs(ours.permute(0, 2, 3, 1).numpy().astype(int) - theirs)
    return float((gap > 0).mean()), int(gap.max())


def images_of(photos: np.ndarray) -> torch.Tensor:
    """Convert (n, H, W, 3) to a run's images in memory, (n, 3, H, W)."""
    return torch.from_numpy(photos).permute(0, 3, 1, 2).contiguous()


def batched(
    name: str, images: torch.Tensor, tables: Mapping[str, np.ndarray], batch_size: int
) -> Iterator[torch.Tensor]:
    """Apply the policy batch by batch."""
    rows = {key: torch.from_numpy(table) for key, table in tables.items()}
    for part in torch.arange(len(images)).split(batch_size):
        step = slice(int(part[0]), int(part[-1]) + 1)
        yield POLICIES[name].apply(images[step], {key: t[step] for key, t in rows.items()})


# -- the papers' side -------------------------------------------------------------------------------
def papers(name: str, size: int) -> Callable[[Image.Image], torch.Tensor]:
    """Return a policy as the transforms of the papers' code."""
    transforms = torchvision.transforms
    ops = [*POLICIES[name].geometry_ops, *POLICIES[name].colour_ops]
    on_tensors = [HoleInTensor(size // 4) for op in ops if isinstance(op, operations.Cutout)]
    on_images = [as_transform(op, size) for op in ops if not isinstance(op, operations.Cutout)]
    normalize = transforms.Normalize(MEAN, STD)
    return transforms.Compose([*on_images, transforms.ToTensor(), *on_tensors, normalize])


def as_transform(op: Any, size: int) -> Callable[[Any], Any]:
    transforms = torchvision.transforms
    match op:
        case operations.Crop():
            return transforms.RandomCrop(size, padding=size // 8)
        case operations.Flip():
            return transforms.RandomHorizontalFlip()
        case operations.Rotation():
            return transforms.RandomRotation(op.degrees)
        case operations.ResizedCrop():
            return transforms.RandomResizedCrop(size, scale=op.scale)
        case operations.Jitter():
            jitter = transforms.ColorJitter(op.strength, op.strength, op.strength, op.hue)
            return transforms.RandomApply([jitter], p=op.probability)
        case operations.Grayscale():
            return transforms.RandomGrayscale(op.probability)
        case operations.Blur():
            return transforms.RandomApply([blurred], p=op.probability)
        case automatic.AutoAugment():
            return SubPolicies(size)
        case automatic.RandAugment():
            fill = {"img_mean": (124, 116, 104)}
            return timm.data.auto_augment.rand_augment_transform("rand-m10-n2-mstd0.5", fill)
    raise NotImplementedError(type(op).__name__)


def blurred(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))


class SubPolicies:
    """Draw and apply one of AutoAugment's sub-policies to one image."""

    def __init__(self, size: int) -> None:
        tables = automatic.AutoAugment().draw(np.random.default_rng(0), 1000, size)
        self.rows = list(zip(tables["kind"], tables["numbers"], strict=True))

    def __call__(self, image: Image.Image) -> Image.Image:
        kind, numbers = random.choice(self.rows)
        return PILLOW["autoaugment"](image, {"kind": kind, "numbers": numbers})


class HoleInTensor:
    """Multiply a tensor (3, H, W) with a mask, as the papers' Cutout."""

    def __init__(self, half: int) -> None:
        self.half = half

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        mask = np.ones(image.shape[1:], np.float32)
        y, x = np.random.randint(mask.shape[0]), np.random.randint(mask.shape[1])
        mask[max(y - self.half, 0) : y + self.half, max(x - self.half, 0) : x + self.half] = 0
        return image * torch.from_numpy(mask).expand_as(image)


# -- measuring --------------------------------------------------------------------------------------
def seconds(work: Callable[[], object]) -> float:
    """Return the CPU time of this process, which other load affects less than wall time."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(name: str, photos: np.ndarray, batch_size: int, rounds: int) -> dict[str, Any]:
    """Time the three sides of one policy, in microseconds per image, and compare bytes."""
    images, size = images_of(photos), photos.shape[1]
    tables = POLICIES[name].draw(np.random.default_rng(0), len(photos), size)
    compose, compose_none = papers(name, size), papers("none", size)
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))

    def stacked(results: list[torch.Tensor]) -> None:
        for start in range(0, len(results), batch_size):
            torch.stack(results[start : start + batch_size])

    def as_papers() -> None:
        stacked([compose(Image.fromarray(photo)) for photo in photos])

    def as_pillow() -> None:
        stacked([compose_none(image) for image in pillow(name, photos, tables)])

    def in_batches() -> None:
        drawn = POLICIES[name].draw(np.random.default_rng(0), len(photos), size)
        for batch in batched(name, images, drawn, batch_size):
            batch.float().div_(255).sub_(mean).div_(std)

    sides = (as_papers, as_pillow, in_batches)
    times = [[seconds(side) for side in sides] for _ in range(rounds + 1)][1:]
    papers_us, pillow_us, batched_us = (
        statistics.median(side) / len(photos) * 1e6 for side in zip(*times, strict=True)
    )
    share, most = difference(name, photos, batch_size)
    return {
        "policy": name,
        "papers_us": round(papers_us, 1),
        "pillow_us": round(pillow_us, 1),
        "batched_us": round(batched_us, 1),
        "papers_over_batched": round(papers_us / batched_us, 1),
        "bytes_that_differ": share,
        "largest_difference": most,
    }


def main() -> None:
    """Measure every policy, print a table and write it as JSON."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--images", type=int, default=2560)
    arguments.add_argument("--batch-size", type=int, default=128)
    arguments.add_argument("--size", type=int, default=32)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--output", type=Path, default=Path(__file__).parent / "results/augment.json")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    photos = photographs(options.images, options.size)
    print(f"load average {os.getloadavg()[0]:.2f}; CPU time per image, one thread")
    print(f"{'policy':20}{'papers':>9}{'Pillow':>9}{'batched':>9} us  ratio  bytes that differ")
    rows = []
    for name in POLICIES:
        row = measure(name, photos, options.batch_size, options.rounds)
        rows.append(row)
        print(
            f"{name:20}{row['papers_us']:9}{row['pillow_us']:9}{row['batched_us']:9}"
            f"   {row['papers_over_batched']:6}  {row['bytes_that_differ']:.1e}"
            f" (by {row['largest_difference']} at most)"
        )
    result = {
        "settings": {k: v for k, v in vars(options).items() if k != "output"},
        "versions": {"torch": torch.__version__, "pillow": PIL.__version__},
        "load_average": round(os.getloadavg()[0], 2),
        "rows": rows,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
