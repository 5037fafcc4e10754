"""The current content of a data set: whether it is here, a cheap key of its files, its fingerprint.

The fingerprint is computed only if the key has changed, and cached beside the images.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.cell import DataSet
from bench.data.read import cifar, containers, folder, lists
from bench.data.read.cache import key_of
from bench.data.read.decoding import RULES
from bench.data.read.listing import listed
from bench.data.read.pictures import pictures
from bench.data.read.readers import KINDS
from bench.files import write_text

#: Version of the cached content.
_VERSION = 2


@dataclass(frozen=True)
class Content:
    """Fingerprints, class names, class counts and image hashes of a split (see `Split`)."""

    fingerprint: dict[str, str]
    class_names: list[str]
    class_counts: list[int]
    image_hashes: dict[str, str]


def is_embedded(dataset: DataSet) -> bool:
    """Tell whether a data set is always here, and always the same."""
    return dataset.source == "digits" and dataset.extra_train is None


def is_here(dataset: DataSet, data_dir: Path) -> bool:
    """Tell whether a data set, with its extra images, is on this machine."""
    roots = [_root(dataset, data_dir)]
    if dataset.extra_train is not None:
        roots.append(folder.below(data_dir, dataset.extra_train.folder, dataset.name))
    if not all(root is None or (root.is_dir() and any(root.iterdir())) for root in roots):
        return False
    if dataset.source != "list":
        return True
    read = lists.read_lists(dataset, data_dir)  # often here without the large images
    first = pictures(dataset, data_dir, read.root, read.train)
    return first.shards is not None or first.file(0).exists()


def key(dataset: DataSet, data_dir: Path) -> str:
    """Hash the names, sizes and times of all files of a data set, without reading images.

    Of list files the content and the images' sizes are hashed, on which their fingerprint depends.

    Raises:
        BenchError: something is missing or wrong.
    """
    root, salt = _root(dataset, data_dir), (dataset.image_size, RULES, dataset.upright)
    digest = hashlib.sha256(repr(salt).encode())
    if dataset.source == "list":
        digest.update(_key_of_lists(dataset, data_dir).encode())
    elif dataset.source == "folder":
        assert root is not None
        parts = folder.list_tree(root, dataset.parts)
        files = [path for part in parts.values() for path in part.files]
        digest.update(key_of(root, files, list(parts["train"].classes)).encode())
    elif dataset.source in KINDS:
        assert root is not None
        digest.update(containers.key(dataset, root).encode())
    elif root is not None:
        digest.update(key_of(root, sorted(root.iterdir())).encode())
    extra = dataset.extra_train
    if extra is not None:
        home = folder.below(data_dir, extra.folder, dataset.name)
        listed = [home / extra.list_file] if extra.list_file else []
        digest.update(key_of(home, [*folder.files_in(home)[0], *listed]).encode())
    return digest.hexdigest()[:16]


def validation(dataset: DataSet, data_dir: Path) -> str | None:
    """Return the fingerprint of the validation set, None if there is none."""
    named = dataset.lists or dataset.parts
    if named is None or named.val is None:
        return None
    read = listed(dataset, data_dir)
    assert read.val is not None
    return pictures(dataset, data_dir, read.root, read.val).fingerprint(read.val.labels)


def content(
    dataset: DataSet, imbalance_factor: float, subsample: int | None, data_dir: Path, key: str
) -> Content:
    """Return the content of a split from the cache, or read it; `key` is that of the data set.

    Raises:
        BenchError: as of `split.load`.
    """
    asked = [_VERSION, dataset.model_dump(mode="json", exclude={"title"}), imbalance_factor, subsample, key]
    name = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
    cached = data_dir / ".cache" / "contents" / f"{name}.json"
    with suppress(OSError, ValueError, TypeError):
        return Content(**json.loads(cached.read_text(encoding="utf-8")))
    found = look(dataset, imbalance_factor, subsample, data_dir)
    with suppress(OSError):  # on a read-only or full disk it is read again next time
        write_text(cached, json.dumps(asdict(found)))
    return found


def look(dataset: DataSet, imbalance_factor: float, subsample: int | None, data_dir: Path) -> Content:
    """Read the content of a split without the cache; errors as of `split.load`."""
    from bench.data.split.load import load  # imports torch, which is not needed with the cache

    split = load(dataset, imbalance_factor, data_dir, subsample)
    names, counts = list(split.class_names), split.class_counts.tolist()
    return Content(split.fingerprint, names, counts, split.image_hashes)


def _root(dataset: DataSet, data_dir: Path) -> Path | None:
    """Return the folder of a data set, None for the embedded digits."""
    if dataset.source == "digits":
        return None
    if dataset.source in cifar.CIFAR:
        return cifar.files_of(dataset, data_dir).root
    return folder.below(data_dir, dataset.folder or "", dataset.name)


def _key_of_lists(dataset: DataSet, data_dir: Path) -> str:
    read = lists.read_lists(dataset, data_dir)
    if not dataset.on_disk:  # its fingerprint depends on pixels, so times count
        files = [path for part in read.parts.values() for path in part.files(read.root)]
        return key_of(read.root, files, read.content)
    parts = {
        name: pictures(dataset, data_dir, read.root, part).fingerprint(part.labels)
        for name, part in read.parts.items()
    }
    return repr((parts, read.class_names))
