"""Images that a data set has more than once: in one part, of two labels, in two parts.

Of list files an image is known by its path, of folder trees and containers by its bytes. In two parts it is
a *leak*, which a recipe may allow. In a list twice, or of two labels, it is a fault. A tree may have reasons
for an image twice, so there it is a remark; of a published data set all of it is, which CIFAR-100 has.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.cell import DataSet
from bench.data.read import folder
from bench.data.read.cache import key_of
from bench.data.read.lists import Listing, ListSet
from bench.data.read.sources import read
from bench.data.sets import subsets
from bench.data.sets.findings import MOST_TOLD, Findings
from bench.data.split.extra import Extra
from bench.files import write_text


@dataclass(frozen=True)
class Shown:
    """One showing of an image: in which part, of which label, and how it is called there."""

    part: str
    label: int
    name: str


def compare_lists(
    root: Path, parts: Mapping[str, Listing], classes: int, extra: Extra | None, findings: Findings
) -> None:
    """Find paths that stand in the lists twice, and classes without test images."""
    shown: dict[str, list[Shown]] = defaultdict(list)
    for part, listing in parts.items():
        labels = listing.labels.tolist()
        for place, (path, label) in enumerate(zip(listing.paths.tolist(), labels, strict=True)):
            name = os.path.normpath(path.decode())
            shown[name].append(Shown(part, label, f"{listing.file.name}:{listing.lines[place]}"))
    if extra is not None:
        for path, label in _of_extra(extra):
            name = os.path.relpath(path, root)
            if name in shown:
                shown[name].append(Shown("extra_train", label, str(path)))
    twice = {name: some for name, some in shown.items() if len(some) > 1}
    _tell(twice, "lines", findings.faults, findings.faults, findings)
    tested = np.bincount(parts["test"].labels, minlength=classes)
    _tell_untested([str(label) for label in np.flatnonzero(tested == 0)], findings)


def compare_trees(
    dataset: DataSet,
    root: Path,
    data_dir: Path | None,
    parts: Mapping[str, folder.Part],
    extra: Extra | None,
    findings: Findings,
    *,
    by_bytes: bool,
) -> None:
    """Find classes without test images, files that are not read, and, `by_bytes`, files of equal content."""
    shown: list[tuple[Path, Shown]] = []
    for name, part in parts.items():
        labelled = zip(part.files, folder.labels_of(part.classes).tolist(), strict=True)
        shown += [(path, Shown(name, label, str(path))) for path, label in labelled]
    if extra is not None:
        shown += [(path, Shown("extra_train", label, str(path))) for path, label in _of_extra(extra)]
    groups = _equal_files(root, [path for path, _ in shown], data_dir) if by_bytes else []
    twice = {shown[group[0]][1].name: [shown[i][1] for i in group] for group in groups}
    _tell_by_bytes(dataset, root, data_dir, twice, findings)
    _tell_untested([name for name, files in parts["test"].classes.items() if not files], findings)
    others = [path for part in parts.values() for path in part.passed_over]
    findings.remarks += folder.passed_over([*others, *(extra.passed_over if extra else ())])


def compare_containers(
    dataset: DataSet, data_dir: Path | None, found: ListSet, extra: Extra | None, findings: Findings
) -> None:
    """Find images of equal bytes in containers, and classes without test images."""
    shown: dict[bytes, list[Shown]] = defaultdict(list)
    for part, listing in found.parts.items():
        assert listing.hashes is not None
        each = zip(listing.hashes, listing.labels.tolist(), listing.paths.tolist(), strict=True)
        for code, label, name in each:
            shown[code.tobytes()].append(Shown(part, label, f"{part} {name.decode()}"))
    for path, label in _of_extra(extra) if extra is not None else ():
        code = hashlib.sha256(path.read_bytes()).digest()
        if code in shown:
            shown[code].append(Shown("extra_train", label, str(path)))
    twice = {some[0].name: some for some in shown.values() if len(some) > 1}
    _tell_by_bytes(dataset, found.root, data_dir, twice, findings)
    tested = np.bincount(found.test.labels, minlength=len(found.class_names))
    _tell_untested([found.class_names[label] for label in np.flatnonzero(tested == 0)], findings)


def _tell_by_bytes(
    dataset: DataSet,
    root: Path,
    data_dir: Path | None,
    groups: Mapping[str, Sequence[Shown]],
    findings: Findings,
) -> None:
    published = dataset.copy_of is not None
    recognised = bool(groups) and _is_published(dataset, root, data_dir)
    of_two_labels = findings.remarks if published or recognised else findings.faults
    _tell(groups, "images", findings.remarks, of_two_labels, findings)
    if recognised:
        findings.remarks += findings.leaks
        findings.leaks.clear()


def _is_published(dataset: DataSet, root: Path, data_dir: Path | None) -> bool:
    """Tell whether the images are those of a published data set, as far as they are read into memory."""
    here = data_dir is not None and folder.below(data_dir, dataset.folder or "", dataset.name) == root
    if dataset.on_disk or not here or data_dir is None:
        return False
    source = read(dataset, data_dir)
    return subsets.is_published(subsets.hashes_of(source, np.arange(len(source.train_labels)), data_dir))


def compare_contents(root: Path, parts: Mapping[str, Listing], findings: Findings) -> None:
    """Remark on images of lists whose bytes are equal, which published lists have too."""
    shown: dict[Path, Shown] = {}
    for part, listing in parts.items():
        for place, label in enumerate(listing.labels.tolist()):
            path = root / listing.path(place)
            if path.is_file():
                shown.setdefault(path, Shown(part, label, listing.path(place)))
    each = list(shown.values())
    groups = {str(group[0]): [each[i] for i in group] for group in _equal_files(root, list(shown), None)}
    found = Findings()
    _tell(groups, "images", found.remarks, found.remarks, found)
    findings.remarks += [f"{line} (by their bytes)" for line in found.remarks + found.leaks]


def _of_extra(extra: Extra) -> Iterator[tuple[Path, int]]:
    for label, files in enumerate(extra.classes.values()):
        yield from ((path, label) for path in files)


def _tell(
    groups: Mapping[str, Sequence[Shown]],
    what: str,
    of_one_label: list[str],
    of_two_labels: list[str],
    findings: Findings,
) -> None:
    """Tell of images that are there more than once: in one part, in one with two labels, in two parts."""
    again: dict[str, list[Sequence[Shown]]] = defaultdict(list)
    against: dict[str, list[Sequence[Shown]]] = defaultdict(list)
    leaks: dict[tuple[str, str], list[Sequence[Shown]]] = defaultdict(list)
    for group in groups.values():
        parts = list(dict.fromkeys(one.part for one in group))
        for part in parts:
            own = [one for one in group if one.part == part]
            if len({one.label for one in own}) > 1:
                against[part].append(own)
            elif len(own) > 1:
                again[part].append(own)
        for i, part in enumerate(parts):
            for other in parts[i + 1 :]:
                if "train" not in (part, other) or "extra_train" not in (part, other):
                    leaks[part, other].append([one for one in group if one.part in (part, other)])
    for part, some in again.items():
        count = sum(len(group) - 1 for group in some)
        of_one_label.append(f"{part}: {count:,} {what} repeat an image: {_named(some)}")
    for part, some in against.items():
        of_two_labels.append(f"{part}: {len(some):,} images have two labels: {_named(some, labels=True)}")
    for (part, other), some in leaks.items():
        findings.leaks.append(f"{other}: {len(some):,} images are in {part} too: {_named(some)}")


def _named(groups: Sequence[Sequence[Shown]], labels: bool = False) -> str:
    told = [
        " = ".join(f"{one.name} (class {one.label})" if labels else one.name for one in group[:3])
        for group in groups[:MOST_TOLD]
    ]
    more = f" and {len(groups) - MOST_TOLD:,} more" if len(groups) > MOST_TOLD else ""
    return ", ".join(told) + more


def _tell_untested(classes: Sequence[str], findings: Findings) -> None:
    if classes:
        told = ", ".join(classes[:MOST_TOLD]) + (", ..." if len(classes) > MOST_TOLD else "")
        findings.remarks.append(
            f"test: {len(classes):,} classes have no image, so what is asked of them is n/a: {told}"
        )


def _equal_files(root: Path, files: Sequence[Path], data_dir: Path | None) -> list[list[int]]:
    """Return the places of files whose bytes are equal, in groups; only such of equal size are read.

    The answer is kept below `data_dir` until a name, size or time changes.
    """
    kept = data_dir and data_dir / ".cache" / f"equal-files-{key_of(root, files)}.json"
    if kept and kept.is_file():
        return list(json.loads(kept.read_bytes()))
    by_size: dict[int, list[int]] = defaultdict(list)
    for place, path in enumerate(files):
        by_size[path.stat().st_size].append(place)
    by_content: dict[bytes, list[int]] = defaultdict(list)
    for places in by_size.values():
        for place in places if len(places) > 1 else ():
            by_content[hashlib.sha256(files[place].read_bytes()).digest()].append(place)
    groups = [places for places in by_content.values() if len(places) > 1]
    if kept:
        with contextlib.suppress(OSError):  # a read-only or full disk costs the time to read, no more
            write_text(kept, json.dumps(groups))
    return groups
