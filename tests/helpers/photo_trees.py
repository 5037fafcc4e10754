"""Small trees of real photographs, arranged as the published long-tailed data sets are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from bench.cell import BackboneChoice, Cell, DataSet, ListFiles, MethodChoice, Protocol
from bench.data.feed.streaming import StreamingLoader, loader_for
from bench.data.sets.catalogue import DATASETS
from bench.data.split.load import OnDisk, load
from bench.method import Batch, View
from bench.registry import find

WNIDS = ("n01440764", "n01443537", "n01484850", "n01491361")
COUNTS = (9, 5, 3, 2)
HELD_OUT = 2
SEED = 3


def patches(n: int, seed: int) -> list[Image.Image]:
    """Cut patches of several sizes out of scikit-learn's two photographs."""
    rng = np.random.default_rng(seed)
    photos = load_sample_images().images
    cut = []
    for i in range(n):
        photo = photos[int(rng.integers(2))]
        height, width = int(rng.integers(40, 120)), int(rng.integers(40, 120))
        top, left = int(rng.integers(427 - height)), int(rng.integers(640 - width))
        patch = Image.fromarray(photo[top : top + height, left : left + width])
        cut.append(patch.convert("L") if i % 7 == 6 else patch)  # ImageNet has gray ones too
    return cut


def write(root: Path, paths: Sequence[str], seed: int) -> None:
    """Save a patch under each path."""
    for path, patch in zip(paths, patches(len(paths), seed), strict=True):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        patch.save(root / path, "JPEG", quality=90)


def list_file(file: Path, paths: Sequence[str], labels: Sequence[int], end: str = "\n") -> None:
    """Write `path label` lines, or CSV with a header where the file is a .csv; `end` ends the last line."""
    comma = "," if file.suffix == ".csv" else " "
    lines = [f"{path}{comma}{label}" for path, label in zip(paths, labels, strict=True)]
    header = ["img,label"] if file.suffix == ".csv" else []
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(header + lines) + end)


def tree(
    root: Path, lists: ListFiles, name: Callable[[str, int, int], str], counts: Sequence[int] = COUNTS
) -> Path:
    """Write images and lists; `name` gives the path of a part's n-th image of a class."""
    parts = {"train": (lists.train, counts), "test": (lists.test, [HELD_OUT] * len(counts))}
    if lists.val:
        parts["val"] = (lists.val, [1] * len(counts))
    for seed, (part, (file, numbers)) in enumerate(parts.items()):
        labels = [label for label, count in enumerate(numbers) for _ in range(count)]
        paths = [name(part, label, i) for label, count in enumerate(numbers) for i in range(count)]
        shuffled = np.random.default_rng(seed).permutation(len(paths))
        write(root, paths, seed)
        list_file(root / file, [paths[i] for i in shuffled], [labels[i] for i in shuffled], end="")
    return root


def imagenet(data: Path) -> Path:
    """ImageNet-LT's layout: train and val from train/<wnid>/, test from val/<wnid>/."""
    lists = DATASETS["imagenet_lt"].lists
    assert lists is not None

    def name(part: str, label: int, i: int) -> str:
        wnid = WNIDS[label]
        if part == "test":
            return f"val/{wnid}/ILSVRC2012_val_{label:04}{i:04}.JPEG"
        return f"train/{wnid}/{wnid}_{i + 100 * (part == 'val')}.JPEG"

    return tree(data / "imagenet_lt", lists, name)


def inaturalist(data: Path) -> Path:
    """iNaturalist 2018's layout: all below train_val2018/<kingdom>/<class>/, and no validation list."""
    lists = DATASETS["inaturalist2018"].lists
    assert lists is not None
    kingdoms = ("Plantae", "Aves", "Plantae", "Insecta")
    return tree(
        data / "inaturalist2018",
        lists,
        lambda part, label, i: f"train_val2018/{kingdoms[label]}/{label}/{part}{i:x}.jpg",
    )


def places(data: Path) -> Path:
    """Places-LT's layout."""
    lists = DATASETS["places_lt"].lists
    assert lists is not None
    scenes = ("airfield", "alley", "amphitheater", "zen_garden")

    def name(part: str, label: int, i: int) -> str:
        if part == "test":
            return f"val/{scenes[label]}/Places365_val_{label:04}{i:04}.jpg"
        return f"train/{scenes[label]}/{i + 100 * (part == 'val'):08}.jpg"

    return tree(data / "places_lt", lists, name)


def mini_imagenet(data: Path) -> Path:
    """mini-ImageNet-LT's layout: CSV lists, all images in one folder, generated ones in another."""
    lists = DATASETS["mini_imagenet_lt"].lists
    assert lists is not None
    parts = ("train", "val", "test")
    root = tree(
        data / "mini_imagenet_lt",
        lists,
        lambda part, label, i: f"data/images/{WNIDS[label]}{1000 * parts.index(part) + i:08}.jpg",
    )
    labels = [label for label, count in enumerate(COUNTS) for _ in range(10 - count)]
    paths = [f"data/genimages/{i}.jpg" for i in range(len(labels))]
    write(root, paths, 9)
    lines = [f"{path},{label}\r\n" for path, label in zip(paths, labels, strict=True)]
    (root / "gentrain.csv").write_text("".join(lines), newline="")
    return root


LAYOUTS = {
    "imagenet_lt": imagenet,
    "inaturalist2018": inaturalist,
    "places_lt": places,
    "mini_imagenet_lt": mini_imagenet,
}


def small(name: str, size: int = 32) -> DataSet:
    """Return a built-in data set with small images."""
    return DATASETS[name].model_copy(update={"image_size": size})


IMAGENET = small("imagenet_lt")


def cell(
    dataset: DataSet, method: MethodChoice, *, epochs: int = 2, batch_size: int = 8, **more: object
) -> Cell:
    """Return a cell on the small net."""
    protocol = {
        "epochs": epochs,
        "batch_size": batch_size,
        "augmentation": "resized_crop_flip_jitter",
        **more,
    }
    return Cell(
        method=method,
        dataset=dataset,
        imbalance_factor=1.0,
        backbone=BackboneChoice(name="resnet8_cifar"),
        protocol=Protocol.model_validate(protocol),
        seed=SEED,
    )


def split_of(data: Path, dataset: DataSet | None = None) -> OnDisk:
    """Load a data set, by default ImageNet-LT's layout."""
    split = load(dataset or small("imagenet_lt"), 1.0, data)
    assert isinstance(split, OnDisk)
    return split


def loader_of(
    data: Path, *views: View, dataset: DataSet | None = None, extra: str | None = None, **protocol: Any
) -> StreamingLoader:
    """Return the loader of a run on the small net."""
    split = split_of(data, dataset)
    made = cell(split.dataset, find("ce").choose(), **protocol)
    loader = loader_for(split, views or (View(),), made, "cpu", extra_sampler=extra)
    assert isinstance(loader, StreamingLoader)
    return loader


def pixels(dataset: DataSet, images: torch.Tensor) -> torch.Tensor:
    """Undo the normalisation."""
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (dataset.mean, dataset.std))
    return ((images * std + mean) * 255).round().to(torch.uint8)


def everything(batches: list[Batch]) -> list[torch.Tensor]:
    """Return all labels and views of some batches."""
    return [torch.cat([batch.labels for batch in batches]), *(v for b in batches for v in b.views)]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    """Tell whether all tensors are equal, to the last bit."""
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
