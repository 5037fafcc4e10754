"""YAML text to a tree, in a strict dialect.

It is YAML 1.2 with text, decimal numbers, true/false, null, lists, and mappings with text keys; `1e-1` is
a number. Scalars that YAML 1.1 reads in an unexpected way (`yes`, `010`, `1:30`), tags and duplicate keys are
errors.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import yaml

from bench.errors import BenchError
from bench.recipe.tree import Key, Node, shown

MOST_NODES = 20_000  # in one file; an alias counts as all nodes that it repeats
DEEPEST = 20


#: What to do about some of PyYAML's problems, by a part of their text.
_REMEDIES = {
    r"'\t'": "; indent with spaces",
    "mapping values are not allowed": "; put text with a colon in quotes",
    "another document": "; a recipe is one: remove '---' and what follows it",
}


class _Loader(yaml.SafeLoader):
    """PyYAML's parser with this dialect's scalars and without tags."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012  as in PyYAML

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
        name: the text's name in messages: a file, or "--set".
        path: path of the tree in a larger one.
        numbered: whether locations have line numbers.

    Raises:
        BenchError: the text is not YAML of this dialect, or it is too large or too deep.
    """

    def location(line: int) -> str:
        return f"{name}:{line}" if numbered else name

    left = iter(range(MOST_NODES))

    def convert(node: yaml.Node, line: int, path: tuple[Key, ...], depth: int) -> Node:
        here = Node(None, location(line), path)
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
            at = Node(None, location(_line(key_node)), path)
            key = _key(key_node, at)
            if key in children:
                raise at.fault(f"duplicate key {shown(key)}; the first is at {children[key].location}")
            children[key] = convert(child, _line(key_node), (*path, key), depth + 1)
        return replace(here, value=children)

    try:
        root = yaml.compose(text, Loader=_Loader)
    except RecursionError:
        raise BenchError(f"{location(1)}: nested more than {DEEPEST} deep") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problem = _one_line(error.problem)
        remedy = next((remedy for part, remedy in _REMEDIES.items() if part in problem), "")
        raise BenchError(f"{location(line)}: {problem}{remedy}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # PyYAML raises all of these
        line = text[: getattr(error, "position", 0)].count("\n") + 1
        reason = getattr(error, "reason", None) or error
        raise BenchError(f"{location(line)}: not valid YAML: {_one_line(reason)}") from None
    if root is None:
        return Node(None, location(1), path)
    return convert(root, _line(root), path, 0)


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _key(node: yaml.Node, at: Node) -> str:
    key = _scalar(node, at) if isinstance(node, yaml.ScalarNode) else node.value
    if not isinstance(key, str):
        written = node.value if isinstance(node, yaml.ScalarNode) else key
        raise at.fault(f"a key should be text, got {shown(written)}; quote it")
    if key == "<<":
        raise at.fault("merge keys (<<) are not read; repeat the keys, or `include` a recipe that has them")
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
            raise at.fault(f"{text[:40]} is not a finite number of 64 bits")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise at.fault(f"{shown(text)} is not valid text")
    return text


def _one_line(message: object) -> str:
    return " ".join(str(message).split())[:200]
