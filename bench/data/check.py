"""Holding a user's copy of a list-file data set against what is known of it, and against the disk."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from bench.cell import DataSet
from bench.data.known import KNOWN, Known, KnownList, git_blob
from bench.data.lists import Listing, read_list, read_lists
from bench.data.longtail import shot_groups
from bench.data.pictures import Pictures
from bench.errors import BenchError

MOST_TOLD = 5  # files of a kind

AS_PUBLISHED, COUNTS_AGREE, DIFFERS, UNKNOWN = "as published", "counts agree", "differs", "not known"


@dataclass(frozen=True)
class Part:
    """What one list file holds; `shots` are its many-, medium- and few-shot classes."""

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
    """All that a check found: `faults` have to be mended, `remarks` should be known."""

    parts: list[Part] = field(default_factory=list)
    there: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    remedies: list[str] = field(default_factory=list)


def check(
    dataset: DataSet, root: Path, *, decode: bool = False, report: Callable[[int], None] = lambda n: None
) -> Findings:
    """Read the lists of a data set in `root`, compare them, and look for every image they name.

    With `decode`, every image is decoded too; `report` is told how many were looked at.
    """
    findings, known = Findings(), KNOWN.get(dataset.copy_of or dataset.name)
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
            _check_overlap(listed.parts, findings)
            before = len(findings.faults)
            for part, listing in listed.parts.items():
                _check_images(part, root, listing, decode, report, findings)
            if len(findings.faults) > before and known is not None:
                findings.remedies.append(f"images: {known.images_from}")
    return findings


def _check_list(part: str, file: Path, dataset: DataSet, known: Known | None, findings: Findings) -> None:
    try:
        listing = read_list(file)
    except BenchError as error:
        findings.faults.append(f"{part} list: {error}")
        return
    counts = np.bincount(listing.labels)
    present = counts[counts > 0]
    groups = shot_groups(present, dataset.shots)
    many, medium, few = (len(groups[name]) for name in ("many", "medium", "few"))
    blob = git_blob(file.read_bytes())
    found = Part(
        part=part,
        file=file,
        images=len(listing),
        classes=len(present),
        most=int(present.max()),
        least=int(present.min()),
        shots=(many, medium, few),
        blob=blob,
        verdict=UNKNOWN,
    )
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


def _check_overlap(parts: dict[str, Listing], findings: Findings) -> None:
    """Find images that stand in a list twice, or in two lists."""
    seen: dict[bytes, str] = {}
    for part, listing in parts.items():
        twice = [path for path in listing.paths.tolist() if seen.setdefault(path, part) != part]
        again = len(listing) - len(np.unique(listing.paths))
        if twice:
            path = twice[0].decode()
            findings.faults.append(
                f"{part} list: {len(twice):,} images are in {seen[twice[0]]} too, as {path}"
            )
        if again:
            findings.remarks.append(f"{part} list: {again:,} lines repeat an image")


def _check_images(
    part: str, root: Path, listing: Listing, decode: bool, report: Callable[[int], None], findings: Findings
) -> None:
    pictures = Pictures(root, listing.paths, np.arange(len(listing)))

    def look(position: int) -> str:
        report(1)
        path = pictures.file(position)
        if not path.is_file():
            return "missing"
        if not path.stat().st_size:
            return "empty"
        if not decode:
            return "there"
        try:
            pixels = np.asarray(pictures.open(position))
        except BenchError:
            return "broken"
        return "there" if (pixels != pixels[0, 0]).any() else "of one colour"

    with ThreadPoolExecutor() as pool:  # Pillow and the file system let go of the interpreter
        states = list(pool.map(look, range(len(listing))))
    findings.there[part] = len(states) - states.count("missing")
    for state in sorted({*states} - {"there"}):
        places = [place for place, one in enumerate(states) if one == state]
        told = ", ".join(listing.path(place) for place in places[:MOST_TOLD])
        more = f" and {len(places) - MOST_TOLD:,} more" if len(places) > MOST_TOLD else ""
        line = f"{part}: {len(places):,} of {len(states):,} images {state}: {told}{more}"
        (findings.remarks if state == "of one colour" else findings.faults).append(line)
