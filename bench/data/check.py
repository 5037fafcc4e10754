"""Holding a user's copy of a data set against what is known of it, against the disk, and against itself.

Of list files an image is known by its path (with `decode` by its bytes too, for a remark), of a folder tree
by its bytes. In two parts it is a *leak*, which a recipe may allow; in a list twice, or of two labels, it is
a fault. A folder tree that is a copy of a published set keeps what labels that set gives twice, so there it
is a remark, and so is an image that a class has twice, for which the tree may have reasons.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from bench.cell import DataSet
from bench.data import folder
from bench.data.cache import key_of
from bench.data.decoding import peculiar
from bench.data.extra import Extra, read_extra
from bench.data.known import KNOWN, Known, KnownList, git_blob
from bench.data.lists import Listing, read_list, read_lists
from bench.data.longtail import shot_groups
from bench.data.pictures import Pictures, pictures
from bench.errors import BenchError, printable
from bench.files import write_text

MOST_TOLD = 5  # files of a kind

AS_PUBLISHED, COUNTS_AGREE, DIFFERS, UNKNOWN = "as published", "counts agree", "differs", "not known"


@dataclass(frozen=True)
class Part:
    """What one list file, or a part's folder, holds; `shots` are its many-, medium- and few-shot classes."""

    part: str
    file: Path
    images: int
    classes: int
    most: int
    least: int
    shots: tuple[int, int, int]
    blob: str
    verdict: str


@dataclass
class Findings:
    """All that a check found: `faults` have to be mended, `remarks` should be known.

    `leaks` are images in two parts: faults as well, unless the data set allows them.
    """

    parts: list[Part] = field(default_factory=list)
    there: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    remedies: list[str] = field(default_factory=list)


def check(
    dataset: DataSet,
    root: Path,
    *,
    data_dir: Path | None = None,
    decode: bool = False,
    report: Callable[[int], None] = lambda n: None,
) -> Findings:
    """Look at a data set in `root`: its lists or folders, held against each other, and every image.

    With `decode`, every image is decoded too; `report` is told how many were looked at. What is found of a
    tree's files is kept below `data_dir`.
    """
    findings = Findings()
    if dataset.source == "folder":
        _check_tree(dataset, root, data_dir, decode, report, findings)
    else:
        _check_lists(dataset, root, decode, report, findings)
    (findings.remarks if dataset.allow_leak else findings.faults).extend(findings.leaks)
    findings.faults, findings.remarks = (
        [*map(printable, some)] for some in (findings.faults, findings.remarks)
    )
    return findings


def before_training(dataset: DataSet, data_dir: Path, class_counts: np.ndarray) -> list[str]:
    """Do what `check` does and costs seconds, and return its remarks.

    Args:
        class_counts: (C,) training images of each class, by which extra images are chosen.

    Raises:
        BenchError: its faults, a line each.
    """
    findings = Findings()
    if dataset.source == "folder" and dataset.folder:
        root = folder.below(data_dir, dataset.folder, dataset.name)
        train, test = folder.list_tree(root)
        extra = read_extra(dataset, class_counts, tuple(train.classes), data_dir)
        _compare_files(dataset, root, data_dir, train, test, extra, findings)
    elif dataset.source == "list":
        lists = read_lists(dataset, data_dir)
        extra = read_extra(dataset, class_counts, lists.class_names, data_dir)
        _compare_lists(lists.root, lists.parts, len(lists.class_names), extra, findings)
        for listing in lists.parts.values():
            pictures(dataset, data_dir, lists.root, listing).sizes()  # all are there, or packed
    if findings.leaks and not dataset.allow_leak:
        remedy = "take them out, or say allow_leak: true of the data set"
        findings.faults += [f"{leak}; {remedy}" for leak in findings.leaks]
    if findings.faults:
        raise BenchError("\n".join(f"{dataset.name}: {fault}" for fault in findings.faults))
    return [printable(remark) for remark in findings.remarks + findings.leaks]


def _check_lists(
    dataset: DataSet, root: Path, decode: bool, report: Callable[[int], None], findings: Findings
) -> None:
    known = KNOWN.get(dataset.copy_of or dataset.name)
    assert dataset.lists is not None
    files = {"train": dataset.lists.train, "val": dataset.lists.val, "test": dataset.lists.test}
    for part, name in files.items():
        if name is not None:
            _check_list(part, root / name, dataset, known, findings)
    if findings.faults and known is not None:
        findings.remedies.append(f"lists: {known.lists_from}")
    if len(findings.parts) == sum(name is not None for name in files.values()):
        try:
            listed = read_lists(dataset.model_copy(update={"folder": "."}), root)
        except BenchError as error:
            findings.faults.append(str(error))
        else:
            _compare_lists(root, listed.parts, len(listed.class_names), None, findings)
            if decode:
                _compare_contents(root, listed.parts, findings)
            before = len(findings.faults)
            for part, listing in listed.parts.items():
                images = Pictures(root, listing.paths, np.arange(len(listing)), upright=dataset.upright)
                _check_images(part, images, decode, report, findings)
            if len(findings.faults) > before and known is not None:
                findings.remedies.append(f"images: {known.images_from}")


