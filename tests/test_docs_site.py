"""The documentation site: it builds without a network, each method has a page, and no link is broken."""

from __future__ import annotations

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
from project import ROOT

import bench
from bench import registry
from bench.cards import cards_of
from bench.facts import built_in

REPORTS = "reports/"  # `make docs` has the report command write them after the build

pytest.importorskip("mkdocs", reason="the docs extra is not installed")


class Page(HTMLParser):
    """The links, anchors and loaded files of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links, self.loads, self.anchors = list[str](), list[str](), {""}
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors |= {name for key in ("id", "name") if (name := found.get(key))}
        if tag == "a" and found.get("href"):
            self.links.append(str(found["href"]))
        elif tag in ("script", "img", "iframe") and found.get("src"):
            self.loads.append(str(found["src"]))
        elif tag == "link" and found.get("rel") != "canonical" and found.get("href"):
            self.loads.append(str(found["href"]))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Page]:
    """Build the site, strictly and with no way to the network; return its pages by name."""
    out = tmp_path_factory.mktemp("site")
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    # Not --quiet: then warnings do not count.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    built = subprocess.run(command, cwd=ROOT, env=os.environ | nowhere, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return {
        path.relative_to(out).as_posix(): Page(path.read_text(encoding="utf-8"))
        for path in out.rglob("*.html")
    } | {
        path.relative_to(out).as_posix(): Page("")
        for path in out.rglob("*")
        if path.is_file() and path.suffix != ".html"
    }


def test_each_method_has_a_page_with_what_is_known_of_it(site: dict[str, Page]) -> None:
    index = site["methods/index.html"]
    for name, facts in built_in().items():
        page, entry = site[f"methods/{name}.html"], registry.find(name)
        assert facts.title in page.text
        assert entry.summary.partition(" ")[0].strip("`*") in page.text
        assert not facts.paper or facts.paper in page.links
        assert all(parameter in page.text for parameter in entry.hyperparameters.model_fields)
        assert all(card.network.name in page.text for card in cards_of(name))
        assert f"{name}.html" in index.links
    ldam = site["methods/ldam_drw.html"].text
    assert "n_c^(-1/4)" in ldam, "the equation"
    assert "42.04" in ldam, "a published number"
    board = bench.load_leaderboard(ROOT / "results")
    measured = board[(board.kind == "measured") & (board.method == "ldam_drw")]
    assert len(measured) > 1
    assert all(f"{accuracy:.2f}" in ldam for accuracy in measured.accuracy), "measured numbers"
    assert "LDAM-DRW (NeurIPS19) Table 2" in ldam, "its source"
    bcl = site["methods/bcl.html"].text
    assert "control no_contrast" in bcl, "its measured control"


def test_the_functions_of_bench_are_in_the_reference(site: dict[str, Page]) -> None:
    reference = site["api.html"]
    assert {f"bench.api.{name}" for name in bench.__all__} <= reference.anchors
    assert ">>> counts.tolist()" in reference.text


def test_no_link_is_broken_and_nothing_is_loaded_from_elsewhere(site: dict[str, Page]) -> None:
    recipes = {f"{REPORTS}{path.stem}.html" for path in (ROOT / "results" / "grids").glob("*.json")}
    figures = {f"{REPORTS}{path.name}" for path in (ROOT / "reports").glob("*.svg")}
    known = site.keys() | recipes | figures | {f"{REPORTS}index.html"}
    for name, page in site.items():
        if name == "404.html":  # its links begin at the root of a server
            continue
        assert not [file for file in page.loads if "//" in file], name
        for link in [*page.links, *page.loads]:
            if link.startswith(("http://", "https://", "mailto:")):
                continue
            path, anchor = urldefrag(unquote(link))
            target = os.path.normpath(Path(name).parent / path) if path else name
            assert target in known, f"{name}: {link}"
            assert target not in site or not site[target].text or anchor in site[target].anchors, (
                f"{name}: {link}"
            )
