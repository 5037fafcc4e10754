"""What MkDocs adds to the pages of docs/: the documents of the root, and a page for each method.

Nothing of it is committed. Links between files of the repository become links between pages of the site.
"""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]

#: Documents of the root, and the pages that they are on the site.
DOCUMENTS = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
}

#: Where the report command writes its pages, beside those of MkDocs.
REPORTS = "reports/"

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?:|#|mailto:)([^)\s#]+)(#[^)\s]*)?\)")


def on_config(config: Any) -> Any:
    """Put the methods into the navigation, by family."""
    sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]  # this checkout's `bench`, whichever is installed
    from bench.facts import built_in

    (methods,) = (part["Methods"] for part in config.nav if "Methods" in part)
    known = sorted(built_in().items(), key=lambda item: (item[1].family, item[1].title.lower()))
    for family, members in groupby(known, key=lambda item: item[1].family):
        methods.append(
            {family.capitalize(): [{facts.title: f"methods/{name}.md"} for name, facts in members]}
        )
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made."""
    from method_pages import method_pages

    made = {page: (ROOT / name).read_text(encoding="utf-8") for name, page in DOCUMENTS.items()}
    for page, content in {**made, **method_pages(ROOT)}.items():
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Make the links between files of the repository links of the site."""
    names = {site: name for name, site in DOCUMENTS.items()}
    site = page.file.src_uri
    if site.startswith("methods/"):
        return markdown
    source = names.get(site, f"docs/{site}")
    return _LINK.sub(_linked(source, site, files), markdown)


def _linked(source: str, site: str, files: Files) -> Callable[[re.Match[str]], str]:
    def linked(match: re.Match[str]) -> str:
        image, text, target, anchor = match[1], match[2], match[3], match[4] or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if path.startswith(REPORTS):  # no page of MkDocs, so no link that it checks
            here = posixpath.relpath(path, posixpath.dirname(site) or ".")
            if image:
                return f'<img src="{here}" alt="{text}">'
            return f'<a href="{posixpath.splitext(here)[0]}.html{anchor}">{text}</a>'
        found = DOCUMENTS.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else "")
        if not found and (ROOT / path).exists():  # a file of the code has no page
            return text
        there = posixpath.relpath(found or path, posixpath.dirname(site) or ".")
        return f"{image}[{text}]({there}{anchor})"

    return linked