def _check_tree(
    dataset: DataSet,
    root: Path,
    data_dir: Path | None,
    decode: bool,
    report: Callable[[int], None],
    findings: Findings,
) -> None:
    try:
        train, test = folder.list_tree(root)
    except BenchError as error:
        findings.faults.append(str(error))
        return
    for name, part in (("train", train), ("test", test)):
        counts = np.array([len(files) for files in part.classes.values()])
        findings.parts.append(_part(name, root / name, counts, dataset))
        paths = np.array([os.fsencode(path.relative_to(root)) for path in part.files])
        images = Pictures(root, paths, np.arange(len(paths)), upright=dataset.upright)
        _check_images(name, images, decode, report, findings)
    _compare_files(dataset, root, data_dir, train, test, None, findings)


def _part(part: str, file: Path, counts: np.ndarray, dataset: DataSet, blob: str = "") -> Part:
    present = counts[counts > 0]
    groups = shot_groups(present, dataset.shots)
    return Part(
        part=part,
        file=file,
        images=int(counts.sum()),
        classes=len(present),
        most=int(present.max()),
        least=int(present.min()),
        shots=(len(groups["many"]), len(groups["medium"]), len(groups["few"])),
        blob=blob,
        verdict=UNKNOWN,
    )


def _check_list(part: str, file: Path, dataset: DataSet, known: Known | None, findings: Findings) -> None:
    try:
        listing = read_list(file)
    except BenchError as error:
        findings.faults.append(f"{part} list: {error}")
        return
    blob = git_blob(file.read_bytes())
    found = _part(part, file, np.bincount(listing.labels), dataset, blob)
    published = known.lists.get(part) if known else None
    if known is not None and published is not None:
        differences = _differences(found, known.classes, published)
        verdict = DIFFERS if differences else COUNTS_AGREE
        found = replace(found, verdict=AS_PUBLISHED if blob in published.blobs else verdict)
        if found.verdict == DIFFERS:
            findings.faults.append(f"{part} list: {file}: {', '.join(differences)}")
        elif found.verdict == COUNTS_AGREE:
            findings.remarks.append(f"{file}: not byte for byte a list we know (git blob {blob[:12]})")
    findings.parts.append(found)


def _differences(found: Part, classes: int, published: KnownList) -> list[str]:
    pairs: dict[str, tuple[int | tuple[int, ...], int | tuple[int, ...]]] = {
        "images": (found.images, published.images),
        "classes": (found.classes, classes),
        "images in the largest class": (found.most, published.most),
        "images in the smallest class": (found.least, published.least),
        "many/medium/few classes": (found.shots, published.shots or found.shots),
    }
    return [
        f"{_shown(ours)} {what} instead of {_shown(theirs)}"
        for what, (ours, theirs) in pairs.items()
        if ours != theirs
    ]


def _shown(value: int | tuple[int, ...]) -> str:
    return f"{value:,}" if isinstance(value, int) else "/".join(map(str, value))


# -- images that are there more than once ---------------------------------------------------------------
@dataclass(frozen=True)
class _Shown:
    """One showing of an image: in which part, of which label, and how it is called there."""

    part: str
    label: int
    name: str


def _compare_lists(
    root: Path, parts: Mapping[str, Listing], classes: int, extra: Extra | None, findings: Findings
) -> None:
    """Find paths that stand in the lists twice, and classes without test images."""
    shown: dict[str, list[_Shown]] = defaultdict(list)
    for part, listing in parts.items():
        labels = listing.labels.tolist()
        for place, (path, label) in enumerate(zip(listing.paths.tolist(), labels, strict=True)):
            name = os.path.normpath(path.decode())
            shown[name].append(_Shown(part, label, f"{listing.file.name}:{listing.lines[place]}"))
    if extra is not None:
        for path, label in _of_extra(extra):
            name = os.path.relpath(path, root)
            if name in shown:
                shown[name].append(_Shown("extra_train", label, str(path)))
    twice = {name: some for name, some in shown.items() if len(some) > 1}
    _tell_twice(twice, "lines", findings.faults, findings.faults, findings)
    tested = np.bincount(parts["test"].labels, minlength=classes)
    _tell_untested([str(label) for label in np.flatnonzero(tested == 0)], findings)


