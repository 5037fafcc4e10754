"""Tables as data: columns, and rows of values. Templates write them as HTML, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import Any

from bench.report import text


@dataclass(frozen=True)
class Column:
    """A column: its head, its explanation on hover, and how a row's value is made.

    Attributes:
        get: returns the value of a row.
        name: identifies it for scripts.
        hidden: shown only if a reader chooses it.
    """

    head: str
    hint: str = ""
    numeric: bool = True
    headline: bool = False
    name: str = ""
    hidden: bool = False
    get: Callable[[Any], Value] = field(default=lambda row: row, compare=False)


@dataclass(frozen=True)
class Value:
    """The content of a cell.

    Attributes:
        sort_key: what the column is sorted by, if not by the text.
        href: the link of the text.
        tags: short words after the text.
        notes: lines below it, each with its kind (a status, "plain" or "code").
        kind: its CSS class.
        data: its HTML data attributes, for scripts.
    """

    text: str
    sort_key: float | str | None = None
    href: str | None = None
    tags: tuple[str, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()
    hint: str = ""
    kind: str = ""
    bold: bool = False
    data: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def number(
        cls, value: float | None, deviation: float | None = None, digits: int = 2, **more: Any
    ) -> Value:
        """Return a number, with ± its standard deviation if known, sorted by its value."""
        return cls(text.around(value, deviation, digits), text.sort_key(value), **more)

    @classmethod
    def method(cls, name: str, *, label: str = "", variant: str = "", **more: Any) -> Value:
        """Return a method's name with notes: its label, if that is another name, and its variant."""
        notes = [("code", label)] if label not in ("", name) else []
        notes += [("plain", variant)] if variant else []
        return cls(name, notes=tuple(notes), **more)

    def noted(self, *notes: tuple[str, str]) -> Value:
        """Return it with more notes."""
        return replace(self, notes=(*self.notes, *notes))


@dataclass(frozen=True)
class Table:
    """A table; each row has a value for each column.

    `kinds` and `data` are the CSS classes and data attributes of the rows, if any.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Value]]
    caption: str = ""
    kinds: Sequence[str] = ()
    data: Sequence[Mapping[str, str]] = ()

    @classmethod
    def of(cls, columns: Sequence[Column], rows: Iterable[Any], caption: str = "", **more: Any) -> Table:
        """Make a table of objects from which the columns get their values."""
        return cls(columns, [[column.get(row) for column in columns] for row in rows], caption, **more)

    @classmethod
    def listing(cls, heads: Sequence[str], rows: Iterable[Sequence[str | Value]]) -> Table:
        """Make a table of texts."""
        columns = [Column(head, numeric=False) for head in heads]
        return cls(columns, [[v if isinstance(v, Value) else Value(v) for v in row] for row in rows])

    @property
    def shown(self) -> Table:
        """The table without hidden columns, for documents whose reader cannot choose them."""
        keep = [not column.hidden for column in self.columns]
        rows = [list(compress(row, keep)) for row in self.rows]
        return replace(self, columns=list(compress(self.columns, keep)), rows=rows)
