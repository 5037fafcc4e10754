"""Images that a data set has more than once: in one part, with two labels, in two parts.

Images of list files are compared by path, those of folder trees and containers by their bytes. An image in
two parts is a *leak*, which a recipe may allow. One that is twice in a list, or has two labels, is a fault. A
tree may repeat images on purpose, so there it is a remark, as is everything in a published data set:
CIFAR-100 has such images.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from bench.cell import DataSet
from bench.data.read import folder
from bench.data.read.cache import key_of
from bench.data.read.lists import Listing, ListSet
from bench.data.read.sources import read
from bench.data.sets import subsets
from bench.data.sets.findings import Findings
from bench.data.split.extra import Extra
from bench.errors import first_of
from bench.files import write_text


@dataclass(frozen=True)
class Occurrence:
    """One occurrence of an image: its part, its label, and its name there."""

    part: str
    label: int
    name: str


def compare_lists(
    root: Path, parts: Mapping[str, Listing], classes: int, extra: Extra | None, findings: Findings
) -> None:
    """Find paths that the lists have twice, and classes without test images."""
    images: dict[str, list[Occurrence]] = defaultdict(list)
    for part, listing in parts.items():
        rows = zip(listing.paths.tolist(), listing.labels.tolist(), listing.lines, strict=True)
        for path, label, line in rows:
            name = os.path.normpath(path.decode())
            images[name].append(Occurrence(part, label, f"{listing.file.name}:{line}"))
    for path, label in _extra_files(extra):
        name = os.path.relpath(path, root)
        if name in images:
            images[name].append(Occurrence("extra_train", label, str(path)))
    repeated = [group for group in images.values() if len(group) > 1]
    _add_repeats(repeated, "lines", findings.faults, findings.faults, findings)
    tested = np.bincount(parts["test"].labels, minlength=classes)
    _add_untested([str(label) for label in np.flatnonzero(tested == 0)], findings)


def compare_trees(
    dataset: DataSet,
    root: Path,
    data_dir: Path | None,
    parts: Mapping[str, folder.TreePart],
    extra: Extra | None,
    findings: Findings,
    *,
    by_bytes: bool,
) -> None:
    """Find classes without test images, files that are not read and, `by_bytes`, files of equal content."""
    images: list[tuple[Path, Occurrence]] = []
    for name, part in parts.items():
        labelled = zip(part.files, folder.labels_of(part.classes).tolist(), strict=True)
        images += [(path, Occurrence(name, label, str(path))) for path, label in labelled]
    images += [(path, Occurrence("extra_train", label, str(path))) for path, label in _extra_files(extra)]
    groups = _equal_files(root, [path for path, _ in images], data_dir) if by_bytes else []
    repeated = [[images[i][1] for i in group] for group in groups]
    _add_repeats_by_bytes(dataset, root, data_dir, repeated, findings)
    _add_untested([name for name, files in parts["test"].classes.items() if not files], findings)
    others = [path for part in parts.values() for path in part.passed_over]
    findings.remarks += folder.passed_over([*others, *(extra.passed_over if extra else ())])


def compare_containers(
    dataset: DataSet, data_dir: Path | None, found: ListSet, extra: Extra | None, findings: Findings
) -> None:
    """Find images of equal bytes in containers, and classes without test images."""
    images: dict[bytes, list[Occurrence]] = defaultdict(list)
    for part, listing in found.parts.items():
        assert listing.hashes is not None
        rows = zip(listing.hashes, listing.labels.tolist(), listing.paths.tolist(), strict=True)
        for code, label, name in rows:
            images[code.tobytes()].append(Occurrence(part, label, f"{part} {name.decode()}"))
    for path, label in _extra_files(extra):
        code = hashlib.sha256(path.read_bytes()).digest()
        if code in images:
            images[code].append(Occurrence("extra_train", label, str(path)))
    repeated = [group for group in images.values() if len(group) > 1]
    _add_repeats_by_bytes(dataset, found.root, data_dir, repeated, findings)
    tested = np.bincount(found.test.labels, minlength=len(found.class_names))
    _add_untested([found.class_names[label] for label in np.flatnonzero(tested == 0)], findings)


def _add_repeats_by_bytes(
    dataset: DataSet,
    root: Path,
    data_dir: Path | None,
    groups: Sequence[Sequence[Occurrence]],
    findings: Findings,
) -> None:
    published = dataset.copy_of is not None
    recognised = bool(groups) and _is_published(dataset, root, data_dir)
    of_two_labels = findings.remarks if published or recognised else findings.faults
    _add_repeats(groups, "images", findings.remarks, of_two_labels, findings)
    if recognised:
        findings.remarks += findings.leaks
        findings.leaks.clear()


def _is_published(dataset: DataSet, root: Path, data_dir: Path | None) -> bool:
    """Tell whether the images are those of a published data set; false if they are not read into memory."""
    if dataset.on_disk or data_dir is None:
        return False
    if folder.below(data_dir, dataset.folder or "", dataset.name) != root:
        return False
    source = read(dataset, data_dir)
    return subsets.is_published(subsets.hashes_of(source, np.arange(len(source.train_labels)), data_dir))


def compare_contents(root: Path, parts: Mapping[str, Listing], findings: Findings) -> None:
    """Remark on images of lists whose bytes are equal, which published lists have too."""
    images: dict[Path, Occurrence] = {}
    for part, listing in parts.items():
        for i, label in enumerate(listing.labels.tolist()):
            path = root / listing.path(i)
            if path.is_file():
                images.setdefault(path, Occurrence(part, label, listing.path(i)))
    occurrences = list(images.values())
    groups = [[occurrences[i] for i in group] for group in _equal_files(root, list(images), None)]
    found = Findings()
    _add_repeats(groups, "images", found.remarks, found.remarks, found)
    findings.remarks += [f"{line} (by their bytes)" for line in found.remarks + found.leaks]


def _extra_files(extra: Extra | None) -> Iterator[tuple[Path, int]]:
    """Yield the files of extra images with their labels."""
    for label, files in enumerate(extra.classes.values() if extra else ()):
        yield from ((path, label) for path in files)


def _add_repeats(
    groups: Iterable[Sequence[Occurrence]],
    what: str,
    of_one_label: list[str],
    of_two_labels: list[str],
    findings: Findings,
) -> None:
    """Add lines about repeated images: in one part, in one part with two labels, in two parts."""
    same: dict[str, list[Sequence[Occurrence]]] = defaultdict(list)
    different: dict[str, list[Sequence[Occurrence]]] = defaultdict(list)
    leaks: dict[tuple[str, str], list[Sequence[Occurrence]]] = defaultdict(list)
    for group in groups:
        parts = list(dict.fromkeys(one.part for one in group))
        for part in parts:
            own = [one for one in group if one.part == part]
            if len({one.label for one in own}) > 1:
                different[part].append(own)
            elif len(own) > 1:
                same[part].append(own)
        for part, other in combinations(parts, 2):
            if {part, other} != {"train", "extra_train"}:
                leaks[part, other].append([one for one in group if one.part in (part, other)])
    for part, some in same.items():
        count = sum(len(group) - 1 for group in some)
        of_one_label.append(f"{part}: {count:,} {what} repeat an image: {_names(some)}")
    for part, some in different.items():
        of_two_labels.append(f"{part}: {len(some):,} images have two labels: {_names(some, labels=True)}")
    for (part, other), some in leaks.items():
        findings.leaks.append(f"{other}: {len(some):,} images are in {part} too: {_names(some)}")


def _names(groups: Sequence[Sequence[Occurrence]], labels: bool = False) -> str:
    def name(group: Sequence[Occurrence]) -> str:
        return " = ".join(f"{one.name} (class {one.label})" if labels else one.name for one in group[:3])

    return first_of(groups, name=name)


def _add_untested(classes: Sequence[str], findings: Findings) -> None:
    if classes:
        findings.remarks.append(
            f"test: {len(classes):,} classes have no image, so their metrics are n/a: {first_of(classes)}"
        )


def _equal_files(root: Path, files: Sequence[Path], data_dir: Path | None) -> list[list[int]]:
    """Return groups of indices of files whose bytes are equal; only files of equal size are read.

    The result is cached below `data_dir` until a name, size or time changes.
    """
    cached = data_dir and data_dir / ".cache" / f"equal-files-{key_of(root, files)}.json"
    if cached and cached.is_file():
        return list(json.loads(cached.read_bytes()))
    by_size: dict[int, list[int]] = defaultdict(list)
    for i, path in enumerate(files):
        by_size[path.stat().st_size].append(i)
    by_content: dict[bytes, list[int]] = defaultdict(list)
    for indices in by_size.values():
        for i in indices if len(indices) > 1 else ():
            by_content[hashlib.sha256(files[i].read_bytes()).digest()].append(i)
    groups = [indices for indices in by_content.values() if len(indices) > 1]
    if cached:
        with contextlib.suppress(OSError):  # on a read-only or full disk they are read again next time
            write_text(cached, json.dumps(groups))
    return groups