def _compare_files(
    dataset: DataSet,
    root: Path,
    data_dir: Path | None,
    train: folder.Part,
    test: folder.Part,
    extra: Extra | None,
    findings: Findings,
) -> None:
    """Find files of equal content, classes without test images, and files that are not read."""
    shown: list[tuple[Path, _Shown]] = []
    for name, part in (("train", train), ("test", test)):
        labelled = zip(part.files, folder.labels_of(part.classes).tolist(), strict=True)
        shown += [(path, _Shown(name, label, str(path))) for path, label in labelled]
    if extra is not None:
        shown += [(path, _Shown("extra_train", label, str(path))) for path, label in _of_extra(extra)]
    groups = _equal_files(root, [path for path, _ in shown], data_dir)
    twice = {shown[group[0]][1].name: [shown[i][1] for i in group] for group in groups}
    as_published = dataset.copy_of is not None
    of_two_labels = findings.remarks if as_published else findings.faults
    _tell_twice(twice, "images", findings.remarks, of_two_labels, findings)
    _tell_untested([name for name, files in test.classes.items() if not files], findings)
    others = [*train.passed_over, *test.passed_over, *(extra.passed_over if extra else ())]
    findings.remarks += folder.passed_over(others)


def _compare_contents(root: Path, parts: Mapping[str, Listing], findings: Findings) -> None:
    """Remark on images of lists whose bytes are equal, which published lists have too."""
    shown: dict[Path, _Shown] = {}
    for part, listing in parts.items():
        for place, label in enumerate(listing.labels.tolist()):
            path = root / listing.path(place)
            if path.is_file():
                shown.setdefault(path, _Shown(part, label, listing.path(place)))
    each = list(shown.values())
    groups = {str(group[0]): [each[i] for i in group] for group in _equal_files(root, list(shown), None)}
    found = Findings()
    _tell_twice(groups, "images", found.remarks, found.remarks, found)
    findings.remarks += [f"{line} (by their bytes)" for line in found.remarks + found.leaks]


def _of_extra(extra: Extra) -> Iterator[tuple[Path, int]]:
    for label, files in enumerate(extra.classes.values()):
        yield from ((path, label) for path in files)


def _tell_twice(
    groups: Mapping[str, Sequence[_Shown]],
    what: str,
    of_one_label: list[str],
    of_two_labels: list[str],
    findings: Findings,
) -> None:
    """Tell of images that are there more than once: in one part, in one with two labels, in two parts."""
    again: dict[str, list[Sequence[_Shown]]] = defaultdict(list)
    against: dict[str, list[Sequence[_Shown]]] = defaultdict(list)
    leaks: dict[tuple[str, str], list[Sequence[_Shown]]] = defaultdict(list)
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


def _named(groups: Sequence[Sequence[_Shown]], labels: bool = False) -> str:
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


# -- the images ----------------------------------------------------------------------------------------
def _check_images(
    part: str, images: Pictures, decode: bool, report: Callable[[int], None], findings: Findings
) -> None:
    peculiarities: dict[int, str] = {}

    def look(position: int) -> str:
        report(1)
        path = images.file(position)
        if not path.is_file():
            return "missing"
        if not path.stat().st_size:
            return "empty"
        if not decode:
            return "there"
        try:
            pixels = np.asarray(images.open(position))
            if peculiarity := peculiar(path, upright=images.upright):
                peculiarities[position] = peculiarity
        except BenchError:
            return "broken"
        return "there" if (pixels != pixels[0, 0]).any() else "of one colour"

    with ThreadPoolExecutor() as pool:  # Pillow and the file system let go of the interpreter
        states = list(pool.map(look, range(len(images))))
    findings.there[part] = len(states) - states.count("missing")
    told_of = [*enumerate(states), *sorted(peculiarities.items())]
    for state in sorted({state for _, state in told_of} - {"there"}):
        places = [place for place, one in told_of if one == state]
        told = ", ".join(str(images.file(place).relative_to(images.root)) for place in places[:MOST_TOLD])
        more = f" and {len(places) - MOST_TOLD:,} more" if len(places) > MOST_TOLD else ""
        line = f"{part}: {len(places):,} of {len(states):,} images {state}: {told}{more}"
        (findings.faults if state in ("missing", "empty", "broken") else findings.remarks).append(line)
