"""Packs a data set's long-tailed subset and test images into one small file, for a machine without the data.

The images are lossless WebP; unpacking needs only numpy and Pillow. It writes the cache of decoded images
that a run reads (see `bench.data.read.cache`), with zeros for training images outside the long-tailed subset.
This is enough to train, and has the original's fingerprint.

    python benchmarks/gpu_pack.py pack cifar100_rebuilt build/carry     # on the machine with the data
    python benchmarks/gpu_pack.py unpack build/carry data               # on the other machine
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from bench.data.read import cifar, sources
from bench.data.read.cache import key_of
from bench.data.sets.catalogue import DATASETS
from bench.data.split.load import load

#: Images of a sheet, stacked vertically; WebP's sides are limited to 16,383 pixels.
SHEET = 256


def sheets(images: np.ndarray) -> list[bytes]:
    """Compress images (N, H, W, 3) losslessly."""
    packed = []
    for start in range(0, len(images), SHEET):
        some, file = images[start : start + SHEET], io.BytesIO()
        flat = np.ascontiguousarray(some).reshape(-1, *some.shape[2:])
        Image.fromarray(flat).save(file, "WEBP", lossless=True, quality=100, method=4)
        packed.append(file.getvalue())
    return packed


def images_of(packed: list[bytes], side: int) -> np.ndarray:
    """Return the images (N, side, side, 3) of sheets."""
    flat = [np.asarray(Image.open(io.BytesIO(sheet)).convert("RGB")) for sheet in packed]
    return np.concatenate(flat).reshape(-1, side, side, 3)


def pack(name: str, imbalance_factor: float, data: Path, folder: Path) -> Path:
    """Write the pack of a CIFAR data set into a folder."""
    dataset = DATASETS[name]
    whole, split = sources.read(dataset, data), load(dataset, imbalance_factor, data)
    parts = {"train": whole.train_images[split.positions], "test": whole.test_images}
    arrays = {
        f"{part}_{number}": np.frombuffer(sheet, np.uint8)
        for part, images in parts.items()
        for number, sheet in enumerate(sheets(images))
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-if{imbalance_factor:g}.npz"
    about = {"name": name, "imbalance_factor": imbalance_factor, "fingerprint": split.fingerprint}
    np.savez(
        path,
        about=json.dumps(about),
        positions=split.positions,
        train_labels=whole.train_labels,
        test_labels=whole.test_labels,
        class_names=np.array(whole.class_names),
        **arrays,
    )
    return path


def unpack(path: Path, data: Path) -> str:
    """Fill the cache below a data directory from a pack, and return the data set's name.

    Raises:
        ValueError: the images are not those that were packed.
    """
    held = np.load(path)
    about = json.loads(str(held["about"]))
    dataset = DATASETS[about["name"]]

    def part(name: str) -> np.ndarray:
        count = sum(key.startswith(f"{name}_") and key[len(name) + 1 :].isdigit() for key in held)
        packed = [held[f"{name}_{number}"].tobytes() for number in range(count)]
        return images_of(packed, dataset.image_size)

    train, test = part("train"), part("test")
    every = np.zeros((len(held["train_labels"]), *train.shape[1:]), np.uint8)
    every[held["positions"]] = train
    root = data / (dataset.folder or cifar.CIFAR[dataset.source][1])
    root.mkdir(parents=True, exist_ok=True)  # empty: the cache replaces its content
    name = dataset.name if dataset.md5 else dataset.source
    cache = data / ".cache" / f"{name}-{key_of(root, sorted(root.iterdir()))}"
    cache.mkdir(parents=True, exist_ok=True)
    arrays = {
        "train_images": every,
        "test_images": test,
        **{key: held[key] for key in ("train_labels", "test_labels", "class_names")},
    }
    for key, array in arrays.items():
        np.save(cache / f"{key}.npy", array)
    found = load(dataset, about["imbalance_factor"], data).fingerprint
    if found != about["fingerprint"]:
        raise ValueError(f"{path}: unpacked to {found}, not {about['fingerprint']}; pack it again")
    return str(about["name"])


def main() -> None:
    """Pack a data set, or unpack all packs of a folder."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ways = arguments.add_subparsers(dest="way", required=True)
    packing = ways.add_parser("pack")
    packing.add_argument("name", choices=["cifar10", "cifar100", "cifar100_rebuilt"])
    packing.add_argument("folder", type=Path)
    packing.add_argument("--imbalance-factor", type=float, default=100.0)
    packing.add_argument("--data", type=Path, default=Path("data"))
    unpacking = ways.add_parser("unpack")
    unpacking.add_argument("folder", type=Path)
    unpacking.add_argument("data", type=Path)
    options = arguments.parse_args()
    if options.way == "pack":
        path = pack(options.name, options.imbalance_factor, options.data, options.folder)
        print(f"{path.name}: {path.stat().st_size / 2**20:.1f} MiB")
    else:
        for path in sorted(options.folder.glob("*.npz")):
            print(f"{unpack(path, options.data)}: unpacked")


if __name__ == "__main__":
    main()
