"""YAML text as a tree of nodes that know where they were written, so that every error can say it.

The dialect is a strict YAML 1.2: text, decimal numbers, true/false, null, lists, and mappings with text
keys. What YAML 1.1 reads in a way that nobody means (`yes`, `010`, `1:30`), tags and duplicate keys are
errors, and `1e-1` is a number.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import yaml

from bench.errors import BenchError

Key = str | int

MOST_NODES = 20_000  # of one file; an alias counts as all it stands for
DEEPEST = 20


@dataclass(frozen=True)
class Node:
    """A value with the place it was written at ("recipes/quick.yaml:3") and its path in there.

    `value` is a scalar, a list of nodes or a dict of nodes. `rival` is the place of another value with
    the same claim, which two included files can produce; only an overriding value settles it.
    """

    value: Any
    place: str
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
        """The elements of a list, or the node itself: a scalar may stand for a list of one."""
        return self.value if isinstance(self.value, list) else [self]

    @property
    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: child.plain for key, child in self.value.items()}
        return [child.plain for child in self.value] if isinstance(self.value, list) else self.value

    def find(self, path: tuple[Key, ...]) -> Node:
        """Follow a path as far as it leads."""
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
        """Give the node and all below it."""
        yield self
        children = self.value.values() if isinstance(self.value, dict) else self.value
        for child in children if isinstance(self.value, dict | list) else ():
            yield from child.walk()

    def fault(self, message: str) -> BenchError:
        """Return the error that says what is wrong here."""
        return BenchError(": ".join(filter(None, (self.place, dotted(self.path), message))))


def merge(under: Node, over: Node) -> Node:
    """Lay one tree over another: mappings merge deeply, everything else is replaced."""
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
    return one if same else replace(one, rival=other.place)


def nest(keys: tuple[str, ...], node: Node) -> Node:
    """Wrap a node in mappings, so that it stands at `keys` of the result."""
    for key in reversed(keys):
        node = replace(node, value={key: node}, rival="")
    return node


def plant(value: Any, at: Node) -> Node:
    """Make a tree of plain values, all written where `at` was."""
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


# -- text to nodes ----------------------------------------------------------------------------------
class _Loader(yaml.SafeLoader):
    """PyYAML's parser with this dialect's scalars and without tags."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012  PyYAML's own way

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(
                problem=f"tags are not allowed, got {shown(event.tag)}; quote it if it is text",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)


_SCALARS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?(?:0|[1-9][0-9]*)",
    "unclear": r"(?i:yes|no|on|off)"
    r"|[-+]?(?:0[0-9_]+|0x[0-9a-fA-F_]+|0[bo][0-7_]+|[0-9]+(?:_[0-9]+)+(?:\.[0-9_]*)?"
    r"|[0-9]+(?::[0-5]?[0-9])+(?:\.[0-9]*)?)",
    "float": r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
}
for _kind, _pattern in _SCALARS.items():
    _Loader.add_implicit_resolver(f"!{_kind}", re.compile(rf"(?:{_pattern})\Z"), None)


def compose(text: str, name: str, path: tuple[Key, ...] = (), numbered: bool = True) -> Node:
    """Read YAML text as a tree.

    Args:
        text: the YAML.
        name: what errors call the text: a file, or "--set".
        path: where the tree belongs in a larger one.
        numbered: whether places carry line numbers.

    Raises:
        BenchError: the text is not YAML of this dialect, or it is too large or too deep.
    """

    def place(line: int) -> str:
        return f"{name}:{line}" if numbered else name

    left = iter(range(MOST_NODES))

    def convert(node: yaml.Node, line: int, path: tuple[Key, ...], depth: int) -> Node:
        here = Node(None, place(line), path)
        if next(left, None) is None:
            raise here.fault(f"more than {MOST_NODES} values in one file; aliases count in full")
        if depth > DEEPEST:
            raise here.fault(f"nested more than {DEEPEST} deep")
        if isinstance(node, yaml.ScalarNode):
            return replace(here, value=_scalar(node, here))
        if isinstance(node, yaml.SequenceNode):
            items = [
                convert(child, _line(child), (*path, i), depth + 1) for i, child in enumerate(node.value)
            ]
            return replace(here, value=items)
        children: dict[str, Node] = {}
        for key_node, child in node.value:
            at = Node(None, place(_line(key_node)), path)
            key = _key(key_node, at)
            if key in children:
                raise at.fault(f"duplicate key {shown(key)}; the first is at {children[key].place}")
            children[key] = convert(child, _line(key_node), (*path, key), depth + 1)
        return replace(here, value=children)

    try:
        root = yaml.compose(text, Loader=_Loader)
    except RecursionError:
        raise BenchError(f"{place(1)}: nested more than {DEEPEST} deep") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BenchError(f"{place(line)}: {_one_line(error.problem)}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # PyYAML's own slips included
        line = text[: getattr(error, "position", 0)].count("\n") + 1
        reason = getattr(error, "reason", None) or error
        raise BenchError(f"{place(line)}: not valid YAML: {_one_line(reason)}") from None
    if root is None:
        return Node(None, place(1), path)
    return convert(root, _line(root), path, 0)


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _key(node: yaml.Node, at: Node) -> str:
    key = _scalar(node, at) if isinstance(node, yaml.ScalarNode) else node.value
    if not isinstance(key, str):
        written = node.value if isinstance(node, yaml.ScalarNode) else key
        raise at.fault(f"a key should be text, got {shown(written)}; quote it")
    return key


def _scalar(node: yaml.ScalarNode, at: Node) -> Any:
    text: str = node.value
    match node.tag:
        case "!null":
            return None
        case "!bool":
            return text.lower() == "true"
        case "!unclear":
            raise at.fault(
                f"{shown(text)} means different things to different YAML readers; "
                "write true, false or a plain decimal number, or quote it"
            )
        case "!int" if len(text) < 20 and abs(int(text)) < 2**63:
            return int(text)
        case "!float" if "n" not in text.lower() and math.isfinite(float(text)):
            return float(text)
        case "!int" | "!float":
            raise at.fault(f"{text[:40]} is not a finite number that a computer holds")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise at.fault(f"{shown(text)} is not valid text")
    return text


def _one_line(message: object) -> str:
    return " ".join(str(message).split())[:200]
