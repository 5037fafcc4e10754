"""The shell of every page, and tables that are shown as HTML and as Markdown.

A page is one file that fetches nothing: its own content security policy makes the browser see to that,
and lets no script run but the two below, whatever a record or a recipe holds.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itables.utils import read_package_file
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from bench.report import text

if TYPE_CHECKING:
    import pandas as pd

_LATEX = {
    **{letter: "\\" + letter for letter in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
    "↳": r"\quad",
}

#: How text begins that a spreadsheet would run.
_FORMULA = re.compile(r"\A[=+\-@\t\r\n]")


@dataclass(frozen=True)
class Column:
    """A column: its head, what is explained when one points at it, and how it gets its value of a row.

    Attributes:
        get: returns the value of a row.
        name: what scripts know it by.
        hidden: only shown to a reader who chooses it.
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
    """What stands in one place of a table.

    Attributes:
        order: what the column is sorted by, if not by the text.
        href: where the text leads.
        tags: short words after the text.
        notes: lines below it, each with its kind (a status, "plain" or "code").
        kind: what sort of value it is, for its style; `strong` is bold everywhere.
        data: what scripts are told of it, by name.
    """

    text: str
    order: float | str | None = None
    href: str | None = None
    tags: tuple[str, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()
    hint: str = ""
    kind: str = ""
    strong: bool = False
    data: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A table; each row has a value for each column.

    `kinds` and `data` say of each row what `Value`'s say of a value, where there are any.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Value]]
    caption: str = ""
    kinds: Sequence[str] = ()
    data: Sequence[Mapping[str, str]] = ()

    @classmethod
    def of(cls, columns: Sequence[Column], rows: Iterable[Any], caption: str = "", **more: Any) -> Table:
        """Make a table of rows of any kind that the columns know how to read."""
        return cls(columns, [[column.get(row) for column in columns] for row in rows], caption, **more)

    @property
    def shown(self) -> Table:
        """The table without its hidden columns, for documents whose reader cannot choose them."""
        places = [place for place, column in enumerate(self.columns) if not column.hidden]
        rows = [[row[place] for place in places] for row in self.rows]
        return replace(self, columns=[self.columns[place] for place in places], rows=rows)

    @classmethod
    def listing(cls, heads: Sequence[str], rows: Iterable[Sequence[str | Value]]) -> Table:
        """Make a table of texts."""
        columns = [Column(head, numeric=False) for head in heads]
        return cls(columns, [[v if isinstance(v, Value) else Value(v) for v in row] for row in rows])


def render(template: str, scripts: Sequence[str] = ("tables.js",), **content: Any) -> str:
    """Fill a template; in one whose name holds ``.html`` all text is escaped, and only `scripts` run."""
    code = [_template(name) for name in scripts]
    content |= {"scripts": [Markup(text) for text in code], "policy": policy(code)}
    return _environment().get_template(template).render(**content).strip() + "\n"


def markdown(value: str) -> str:
    """Escape text for Markdown, where it may stand in a table: it can neither mark up nor break out."""
    line = " ".join(value.split())
    escaped = re.sub(r"([\\`*_{}\[\]<>|#~$!])", r"\\\1", line.replace("&", "&amp;"))
    return escaped.replace(r"\<", "&lt;").replace(r"\>", "&gt;")


def latex(value: str) -> str:
    """Escape text for LaTeX; ± becomes its sign of mathematics."""
    escaped = "".join(_LATEX.get(letter, letter) for letter in " ".join(value.split()))
    return escaped.replace("±", r"$\pm$").replace("−", "$-$")


def csv(table: pd.DataFrame) -> str:
    """Write a table as CSV whose text no spreadsheet takes for a formula: an apostrophe goes before it."""
    texts: pd.DataFrame = table.select_dtypes("string")
    safe = {str(name): texts[name].str.replace(_FORMULA, r"'\g<0>", regex=True) for name in texts}
    return table.assign(**safe).to_csv(index=False, lineterminator="\n")


def spread(value: str) -> Markup:
    """Escape a cell's text, and set what follows a ± apart."""
    mean, sign, rest = value.partition(" ± ")
    return Markup("{} <span class=spread>± {}</span>").format(mean, rest) if sign else escape(mean)


def policy(scripts: Sequence[str]) -> str:
    """Return the content security policy that lets these scripts run, and nothing else be fetched."""
    hashes = [f"'sha256-{b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts]
    # The bundle of itables is imported as a blob.
    allowed = " ".join([*hashes, "blob:"]) if scripts else "'none'"
    return f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {allowed}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("bench.report"),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = {"markdown": markdown, "latex": latex, "spread": spread, "link": text.link}
    environment.filters |= filters
    environment.globals |= {
        "style": Markup(_template("style.css")),
        "tables_code": _packed("html/dt_bundle.js"),
        "tables_style": _packed("html/dt_bundle.css"),
    }
    return environment


@cache
def _template(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


def _packed(file: str) -> str:
    """Return a file of itables, compressed: 0.25 MB instead of 0.7."""
    return b64encode(gzip.compress(read_package_file(file).encode(), mtime=0)).decode()
