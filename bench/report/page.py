"""The shell of every page, and tables that are shown as HTML and as Markdown.

A page is one file that fetches nothing: its own content security policy makes the browser see to that,
and lets no script run but the two below, whatever a record or a recipe holds.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from itables.utils import read_package_file
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from bench.report import text


@dataclass(frozen=True)
class Column:
    """A column's head, and what is explained when one points at it."""

    head: str
    hint: str = ""
    numeric: bool = True
    headline: bool = False


@dataclass(frozen=True)
class Value:
    """What stands in one place of a table.

    Attributes:
        order: what the column is sorted by, if not by the text.
        href: where the text leads.
        tags: short words after the text.
        notes: lines below it, each with its kind (a status, "plain" or "code").
    """

    text: str
    order: float | str | None = None
    href: str | None = None
    tags: tuple[str, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()
    hint: str = ""


@dataclass(frozen=True)
class Table:
    """A table; each row has a value for each column."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Value]]
    caption: str = ""


def render(template: str, **content: Any) -> str:
    """Fill a template; in one whose name holds ``.html`` all text is escaped."""
    return _environment().get_template(template).render(**content).strip() + "\n"


def markdown(value: str) -> str:
    """Escape text for Markdown, where it may stand in a table: it can neither mark up nor break out."""
    line = " ".join(value.split())
    escaped = re.sub(r"([\\`*_{}\[\]<>|#~$!])", r"\\\1", line.replace("&", "&amp;"))
    return escaped.replace(r"\<", "&lt;").replace(r"\>", "&gt;")


def spread(value: str) -> Markup:
    """Escape a cell's text, and set what follows a ± apart."""
    mean, sign, rest = value.partition(" ± ")
    return Markup("{} <span class=spread>± {}</span>").format(mean, rest) if sign else escape(mean)


def policy(scripts: Sequence[str]) -> str:
    """Return the content security policy that lets these scripts run, and nothing else be fetched."""
    hashes = [f"'sha256-{b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts]
    allowed = " ".join([*hashes, "blob:"])  # the bundle of itables is imported as a blob
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
    environment.filters |= {"markdown": markdown, "spread": spread, "web_link": text.web_link}
    script = (Path(__file__).parent / "templates" / "tables.js").read_text(encoding="utf-8")
    environment.globals |= {
        "style": Markup((Path(__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")),
        "tables_script": Markup(script),
        "tables_code": _packed("html/dt_bundle.js"),
        "tables_style": _packed("html/dt_bundle.css"),
        "policy": policy([script]),
    }
    return environment


def _packed(file: str) -> str:
    """Return a file of itables, compressed: 0.25 MB instead of 0.7."""
    return b64encode(gzip.compress(read_package_file(file).encode(), mtime=0)).decode()
