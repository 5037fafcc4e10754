"""Grouping items by a key."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Return the items of each key, groups and members in the sequence of the items."""
    found = dict[Key, list[Item]]()
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found
