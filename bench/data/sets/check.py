"""Checks of a user's copy of a data set: published counts, files on disk, and agreement of its parts.

Repeated images are found by `bench.data.sets.repeats`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
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
    Findings,
    PartSummary,
    summarise,
)
from bench.data.sets.known import KNOWN, Known, KnownList, git_blob
from bench.data.sets.repeats import compare_containers, compare_contents, compare_lists, compare_trees
from bench.data.split.extra import read_extra
from bench.errors import BenchError, first_of, printable


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
    checked = _Check(dataset, root, data_dir, decode, report, findings)
    if dataset.source == "folder":
        checked.tree()
    elif dataset.source in KINDS:
        checked.containers()
    else:
        checked.lists()
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


@dataclass(frozen=True)
class _Check:
    """A check of one data set, with the arguments of `check`."""

    dataset: DataSet
    root: Path
    data_dir: Path | None
    decode: bool
    report: Callable[[int], None]
    findings: Findings

    def lists(self) -> None:
        """Check list files and their images."""
        findings, known = self.findings, KNOWN.get(self.dataset.copy_of or self.dataset.name)
        assert self.dataset.lists is not None
        parts = ("train", "val", "test")
        files = {part: name for part in parts if (name := getattr(self.dataset.lists, part)) is not None}
        for part, name in files.items():
            self._list(part, self.root / name, known)
        if findings.faults and known is not None:
            findings.remedies.append(f"lists: {known.lists_from}")
        if len(findings.parts) < len(files):
            return
        try:
            lists = read_lists(self.dataset.model_copy(update={"folder": "."}), self.root)
        except BenchError as error:
            findings.faults.append(str(error))
            return
        compare_lists(self.root, lists.parts, len(lists.class_names), None, findings)
        if self.decode:
            compare_contents(self.root, lists.parts, findings)
        before = len(findings.faults)
        for part, listing in lists.parts.items():
            self._images(part, listing.paths)
        if len(findings.faults) > before and known is not None:
            findings.remedies.append(f"images: {known.images_from}")

    def tree(self) -> None:
        """Check a folder tree."""
        try:
            parts = folder.list_tree(self.root, self.dataset.parts)
        except BenchError as error:
            self.findings.faults.append(str(error))
            return
        for name, part in parts.items():
            counts = np.array([len(files) for files in part.classes.values()])
            self.findings.parts.append(summarise(name, self.root / name, counts, self.dataset))
            self._images(name, np.array([os.fsencode(path.relative_to(self.root)) for path in part.files]))
        by_bytes = self.decode or not self.dataset.on_disk
        compare_trees(self.dataset, self.root, self.data_dir, parts, None, self.findings, by_bytes=by_bytes)

    def containers(self) -> None:
        """Check images inside larger files."""
        dataset, data_dir = self.dataset, self.data_dir or self.root
        try:
            found = index(dataset, self.root, data_dir)
        except BenchError as error:
            self.findings.faults.append(str(error))
            return
        for part, listing in found.parts.items():
            self.findings.parts.append(summarise(part, listing.file, np.bincount(listing.labels), dataset))
            states: list[tuple[str, ...]] = [()] * len(listing)
            for i, item in enumerate(items(dataset, self.root, part) if self.decode else ()):
                states[i] = _decoded(item.content, dataset.upright)
                self.report(1)
            self._add_states(part, states, listing.path)
        compare_containers(dataset, data_dir, found, None, self.findings)

    def _list(self, part: str, file: Path, known: Known | None) -> None:
        try:
            listing = read_list(file)
        except BenchError as error:
            self.findings.faults.append(f"{part} list: {error}")
            return
        blob = git_blob(file.read_bytes())
        found = summarise(part, file, np.bincount(listing.labels), self.dataset, blob)
        published = known.lists.get(part) if known else None
        if known is not None and published is not None:
            differences = _differences(found, known.classes, published)
            verdict = DIFFERS if differences else COUNTS_AGREE
            found = replace(found, verdict=AS_PUBLISHED if blob in published.blobs else verdict)
            if found.verdict == DIFFERS:
                self.findings.faults.append(f"{part} list: {file}: {', '.join(differences)}")
            elif found.verdict == COUNTS_AGREE:
                self.findings.remarks.append(
                    f"{file}: not byte for byte a list we know (git blob {blob[:12]})"
                )
        self.findings.parts.append(found)

    def _images(self, part: str, paths: np.ndarray) -> None:
        """Check the files `paths` (n,) of a part."""
        images = Pictures(self.root, paths, np.arange(len(paths)), upright=self.dataset.upright)

        def states_of(position: int) -> tuple[str, ...]:
            self.report(1)
            path = images.file(position)
            if not path.is_file():
                return ("missing",)
            if not path.stat().st_size:
                return ("empty",)
            return _decoded(path, images.upright) if self.decode else ()

        with ThreadPoolExecutor() as pool:  # Pillow and the file system release the GIL
            states = list(pool.map(states_of, range(len(images))))
        self._add_states(part, states, lambda i: str(images.file(i).relative_to(images.root)))

    def _add_states(
        self, part: str, states: Sequence[tuple[str, ...]], name_of: Callable[[int], str]
    ) -> None:
        """Add a line for each state that images have."""
        self.findings.present[part] = len(states) - states.count(("missing",))
        for state in sorted({state for some in states for state in some}):
            positions = [i for i, some in enumerate(states) if state in some]
            names = first_of(positions, name=name_of)
            line = f"{part}: {len(positions):,} of {len(states):,} images {state}: {names}"
            fault = state in ("missing", "empty", "broken")
            (self.findings.faults if fault else self.findings.remarks).append(line)


def _decoded(content: Path | bytes, upright: bool) -> tuple[str, ...]:
    """Decode an image, and return what is wrong or peculiar about it."""
    try:
        pixels = np.asarray(decoding.decode(content, upright=upright))
        peculiarity = decoding.peculiarity(content, upright=upright)
    except Exception:  # the exception depends on the format
        return ("broken",)
    uniform = not (pixels != pixels[0, 0]).any()
    return tuple(filter(None, ("of one colour" if uniform else "", peculiarity)))


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
