"""CIFAR's Python files: the official ones, or others of their format with their own checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.cell import DataSet
from bench.data.read.folder import below
from bench.errors import BenchError

#: Source -> its class in torchvision.datasets and the folder that the class reads.
CIFAR = {
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
    "cifar100": ("CIFAR100", "cifar-100-python"),
}
PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"


@dataclass(frozen=True)
class Files:
    """The files of one data set, all in `root`.

    Attributes:
        kind: their class in torchvision.datasets.
        name: of the data set.
        md5: checksums by file name; empty for the official files.
        remedy: what to do if files are missing or damaged.
    """

    root: Path
    kind: str
    name: str
    md5: Mapping[str, str]
    remedy: str


def files_of(dataset: DataSet, data_dir: Path) -> Files:
    """Return the files of a data set, which need not exist."""
    kind, official = CIFAR[dataset.source]
    if not dataset.md5:
        remedy = (
            f"fetch it with `run_bench.py data {dataset.source} --download` (from {PAGE}), "
            "or point --data or LONGTAIL_DATA to where it is"
        )
        return Files(data_dir / official, kind, dataset.source, {}, remedy)
    lines = [line.split(maxsplit=1) for line in dataset.md5]
    what = dataset.copy_kind or f"a copy of {dataset.copy_of}"
    return Files(
        root=below(data_dir, dataset.folder or "", dataset.name),
        kind=kind,
        name=dataset.name,
        md5={name.lstrip("*"): md5 for md5, name in lines},
        remedy=f"{dataset.name} is {what}: put its files there",
    )


def fetch(files: Files, data_dir: Path) -> None:
    """Download the official files, if they are missing.

    Raises:
        BenchError: the download failed.
    """
    try:
        _torchvision(files.kind)(data_dir, download=True)
    except (OSError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise BenchError(
            f"{files.root}: download failed ({reason}); get the Python version from {PAGE} "
            f"and unpack it in {data_dir}"
        ) from error


def decode(files: Files, data_dir: Path) -> tuple[Any, Any, Any, Any, Any]:
    """Check all checksums and return training and test images, their labels, and the class names.

    Raises:
        BenchError: a file is missing or damaged.
    """
    kind = _torchvision(files.kind)
    if files.md5:
        kind = _with_files(kind, files, files.root.relative_to(data_dir).as_posix())
    try:
        train, test = kind(data_dir, train=True), kind(data_dir, train=False)
    except RuntimeError as error:
        raise BenchError(f"{_damage(kind, files.root)}; {files.remedy}") from error
    return train.data, test.data, train.targets, test.targets, train.classes


def _with_files(kind: Any, files: Files, folder_name: str) -> Any:
    """Return a subclass of torchvision's class for files of the same names with other checksums."""

    def md5(name: str) -> str:
        if name not in files.md5:
            raise BenchError(f"{files.name}: md5 lacks {name!r}; give the line of md5sum for each file")
        return files.md5[name]

    return type(
        kind.__name__,
        (kind,),
        {
            "base_folder": folder_name,
            "train_list": [[name, md5(name)] for name, _ in kind.train_list],
            "test_list": [[name, md5(name)] for name, _ in kind.test_list],
            "meta": kind.meta | {"md5": md5(kind.meta["filename"])},
        },
    )


def _damage(kind: Any, root: Path) -> str:
    """Return which file is missing or damaged."""
    expected = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
    for name, md5 in expected:
        if not (root / name).is_file():
            return f"{root / name}: this file is missing"
        with (root / name).open("rb") as file:
            if hashlib.file_digest(file, "md5").hexdigest() != md5:
                return f"{root / name}: damaged (its md5 is not {md5})"
    return f"{root}: changed while it was read"


def _torchvision(class_name: str) -> Any:
    from bench.vision import torchvision  # takes seconds, and is not needed with a cache

    return getattr(torchvision.datasets, class_name)
