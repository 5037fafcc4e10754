"""The formats of containers: parquet as on the Hugging Face Hub, `datasets` on disk, WebDataset shards.

Each is read sequentially by its package.
"""

from __future__ import annotations

import fnmatch
import importlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.cell import Columns, DataSet
from bench.data.read import decoding
from bench.data.read.folder import part_names
from bench.errors import BenchError, did_you_mean, first_of

#: Source -> the suffix of its files. The package that reads them is an extra with the source's name.
KINDS = {"parquet": ".parquet", "datasets": ".arrow", "webdataset": ".tar"}

_AT_ONCE = 256  # rows


class Item(NamedTuple):
    """A stored image: its name, its encoded bytes, and its label, a number or a word."""

    name: str
    content: bytes
    label: int | str


def files_in(dataset: DataSet, root: Path) -> list[Path]:
    """Return all files of a data set that contain images, sorted by path."""
    ending = KINDS[dataset.source]
    found = [path for path in root.rglob(f"*{ending}") if not path.name.startswith(".")]
    if not found:
        raise BenchError(f"{root}: no {ending} file in this folder, which source: {dataset.source} needs")
    return sorted(found)


def items(dataset: DataSet, root: Path, part: str) -> Iterator[Item]:
    """Yield the images of a part in the order of its files.

    Raises:
        BenchError: the package is not installed, a part or a column is missing, or a file is damaged.
    """
    read = {"parquet": _of_parquet, "datasets": _of_datasets, "webdataset": _of_webdataset}[dataset.source]
    try:
        yield from read(dataset, root, part)
    except BenchError:
        raise
    except Exception as error:  # the exception depends on the format
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise BenchError(f"{root}: not readable as {dataset.source} ({reason}); fetch it again") from error


def class_names(dataset: DataSet, root: Path) -> tuple[str, ...] | None:
    """Return the class names in the order of labels, None if the files do not have them."""
    if dataset.source == "webdataset":
        return None
    schema = _schema(dataset, root)
    feature = _features(schema).get(_columns(schema, dataset, root)[1]) or {}
    names = feature.get("names")
    return tuple(names) if names else None


# -- parts -----------------------------------------------------------------------------------------
def files_called(dataset: DataSet, root: Path, name: str) -> list[Path]:
    """Return the files of a part: those that match a pattern, or have its name as a word.

    The word is looked for in the names of the files, and only if none has it in their paths.
    """
    files = {path.relative_to(root).as_posix(): path for path in files_in(dataset, root)}
    if "*" in name or "?" in name:
        return [path for relative, path in files.items() if fnmatch.fnmatchcase(relative, name)]
    word = re.compile(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])")
    by_name = [path for path in files.values() if word.search(path.name)]
    return by_name or [path for relative, path in files.items() if word.search(relative)]


def _files_of(dataset: DataSet, root: Path, part: str) -> list[Path]:
    name = part_names(dataset.parts, lambda name: bool(files_called(dataset, root, name)))[part]
    found = files_called(dataset, root, name)
    if not found:
        paths = [path.relative_to(root).as_posix() for path in files_in(dataset, root)]
        raise BenchError(
            f"{root}: no file of {part}: none has {name!r} in its path; there are {first_of(paths)}; name "
            f"them with parts: {{{part}: PATTERN}}"
        )
    return found


# -- parquet and datasets: tables -------------------------------------------------------------------
def _of_parquet(dataset: DataSet, root: Path, part: str) -> Iterator[Item]:
    parquet = _package(dataset, "pyarrow.parquet")
    row = 0
    for path in _files_of(dataset, root, part):
        with parquet.ParquetFile(path) as file:
            columns = _columns(file.schema_arrow, dataset, path)
            for batch in file.iter_batches(_AT_ONCE, columns=list(columns)):
                yield from _rows(batch, columns, path, row)
                row += len(batch)


def _of_datasets(dataset: DataSet, root: Path, part: str) -> Iterator[Item]:
    split = _splits(dataset, root)
    name = part_names(dataset.parts, split.__contains__)[part]
    if name not in split:
        raise BenchError(
            f"{root}: no split {name!r}{did_you_mean(name, split)}; there are {', '.join(split)}; name it "
            f"with parts: {{{part}: NAME}}"
        )
    columns = _columns(split[name].features.arrow_schema, dataset, root)
    chosen = split[name].select_columns(list(dict.fromkeys(columns))).with_format("arrow")
    row = 0
    for batch in chosen.iter(_AT_ONCE):
        yield from _rows(batch, columns, root, row)
        row += len(batch)


