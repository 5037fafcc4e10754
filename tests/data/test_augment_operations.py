"""Every batched operation gives Pillow's bytes, on real photographs and at the edges of its range."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from pillow_bytes import both, photographs, same
from project import SHARED

from bench.data.augment import affine, crop_boxes, pixels
from bench.data.augment.operations import ResizedCrop
from bench.data.augment.pixels import gaussian_blur, shift_hue
from bench.vision import timm, torchvision

CIFAR = SHARED / "data/cifar10_lossless_fragment.npz"
GRAY = (128, 128, 128)


@pytest.fixture(scope="module", params=["photographs", "8 pixels", "flat", "cifar10"])
def photos(request: pytest.FixtureRequest) -> np.ndarray:
    """Images (n, H, W, 3): real ones, small ones, some of few levels."""
    if request.param == "cifar10":
        if not CIFAR.exists():
            pytest.skip("the original CIFAR-10 pixels are not part of the project")
        with np.load(CIFAR) as file:
            return file["test_images"][:200]
    if request.param == "flat":
        levels = np.array([[0, 0, 0], [255, 255, 255], [7, 130, 255], [128, 127, 126]], np.uint8)
        plain = np.broadcast_to(levels[:, None, None], (4, 32, 32, 3)).copy()
        two = plain.copy()
        two[:, 5:9] = 255 - two[:, 5:9]
        return np.concatenate([plain, two])
    return photographs(120, 8 if request.param == "8 pixels" else 32)


def spread(n: int, low: float, high: float) -> np.ndarray:
    """Return `n` numbers of a range, its ends and middle among them."""
    values = np.random.default_rng(n).uniform(low, high, n)
    values[:3] = low, high, (low + high) / 2
    return values


@pytest.mark.parametrize("name", ["Brightness", "Contrast", "Color", "Sharpness"])
def test_blends_truncate_as_pillow(name: str, photos: np.ndarray) -> None:
    batch, images = both(photos)
    factors = spread(len(photos), 0.0, 2.0)
    ours = getattr(pixels, name.lower())(batch, torch.tensor(factors))
    same(ours, [getattr(ImageEnhance, name)(i).enhance(f) for i, f in zip(images, factors, strict=True)])


@pytest.mark.parametrize(
    ("name", "theirs", "low", "high"),
    [
        ("solarize", ImageOps.solarize, 0, 256),
        ("posterize", lambda i, v: ImageOps.posterize(i, int(v)), 1, 8),
        ("solarize_add", lambda i, v: timm.data.auto_augment.solarize_add(i, int(v)), 0, 110),
    ],
)
def test_level_operations(
    name: str, theirs: Callable[..., Image.Image], low: float, high: float, photos: np.ndarray
) -> None:
    batch, images = both(photos)
    values = spread(len(photos), low, high)
    values = values if name == "solarize" else np.trunc(values)
    ours = getattr(pixels, name)(batch, torch.tensor(values))
    same(ours, [theirs(i, v) for i, v in zip(images, values, strict=True)])


def test_histogram_operations_gray_and_inversion(photos: np.ndarray) -> None:
    batch, images = both(photos)
    same(pixels.autocontrast(batch), map(ImageOps.autocontrast, images))
    same(pixels.equalize(batch), map(ImageOps.equalize, images))
    same(pixels.solarize(batch, torch.zeros(len(batch))), map(ImageOps.invert, images))
    luma = pixels.gray(batch).to(torch.uint8).expand(-1, 3, -1, -1)
    same(luma, [image.convert("L") for image in images])


def test_rotation_is_that_of_the_long_tail_repositories(photos: np.ndarray) -> None:
    batch, images = both(photos)
    degrees = spread(len(photos), 0, 30)

    def theirs(image: Image.Image, angle: float) -> Image.Image:
        turned = image.convert("RGBA").rotate(angle)
        return Image.composite(turned, Image.new("RGBA", turned.size, (128,) * 4), turned)

    matrix = torch.tensor(affine.rotation(degrees, photos.shape[1]))
    ours = affine.nearest(batch, matrix, GRAY)
    same(ours, [theirs(i, angle) for i, angle in zip(images, degrees, strict=True)])


@pytest.mark.parametrize("pixels_taken", [1, 2, 4])
@pytest.mark.parametrize("kind", ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"])
def test_affine_maps(kind: str, pixels_taken: int, photos: np.ndarray) -> None:
    batch, images = both(photos)
    size, share = photos.shape[1], spread(len(photos), -0.45, 0.45)
    matrix = {
        "rotate": affine.rotation(share * 60, size),
        "shear_x": affine.matrices(1, share, 0, 0, 1, 0),
        "shear_y": affine.matrices(1, 0, 0, share, 1, 0),
        "translate_x": affine.matrices(1, 0, share * size, 0, 1, 0),
        "translate_y": affine.matrices(1, 0, 0, 0, 1, share * size),
    }[kind]
    resample = {
        1: Image.Resampling.NEAREST,
        2: Image.Resampling.BILINEAR,
        4: Image.Resampling.BICUBIC,
    }[pixels_taken]
    theirs = [
        i.transform(i.size, Image.Transform.AFFINE, tuple(m), resample, fillcolor=(1, 20, 255))
        for i, m in zip(images, matrix, strict=True)
    ]
    rows = torch.tensor(matrix)
    if pixels_taken == 1:
        same(affine.nearest(batch, rows, (1, 20, 255)), theirs)
        return
    same(affine.smooth(batch, rows, (1, 20, 255), pixels_taken, pixels_taken), theirs)
    if kind == "shear_y":  # it moves nothing along the rows, so one pixel of each is enough
        same(affine.smooth(batch, rows, (1, 20, 255), 1, pixels_taken), theirs)


def test_hue_shift(photos: np.ndarray) -> None:
    batch, images = both(photos)
    shares = spread(len(photos), -0.5, 0.5)
    theirs = torchvision.transforms.functional.adjust_hue
    ours = shift_hue(batch, torch.tensor(np.trunc(shares * 255)))
    same(ours, [theirs(i, share) for i, share in zip(images, shares, strict=True)])


def test_hue_shift_of_all_kinds_of_colours() -> None:
    axes = [np.arange(start, 256, 5, dtype=np.uint8) for start in (0, 1, 0)]
    colours = np.stack(np.meshgrid(*axes), axis=-1).reshape(1, -1, 52, 3)[:, : 51 * 52]
    colours = np.concatenate([colours, colours[..., ::-1], colours[..., [1, 2, 0]]])
    batch, images = both(colours)
    for shift in (0, 77):
        theirs = [torchvision.transforms.functional.adjust_hue(i, shift / 255 + 1e-9) for i in images]
        same(shift_hue(batch, torch.full((len(batch),), shift)), theirs)


def test_blur_is_pillows_three_boxes(photos: np.ndarray) -> None:
    batch, images = both(photos)
    radius = spread(len(photos), 0.1, 2.0)
    theirs = [i.filter(ImageFilter.GaussianBlur(float(r))) for i, r in zip(images, radius, strict=True)]
    same(gaussian_blur(batch, torch.tensor(radius)), theirs)


def test_resized_crop_sees_nothing_outside(photos: np.ndarray) -> None:
    batch, images = both(photos)
    op = ResizedCrop()
    box = op.draw(np.random.default_rng(0), len(photos), photos.shape[1])["box"]
    box[0] = 0, 0, 1, 1
    theirs = [
        i.crop(tuple(b)).resize(i.size, Image.Resampling.BILINEAR)
        for i, b in zip(images, box.tolist(), strict=True)
    ]
    same(op(batch, {"box": torch.tensor(box)}), theirs)


@pytest.mark.parametrize("size", [5, 16, 32])
def test_crop_boxes_shrinks_and_enlarges(size: int, photos: np.ndarray) -> None:
    batch, images = both(photos)
    rng = np.random.default_rng(size)
    corner = rng.uniform(0, 0.5, (len(photos), 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.1, 0.5, corner.shape)], axis=1)
    boxes[0] = 0, 0, 1, 1
    theirs = [
        i.resize((size, size), Image.Resampling.BILINEAR, box=tuple(b * i.width))
        for i, b in zip(images, boxes, strict=True)
    ]
    same(crop_boxes(batch, torch.tensor(boxes), size), theirs)
