"""What is known about the published long-tailed list files, to check a user's copy.

A blob is git's hash of a file (`git hash-object FILE`). Lists that differ only in the paths of the images
have other blobs, so an unknown blob is a remark and wrong counts are a fault.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class KnownList:
    """One published list: its images, and those of the largest and the smallest class.

    `shots` are the numbers of many-, medium- and few-shot classes (more than 100, 20 to 100, less than 20).
    """

    images: int
    most: int
    least: int
    shots: tuple[int, int, int] | None = None
    blobs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Known:
    """A published data set: its number of classes, its lists by part, and where to obtain it."""

    classes: int
    lists: dict[str, KnownList]
    images_from: str
    lists_from: str


_DECOUPLING = "github.com/facebookresearch/classifier-balancing, folder data/"

#: By the names of `bench.data.sets.catalogue`. Of several blobs the first is that of the lists for which the
#: catalogue's folder layout is made; the others are published too.
KNOWN: dict[str, Known] = {
    "imagenet_lt": Known(
        classes=1000,
        lists={
            "train": KnownList(
                115_846, 1280, 5, (385, 479, 136), ("a063f095fcd475db4cf8b0658c4b73955535bbf9",)
            ),
            "val": KnownList(20_000, 20, 20, None, ("3ed3188b2f44829ce2dec1cc27040d8d40984088",)),
            "test": KnownList(50_000, 50, 50, None, ("76a2fb9749d6cd29e765cc4f8c270f2504131e2f",)),
        },
        images_from="ImageNet (ILSVRC 2012) from image-net.org, after registration: train/<wnid>/*.JPEG, and "
        "its validation images as val/*.JPEG or val/<wnid>/*.JPEG",
        lists_from=f"{_DECOUPLING}ImageNet_LT",
    ),
    "inaturalist2018": Known(
        classes=8142,
        lists={
            "train": KnownList(
                437_513, 1000, 2, (842, 4076, 3224), ("4accdb7584d2f0a5106c40a33ed6afa392189bcc",)
            ),
            "test": KnownList(24_426, 3, 3, None, ("4c23900857fd0f5adcd4cc0dffef345039eeb05f",)),
        },
        images_from="train_val2018.tar.gz (120 GB), linked from github.com/visipedia/inat_comp, folder 2018",
        lists_from=f"{_DECOUPLING}iNaturalist18",
    ),
    "places_lt": Known(
        classes=365,
        lists={
            "train": KnownList(
                62_500,
                4980,
                5,
                (131, 163, 71),
                ("6392252f8ae867bc8a5e841cc1b29e5b8ef4b636", "1d608b558c25c271da75c06f1e5e3625a4ebcb79"),
            ),
            "val": KnownList(
                7_300,
                20,
                20,
                None,
                ("b93a2ca58ccb7f3b671c176f395a70bf52c95533", "89c29c0973328f77d7a77a8b580634ce20acdc11"),
            ),
            "test": KnownList(
                36_500,
                100,
                100,
                None,
                ("e732e58b8aa718a2c1c11933375f5710652c2b93", "d43400ac9bc2275baa058456da40b20abb50b108"),
            ),
        },
        images_from="Places365-Standard, 256x256 with easy directory structure, from places2.csail.mit.edu: "
        "train/<scene>/*.jpg and val/<scene>/*.jpg (for data_256/ and val_256/ take the lists Places_LT_v2)",
        lists_from=f"{_DECOUPLING}Places_LT, or github.com/zhmiao/OpenLongTailRecognition-OLTR",
    ),
    "mini_imagenet_lt": Known(
        classes=100,
        lists={
            "train": KnownList(23_192, 479, 12, (79, 17, 4), ("c2719727d29c46e625bcbdde5beedc4465bb8185",)),
            "val": KnownList(6_000, 60, 60, None, ("05e4a49fadd72ecd0e9404c73d54ada4527dcfcb",)),
            "test": KnownList(6_000, 60, 60, None, ("ee5ab90d9e30d16b9f6cd621ce228e73346dbe83",)),
        },
        images_from="huggingface.co/datasets/KITSCH/miniimagenet-LT: data/images/*.jpg, and the images "
        "generated for it as data/genimages/*.jpg (some of them are black)",
        lists_from="the same place: train.csv, val.csv, test.csv, and gentrain.csv of the generated images",
    ),
}


def git_blob(content: bytes) -> str:
    """Return git's hash of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
