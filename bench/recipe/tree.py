"""Trees of values with the location of each value in its file, for error messages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from bench.errors import BenchError

Key = str | int


@dataclass(frozen=True)
class Node:
    """A value with its location ("recipes/quick.yaml:3") and its path in the file.

    `value` is a scalar, a list of nodes or a dict of nodes. `rival` is the location of another value of equal
    rank, which two included files can produce; an error unless a third value overrides both.
    """

    value: Any
    location: str
    path: tuple[Key, ...] = ()
    rival: str = ""

    @property
    def mapping(self) -> dict[str, Node]:
        """The items of a mapping; anything else is an error."""
        if not isinstance(self.value, dict):
            raise self.fault(f"should be a mapping, got {shown(self.plain)}")
        return self.value

    @property
    def elements(self) -> list[Node]:
        """The elements of a list, or the node alone: a scalar is read as a list of one."""
        return self.value if isinstance(self.value, list) else [self]

    @property
    def plain(self) -> Any:
        """The value without locations."""
        if isinstance(self.value, dict):
            return {key: child.plain for key, child in self.value.items()}
        return [child.plain for child in self.value] if isinstance(self.value, list) else self.value

    def find(self, path: tuple[Key, ...]) -> Node:
        """Return the node at a path, or the last one on the way to it."""
        node = self
        for key in path:
            inside: Any = node.value
            if not isinstance(inside, dict | list):
                break
            try:
                node = inside[key]  # type: ignore[index]
            except (KeyError, IndexError, TypeError):
                break
        return node

    def walk(self) -> Iterator[Node]:
        """Yield the node and all nodes below it."""
        yield self
        children = self.value.values() if isinstance(self.value, dict) else self.value
        for child in children if isinstance(self.value, dict | list) else ():
            yield from child.walk()

    def fault(self, message: str) -> BenchError:
        """Return an error with this location, path and message."""
        return BenchError(": ".join(filter(None, (self.location, dotted(self.path), message))))


def merge(under: Node, over: Node) -> Node:
    """Merge two trees: mappings merge deeply, everything else of `over` replaces `under`."""
    if not (isinstance(under.value, dict) and isinstance(over.value, dict)):
        return over
    merged = dict(under.value)
    for key, child in over.value.items():
        merged[key] = merge(merged[key], child) if key in merged else child
    return replace(over, value=merged)


def join(one: Node, other: Node) -> Node:
    """Unite two trees of equal rank: mappings join deeply, two unequal values become rivals."""
    if isinstance(one.value, dict) and isinstance(other.value, dict):
        joined = dict(one.value)
        for key, child in other.value.items():
            joined[key] = join(joined[key], child) if key in joined else child
        return replace(one, value=joined)
    same = json.dumps(one.plain, sort_keys=True) == json.dumps(other.plain, sort_keys=True)
    return one if same else replace(one, rival=other.location)


def nest(keys: tuple[str, ...], node: Node) -> Node:
    """Wrap a node in mappings, so that the result has it at `keys`."""
    for key in reversed(keys):
        path = node.path[:-1] if node.path[-1:] == (key,) else node.path
        node = replace(node, value={key: node}, path=path, rival="")
    return node


def plant(value: Any, at: Node) -> Node:
    """Make a tree of plain values, all with the location and path of `at`."""
    if isinstance(value, dict):
        value = {key: plant(child, at) for key, child in value.items()}
    elif isinstance(value, list):
        value = [plant(child, at) for child in value]
    return replace(at, value=value, rival="")


def dotted(path: tuple[Key, ...]) -> str:
    """Write a path as in `methods.crt.protocol` and `grid.seed[0]`."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{_word(step)}" for step in path)
    return "".join(steps).removeprefix(".")


def shown(value: object) -> str:
    """Write a value in one short line."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = repr(value[:80] if isinstance(value, str) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _word(key: str) -> str:
    return key if re.fullmatch(r"[\w.+-]{1,64}", key) else shown(key)
