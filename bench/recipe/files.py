"""A recipe's file, the files it includes and the changes of `--set`, as one tree."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path

from bench.errors import BenchError, did_you_mean
from bench.recipe.tree import Node, join, merge, nest, shown
from bench.recipe.yaml_text import DEEPEST, compose
from bench.shipped import RECIPES

LARGEST_FILE = 256 * 1024  # bytes

#: The name of a folder that has recipes, in itself or in its folders.
FOLDER = "recipes"


def find(path: Path) -> Path:
    """Return a recipe's file: the one at `path`, or else the one with its name in the folders of recipes.

    So `quick`, `quick.yaml` and `recipes/quick.yaml` are `recipes/digits/quick.yaml`, here or else as this
    project ships it. If there is no such file, `path` is returned.

    Raises:
        BenchError: several recipes have the name.
    """
    if path.parent.name == FOLDER:
        homes = [path.parent, RECIPES] if path.parent == Path(FOLDER) else [path.parent]
    else:
        homes = [Path(FOLDER), RECIPES] if path.parent == Path() else []
    name = path.name if path.suffix in (".yaml", ".yml") else f"{path.name}.yaml"
    if os.path.isfile(path):  # Path.is_file raises if no file can have such a name
        return path
    return _search(homes, name, lambda message: BenchError(f"{path}: {message}")) or path


def _search(homes: Sequence[Path], name: str, fault: Callable[[str], BenchError]) -> Path | None:
    """Return the file of that name from the first folder of recipes that has one, None if there is none."""
    for home in homes:
        found = [file for file in recipes(home) if file.name == name]
        if len(found) > 1:
            raise fault(f"is {' and '.join(map(str, found))}; name one of them with its folder")
        if found:
            return found[0]
    return None


def recipes(home: Path) -> list[Path]:
    """Return the YAML files of a folder, sorted by name; for a `FOLDER` also those in its folders."""
    patterns = ("*.y*ml", "*/*.y*ml") if home.name == FOLDER else ("*.y*ml",)
    found = [file for pattern in patterns for file in home.glob(pattern) if not file.name.startswith(".")]
    return sorted(found, key=lambda file: (file.name, str(file)))


def read(path: Path, sets: Sequence[str] = ()) -> tuple[Node, str]:
    """Return the tree of a recipe and its notes, the block of comments it begins with.

    A file overrides those it includes; `sets` ("key=value") override everything.

    Raises:
        BenchError: a file is missing or not YAML, an include leaves the recipes or leads back to itself,
            two included files disagree, or a `--set` is malformed.
    """
    path = find(path)
    text = _text(path, lambda message: BenchError(f"{path}: {message}"))
    tree = _with_includes(text, (path,))
    for change in sets:
        tree = merge(tree, _change(change))
    for node in tree.walk():
        if node.rival:
            raise node.fault(f"{node.rival} has another value; set one in {path}")
    return tree, _notes(text)


def _with_includes(text: str, chain: tuple[Path, ...]) -> Node:
    """Read the last file of a chain of includes, merged over the files that it includes."""
    tree = compose(text, str(chain[-1]))
    own = dict(tree.mapping)
    include = own.pop("include", None)
    if len(chain) > 1:
        own.pop("title", None)  # a title is about one file
    tree = replace(tree, value=own)
    if include is None:
        return tree
    if not include.elements:
        raise include.fault("names no file; leave it out")
    return merge(reduce(join, [_included(node, chain) for node in include.elements]), tree)


def _included(node: Node, chain: tuple[Path, ...]) -> Node:
    name, home = node.value, _home(chain[0])
    if not isinstance(name, str) or not name or not name.isprintable():
        raise node.fault(f"should be the name of a file, got {shown(node.plain)}")
    file = Path(os.path.normpath(chain[-1].parent / name))
    if Path(name).name == name and not os.path.isfile(file):
        homes = [_relative(home), RECIPES] if home.name == FOLDER else [RECIPES]
        file = _search(homes, name, lambda message: node.fault(f"{shown(name)} {message}")) or file
    inside = any(file.resolve().is_relative_to(folder) for folder in (home, RECIPES.resolve()))
    if Path(name).is_absolute() or not inside:
        raise node.fault(f"{shown(name)} lies outside of {home.name}/; include a file from inside")
    if any(file.resolve() == earlier.resolve() for earlier in chain):
        raise node.fault(f"a loop: {' -> '.join(str(f) for f in (*chain, file))}")
    if len(chain) > DEEPEST:
        raise node.fault(f"includes nest more than {DEEPEST} deep")
    text = _text(file, lambda message: node.fault(f"{shown(name)}: {message}"))
    return _with_includes(text, (*chain, file))


def _home(path: Path) -> Path:
    """Return the folder that includes may not leave: the nearest named "recipes", else the recipe's."""
    folder = path.parent.resolve()
    return next((p for p in (folder, *folder.parents) if p.name == FOLDER), folder)


def _relative(folder: Path) -> Path:
    """Return a folder below the current one as a relative path, for short messages."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def _text(file: Path, fault: Callable[[str], BenchError]) -> str:
    try:
        if not file.is_file():
            if file.is_dir():
                raise fault("is a folder; name one recipe in it")
            usual = find(Path(file.name))
            beside = (*recipes(file.parent), *recipes(Path(FOLDER)))
            names = {other.name if file.suffix else other.stem for other in beside}
            near = f"; did you mean '{usual}'?" if usual.is_file() else did_you_mean(file.name, names)
            raise fault(f"no such file{near}")
        with file.open("rb") as stream:
            raw = stream.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        raise fault(f"cannot be read: {error}") from None
    if len(raw) > LARGEST_FILE:
        raise fault(f"larger than {LARGEST_FILE // 1024} KiB; that is not a recipe")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise fault(f"not UTF-8 text (byte {error.start}); save it as UTF-8") from None


def _change(text: str) -> Node:
    key, equals, value = text.partition("=")
    first, *rest = key.strip().split(".")
    # the key of an axis may have dots: grid.protocol.epochs
    keys = (first, ".".join(rest)) if first == "grid" and rest else (first, *rest)
    if not equals or not all(keys) or len(keys) > DEEPEST:
        raise BenchError(f"--set: {shown(text)}: write key=value, as in protocol.epochs=2")
    return nest(keys, compose(value, "--set", keys, numbered=False))


def _notes(text: str) -> str:
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").removeprefix(" ").rstrip())
    return "\n".join(lines).strip()