def _splits(dataset: DataSet, root: Path) -> Any:
    found = _package(dataset, "datasets").load_from_disk(str(root))
    if not isinstance(found, dict):
        raise BenchError(f"{root}: one split only; save a DatasetDict that has train and test")
    return found


def _schema(dataset: DataSet, root: Path) -> Any:
    if dataset.source == "datasets":
        split = _splits(dataset, root)
        return split[part_names(dataset.parts, split.__contains__)["train"]].features.arrow_schema
    return _package(dataset, "pyarrow.parquet").read_schema(_files_of(dataset, root, "train")[0])


def _features(schema: Any) -> dict[str, Any]:
    """Return the features that `datasets` stored for the columns, if any."""
    metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    return dict(metadata.get("info", {}).get("features") or {})


def _columns(schema: Any, dataset: DataSet, where: Path) -> tuple[str, str]:
    """Return the names of the columns of images and of labels."""
    types = _package(dataset, "pyarrow.types")
    asked = dataset.columns or Columns()

    def is_image(kind: Any) -> bool:
        if types.is_struct(kind):
            return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    def is_label(kind: Any) -> bool:
        return bool(types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind))

    def column(what: str, asked: str | None, usual: Sequence[str], fits: Any) -> str:
        listed = ", ".join(schema.names)
        if asked is not None and asked not in schema.names:
            near = did_you_mean(asked, schema.names)
            raise BenchError(f"{where}: no column {asked!r}{near}; there are {listed}")
        fitting = [field.name for field in schema if fits(field.type)]
        named = [name for name in ((asked,) if asked else usual) if name in fitting]
        if named or (asked is None and len(fitting) == 1):
            return str((named or fitting)[0])
        if asked is not None:
            raise BenchError(f"{where}: column {asked!r} is {schema.field(asked).type}, which is no {what}")
        several = "more than one column" if fitting else "no column"
        raise BenchError(
            f"{where}: {several} may have the {what}; there are {listed}; name it with "
            f"columns: {{{what}: NAME}}"
        )

    return (
        column("image", asked.image, ("image", "img"), is_image),
        column("label", asked.label, ("label",), is_label),
    )


def _rows(batch: Any, columns: tuple[str, str], where: Path, row: int) -> Iterator[Item]:
    images, labels = (batch.column(name).to_pylist() for name in columns)
    for number, (image, label) in enumerate(zip(images, labels, strict=True), start=row):
        stored = image if isinstance(image, dict) else {"bytes": image}
        content, path = stored.get("bytes"), stored.get("path")
        if not content:
            raise BenchError(f"{where}: row {number} has no image bytes; embed the files that it names")
        if label is None:
            raise BenchError(f"{where}: row {number} has no label; remove it")
        yield Item(str(path or number), content, label)


# -- WebDataset ------------------------------------------------------------------------------------
def _of_webdataset(dataset: DataSet, root: Path, part: str) -> Iterator[Item]:
    webdataset = _package(dataset, "webdataset")
    asked = dataset.columns or Columns()
    urls = [str(path) for path in _files_of(dataset, root, part)]
    samples = webdataset.WebDataset(urls, shardshuffle=False, nodesplitter=None, workersplitter=None)
    for sample in samples:
        fields = {name: value for name, value in sample.items() if not name.startswith("__")}
        suffixes = decoding.suffixes()
        images = (name for name in fields if f".{name.rpartition('.')[2]}" in suffixes)
        image = asked.image or next(images, "jpg")
        label = asked.label or "cls"
        for what, name in (("image", image), ("label", label)):
            if name not in fields:
                raise BenchError(
                    f"{sample['__url__']}: {sample['__key__']} has no {name!r}; there are "
                    f"{', '.join(fields)}; name it with columns: {{{what}: NAME}}"
                )
        word = fields[label].decode().strip()
        number = int(word) if re.fullmatch(r"-?\d{1,9}", word) else word
        yield Item(f"{sample['__key__']}.{image}", fields[image], number)


def _package(dataset: DataSet, name: str) -> Any:
    package, extra = name.partition(".")[0], dataset.source
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise BenchError(
            f"{dataset.name}: source: {extra} needs {package}, which is not installed: "
            f"pip install -e '.[{extra}]'"
        ) from error
    return importlib.import_module(name)
