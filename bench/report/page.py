"""Pages from templates, and text escaped for HTML, Markdown, LaTeX and CSV.

An HTML page is one file that fetches nothing: its content security policy forbids it, and allows only the
page's own scripts, whatever a record or a recipe contains.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itables.utils import read_package_file
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from bench.files import write_text
from bench.report import text

if TYPE_CHECKING:
    import pandas as pd

_LATEX = str.maketrans(
    {letter: "\\" + letter for letter in "&%$#_{}"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "–": "--",
        "↳": r"\quad",
        "±": r"$\pm$",
        "−": "$-$",
    }
)

#: How a text begins that a spreadsheet would run as a formula.
_FORMULA = re.compile(r"\A[=+\-@\t\r\n]")


def render(template: str, scripts: Sequence[str] = ("tables.js",), **content: Any) -> str:
    """Fill a template; if its name contains ``.html`` all text is escaped, and only `scripts` run."""
    code = [_template(name) for name in scripts]
    content |= {"scripts": [Markup(script) for script in code], "policy": policy(code)}
    return _environment().get_template(template).render(**content).strip() + "\n"


def write(folder: Path, files: Mapping[str, str]) -> list[Path]:
    """Write files by their names into a folder; return their paths."""
    for name, content in files.items():
        write_text(folder / name, content)
    return [folder / name for name in files]


def markdown(value: str) -> str:
    """Escape text for Markdown, also in a table: it can neither mark up nor end a cell."""
    line = " ".join(value.split())
    escaped = re.sub(r"([\\`*_{}\[\]<>|#~$!])", r"\\\1", line.replace("&", "&amp;"))
    return escaped.replace(r"\<", "&lt;").replace(r"\>", "&gt;")


def latex(value: str) -> str:
    """Escape text for LaTeX."""
    return " ".join(value.split()).translate(_LATEX)


def csv(table: pd.DataFrame) -> str:
    """Write a table as CSV; an apostrophe before text keeps spreadsheets from running it as a formula."""
    texts: pd.DataFrame = table.select_dtypes("string")
    safe = {str(name): texts[name].str.replace(_FORMULA, r"'\g<0>", regex=True) for name in texts}
    return table.assign(**safe).to_csv(index=False, lineterminator="\n")


def spread(value: str) -> Markup:
    """Escape a cell's text, and mark what follows a ±."""
    mean, sign, rest = value.partition(" ± ")
    return Markup("{} <span class=spread>± {}</span>").format(mean, rest) if sign else escape(mean)


def policy(scripts: Sequence[str]) -> str:
    """Return the content security policy that allows these scripts and forbids all requests."""
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
    environment.filters |= {"markdown": markdown, "latex": latex, "spread": spread, "link": text.link}
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
