"""Checks of a user's copy of a data set: published counts, files on disk, and agreement of its parts.

Repeated images are found by `bench.data.sets.repeats`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.cell import DataSet
from bench.data.read import decoding, folder
from bench.data.read.containers import index
from bench.data.read.listing import listed
from bench.data.read.lists import read_list, read_lists
from bench.data.read.pictures import Pictures, pictures
from bench.data.read.readers import KINDS, items
from bench.data.sets.findings import (
    AS_PUBLISHED,
    COUNTS_AGREE,
    DIFFERS,
    MOST_LISTED,
    Findings,
    PartSummary,
    summarise,
)
from bench.data.sets.known import KNOWN, Known, KnownList, git_blob
from bench.data.sets.repeats import compare_containers, compare_contents, compare_lists, compare_trees
from bench.data.split.extra import read_extra
from bench.errors import BenchError, printable

PRESENT = "present"  # the state of an image without a fault


def check(
    dataset: DataSet,
    root: Path,
    *,
    data_dir: Path | None = None,
    decode: bool = False,
    report: Callable[[int], None] = lambda n: None,
) -> Findings:
    """Check the lists or folders of a data set in `root`, whether they agree, and every image.

    Args:
        data_dir: where results are cached.
        decode: whether to decode every image too.
        report: is called with the number of images checked since its last call.
    """
    findings = Findings()
    if dataset.source == "folder":
        _check_tree(dataset, root, data_dir, decode, report, findings)
    elif dataset.source in KINDS:
        _check_containers(dataset, root, data_dir or root, decode, report, findings)
    else:
        _check_lists(dataset, root, decode, report, findings)
    (findings.remarks if dataset.allow_leak else findings.faults).extend(findings.leaks)
    findings.faults = [*map(printable, findings.faults)]
    findings.remarks = [*map(printable, findings.remarks)]
    return findings


def before_training(dataset: DataSet, data_dir: Path, class_counts: np.ndarray) -> list[str]:
    """Do those parts of `check` that take only seconds, and return the remarks.

    Args:
        class_counts: (C,) training images of each class, on which the choice of extra images depends.

    Raises:
        BenchError: the faults, a line each.
    """
    findings = Findings()
    if dataset.source == "folder":
        root = folder.root_of(dataset, data_dir)
        parts = folder.list_tree(root, dataset.parts)
        extra = read_extra(dataset, class_counts, tuple(parts["train"].classes), data_dir)
        compare_trees(dataset, root, data_dir, parts, extra, findings, by_bytes=not dataset.on_disk)
    elif dataset.source == "list" or dataset.source in KINDS:
        lists = listed(dataset, data_dir)
        extra = read_extra(dataset, class_counts, lists.class_names, data_dir)
        if dataset.source == "list":
            compare_lists(lists.root, lists.parts, len(lists.class_names), extra, findings)
        else:
            compare_containers(dataset, data_dir, lists, extra, findings)
    if dataset.on_disk:
        lists = listed(dataset, data_dir)
        for listing in lists.parts.values():
            pictures(dataset, data_dir, lists.root, listing).sizes()  # raises if an image is missing
    if findings.leaks and not dataset.allow_leak:
        remedy = "remove them, or give the data set allow_leak: true"
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
            lists = read_lists(dataset.model_copy(update={"folder": "."}), root)
        except BenchError as error:
            findings.faults.append(str(error))
        else:
            compare_lists(root, lists.parts, len(lists.class_names), None, findings)
            if decode:
                compare_contents(root, lists.parts, findings)
            before = len(findings.faults)
            for part, listing in lists.parts.items():
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
        parts = folder.list_tree(root, dataset.parts)
    except BenchError as error:
        findings.faults.append(str(error))
        return
    for name, part in parts.items():
        counts = np.array([len(files) for files in part.classes.values()])
        findings.parts.append(summarise(name, root / name, counts, dataset))
        paths = np.array([os.fsencode(path.relative_to(root)) for path in part.files])
        images = Pictures(root, paths, np.arange(len(paths)), upright=dataset.upright)
        _check_images(name, images, decode, report, findings)
    by_bytes = decode or not dataset.on_disk
    compare_trees(dataset, root, data_dir, parts, None, findings, by_bytes=by_bytes)


def _check_containers(
    dataset: DataSet,
    root: Path,
    data_dir: Path,
    decode: bool,
    report: Callable[[int], None],
    findings: Findings,
) -> None:
    try:
        found = index(dataset, root, data_dir)
    except BenchError as error:
        findings.faults.append(str(error))
        return
    for part, listing in found.parts.items():
        findings.parts.append(summarise(part, listing.file, np.bincount(listing.labels), dataset))
        names = [name.decode() for name in listing.paths.tolist()]
        states, peculiarities = [PRESENT] * len(listing), dict[int, str]()
        for i, item in enumerate(items(dataset, root, part) if decode else ()):
            states[i], peculiarity = _decoded(item.content, dataset.upright)
            if peculiarity:
                peculiarities[i] = peculiarity
            report(1)
        _add_states(part, states, peculiarities, names.__getitem__, findings)
    compare_containers(dataset, data_dir, found, None, findings)


def _check_list(part: str, file: Path, dataset: DataSet, known: Known | None, findings: Findings) -> None:
    try:
        listing = read_list(file)
    except BenchError as error:
        findings.faults.append(f"{part} list: {error}")
        return
    blob = git_blob(file.read_bytes())
    found = summarise(part, file, np.bincount(listing.labels), dataset, blob)
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


def _differences(found: PartSummary, classes: int, published: KnownList) -> list[str]:
    pairs: dict[str, tuple[int | tuple[int, ...], int | tuple[int, ...]]] = {
        "images": (found.images, published.images),
        "classes": (found.classes, classes),
        "images in the largest class": (found.most, published.most),
        "images in the smallest class": (found.least, published.least),
        "many/medium/few classes": (found.shots, published.shots or found.shots),
    }
    return [
        f"{_text(value)} {what} instead of {_text(expected)}"
        for what, (value, expected) in pairs.items()
        if value != expected
    ]


def _text(value: int | tuple[int, ...]) -> str:
    return f"{value:,}" if isinstance(value, int) else "/".join(map(str, value))


# -- the images ----------------------------------------------------------------------------------------
def _check_images(
    part: str, images: Pictures, decode: bool, report: Callable[[int], None], findings: Findings
) -> None:
    peculiarities: dict[int, str] = {}

    def state_of(position: int) -> str:
        report(1)
        path = images.file(position)
        if not path.is_file():
            return "missing"
        if not path.stat().st_size:
            return "empty"
        if not decode:
            return PRESENT
        state, peculiarity = _decoded(path, images.upright)
        if peculiarity:
            peculiarities[position] = peculiarity
        return state

    with ThreadPoolExecutor() as pool:  # Pillow and the file system release the GIL
        states = list(pool.map(state_of, range(len(images))))
    _add_states(part, states, peculiarities, lambda i: str(images.file(i).relative_to(images.root)), findings)


def _decoded(content: Path | bytes, upright: bool) -> tuple[str, str]:
    """Decode an image, and return its state and what the rules of decoding ignore in it ("" for nothing)."""
    try:
        pixels = np.asarray(decoding.decode(content, upright=upright))
        peculiarity = decoding.peculiarity(content, upright=upright)
    except Exception:  # the exception depends on the format
        return "broken", ""
    return PRESENT if (pixels != pixels[0, 0]).any() else "of one colour", peculiarity


def _add_states(
    part: str,
    states: Sequence[str],
    peculiarities: Mapping[int, str],
    name_of: Callable[[int], str],
    findings: Findings,
) -> None:
    """Add a line for each state that images have, except `PRESENT`."""
    findings.present[part] = len(states) - states.count("missing")
    pairs = [*enumerate(states), *sorted(peculiarities.items())]
    for state in sorted({state for _, state in pairs} - {PRESENT}):
        positions = [i for i, one in pairs if one == state]
        names = ", ".join(map(name_of, positions[:MOST_LISTED]))
        more = f" and {len(positions) - MOST_LISTED:,} more" if len(positions) > MOST_LISTED else ""
        line = f"{part}: {len(positions):,} of {len(states):,} images {state}: {names}{more}"
        (findings.faults if state in ("missing", "empty", "broken") else findings.remarks).append(line)
