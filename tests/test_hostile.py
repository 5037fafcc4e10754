"""Input of somebody who means harm: nothing of it runs, be it in Python, a shell, a browser or a spreadsheet.

And no file is written where none belongs.
"""

from __future__ import annotations

import csv
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser_fixture import browser, requests, wait  # noqa: F401 - the fixture is used by its name
from commands import Bench
from html_reader import Reader
from leaderboard_fakes import NUMBER, literature
from records_factory import CIFAR10, fail, finish, make_cell, make_grid

from bench.cell import BackboneChoice
from bench.errors import BenchError
from bench.leaderboard import external, gather
from bench.records import Results
from bench.report.index_page import render_index
from bench.report.recipe_page import render_recipe
from bench.report.run_page import render_runs

#: Texts that would run somewhere, each with what tells that it did: `owned` as the title of a page.
SCRIPT = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
BREAKOUT = "\"'></title></style></textarea></svg>--><svg onload=\"document.title='owned'\">"
LINK = "javascript:document.title='owned'"
FORMULA = "=cmd|' /C calc'!A0"
FORMULAS = (FORMULA, "+1+cmd|' /C calc'!A0", "-1+1", "@SUM(1+1)", "\t=1+1", "\r=1+1")
MARKUP = "[bold]x[/nothing] [link=file:///etc/passwd]y"
TEMPLATE = "{{ 7*7 }}{% for x in y %}"
LATEX = r"\input{/etc/passwd}$x_2^{}%"
EVIL = " ".join([SCRIPT, BREAKOUT, TEMPLATE, LATEX, MARKUP])


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# -- recipes ---------------------------------------------------------------------------------------
GRID = "methods: {ce: {}}\ngrid: {dataset: %s, imbalance_factor: 10, backbone: resnet8_cifar}\n"


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system ['touch owned']\n",
        "!!python/object/new:os.system ['touch owned']\n",
        "title: !!python/object/apply:subprocess.check_output [['touch', 'owned']]\n" + GRID % "digits",
        "include: ../../../../etc/passwd\n" + GRID % "digits",
        "include: /etc/passwd\n" + GRID % "digits",
        "include: outside.yaml\n" + GRID % "digits",  # a link that leads out
        "include: found_outside.yaml\n" + GRID % "digits",
        "include: 'https://example.org/x.yaml'\n" + GRID % "digits",
        "datasets: {mine: {source: folder, folder: ../../secret}}\n" + GRID % "mine",
        "datasets: {mine: {source: folder, folder: /etc}}\n" + GRID % "mine",
        "datasets: {mine: {source: list, folder: x, lists: {train: ../../a, test: b}}}\n" + GRID % "mine",
        "datasets: {'../../x': {base: digits}}\n" + GRID % "'../../x'",
        "datasets: {digits: {extra_train: {name: x, folder: ../../x}}}\n" + GRID % "digits",
        "datasets: {digits: {extra_train: {name: ../../x, folder: x}}}\n" + GRID % "digits",
        GRID.replace("ce", "'../../ce'") % "digits",
        GRID.replace("ce: {}", "<b>: {method: ce}") % "digits",
        GRID.replace("resnet8_cifar", "'hf-hub:evil/model'") % "digits",
        GRID.replace("resnet8_cifar", "'../../model.py'") % "digits",
        GRID.replace("ce: {}", "ce: {params: {__class__: x}}") % "digits",
        "x" * 1_000_000 + ": 1\n" + GRID % "digits",
        "title: '" + "x" * 1_000_000 + "'\n" + GRID % "digits",
    ],
)
def test_a_hostile_recipe_is_refused_in_a_line(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    home = tmp_path / "home"
    (home / "recipes/folder").mkdir(parents=True)
    (tmp_path / "outside.yaml").write_text(GRID % "digits")
    (home / "recipes/outside.yaml").symlink_to(tmp_path / "outside.yaml")
    (home / "recipes/folder/found_outside.yaml").symlink_to(tmp_path / "outside.yaml")
    (home / "recipes/evil.yaml").write_text(text)
    monkeypatch.chdir(home)
    before = files_below(tmp_path)
    code, out = bench("run", "recipes/evil.yaml", "--gpus", "none")
    assert code == 2
    assert out.startswith("error: ")
    assert "Traceback" not in out
    assert max(map(len, out.splitlines())) < 500
    assert files_below(tmp_path) == before


@pytest.mark.parametrize(
    "name",
    ["a b", "$(touch owned)", "`x`", "x;y", "[bold]", "<b>", "index", "-x", ".x", "x" * 200, "\x1b[31m"],
)
def test_a_recipe_whose_name_would_run_or_take_a_page_is_refused(
    tmp_path: Path, bench: Bench, name: str
) -> None:
    (tmp_path / f"{name}.yaml").write_text(GRID % "digits")
    code, out = bench("plan", tmp_path / f"{name}.yaml", "--results", tmp_path / "results")
    assert code == 2
    assert "its report has the file's name" in out


def test_a_hostile_title_and_notes_are_text_everywhere(tmp_path: Path, bench: Bench) -> None:
    file = tmp_path / "evil.yaml"
    file.write_text(f"# {EVIL}\n" + json.dumps({"title": EVIL})[1:-1] + "\n" + GRID % "digits")
    results = tmp_path / MARKUP.replace("/", "")
    assert bench("plan", file, "--results", results, "--data", tmp_path)[0] == 0
    reports = results / "[/reports]"
    sets = ("--set", "protocol.epochs=1", "--set", f"title={json.dumps(EVIL)}")
    paths = ("--results", results, "--data", tmp_path, "--reports", reports)
    assert bench("run", file, *paths, *sets, "--gpus", "none")[0] == 0
    for command in (
        ["status"],
        ["status", "evil-set"],
        ["report", "--reports", reports],
        ["check"],
        ["clean"],
    ):
        code, out = bench(*command, "--results", results)
        assert code == 0, out
    run_id = next((results / "runs").iterdir()).name
    code, out = bench("explain", run_id, "--results", results)
    assert code == 0, out
    harmless((reports / "evil-set.html").read_text())


# -- whole results directories -----------------------------------------------------------------------
@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """Results, and a literature, all of whose free text is hostile."""
    results = tmp_path / "results"
    about = {"name": "evil", "title": EVIL, "paper": LINK, "reconstruction": True, "scores": "distances"}
    about |= {"venue": EVIL, "year": 2020, "family": EVIL}
    cell, other = make_cell("evil"), make_cell("ce", backbone=BackboneChoice(name=EVIL))
    whole = finish(tmp_path / "whole", cell).read_record()
    names = [EVIL, *FORMULAS, "../../x", "a\nb", "x" * 100_000]
    data = whole["data"] | {"class_names": names, "title": EVIL, "copy_of": EVIL, "copy_kind": EVIL}
    finish(results, cell, method=about, data=data, environment={"device": EVIL, EVIL: EVIL})
    formula = {**about, "name": "sums", "title": FORMULA}
    finish(results, make_cell("sums"), method=formula, environment={"device": FORMULA})
    fail(results, other, EVIL)
    fail(results, make_cell("ce", 1), FORMULA)
    make_grid(
        results,
        "small",
        [(EVIL, cell), (FORMULA, make_cell("sums")), ("ce", other), ("=ce", make_cell("ce", 1))],
        title=EVIL,
        notes=f"{EVIL}\n```\n{SCRIPT}",
    )
    published = results / "published"
    published.mkdir()
    (published / "more_methods.csv").write_text(
        f'method,title,paper\nevil,"{EVIL.replace(chr(34), chr(34) * 2)}",https://x/"onclick=\nsums,{FORMULA},\n'
    )
    with (published / "mine.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*NUMBER, "note", "label"])
        writer.writeheader()
        for number, text in enumerate((EVIL, *FORMULAS[:4], "x" * 100_000)):
            free = dict.fromkeys(("source", "reported_by", "note", "label"), text)
            value = {"dataset": "cifar10", "method": "evil", "value": str(50 + number)}
            writer.writerow(NUMBER | value | free)
    literature_of(tmp_path)
    return results


def literature_of(root: Path) -> Path:
    folder = root / "literature"
    folder.mkdir(exist_ok=True)
    literature(folder, {"method": "ce", "dataset": "cifar10", "augmentation": "std"})
    return folder


def render(results: Path) -> dict[str, str]:
    """Render all pages; return the files by name."""
    reports = results.parent / "reports"
    board = gather(Results(results), literature_of(results.parent))
    assert not board.problems, board.problems
    render_index(board, reports)
    render_runs(board, reports)
    render_recipe(Results(results), "small", reports)
    return {name: (reports / name).read_bytes().decode() for name in sorted(files_below(reports))}


def harmless(html: str) -> None:
    """Check that a page has only our scripts, and links to nowhere but its own files and the web."""
    reader = Reader(html)  # fails on an event handler, and where a tag stays open
    (policy,) = re.findall('http-equiv="Content-Security-Policy" content="(.*?)"', html)
    packed = html.count('<script type="text/plain"')
    assert reader.scripts - packed == policy.count("sha256-")
    for link in reader.links:
        assert re.match(r"(#|https?://|data:image/png;|(\.\./|runs/)?[\w.+-]+(#|$))", link), link


def test_pages_hold_no_markup_of_a_stranger(evil: Path) -> None:
    before = files_below(evil.parent)
    files = render(evil)
    for name, text in files.items():
        if name.endswith(".html"):
            harmless(text)
        if name.endswith(".svg"):
            for element in ET.fromstring(text).iter():
                tag = element.tag.rpartition("}")[2]
                assert tag not in ("script", "a", "foreignObject", "image", "animate", "set")
                assert not [key for key in element.attrib if key.startswith("on")]
        if name.endswith(".md"):
            assert not re.search(r"<(?!br>)", text)
        if name.endswith((".md", ".html")):
            assert "49" not in re.findall(r"owned.{0,80}?(49)", text)
        if name.endswith(".tex"):
            assert r"\input" not in text
    assert "&lt;script&gt;document.title" in files["index.html"]
    new = files_below(evil.parent) - before
    assert {name.split("/")[0] for name in new} == {"reports"}


def test_tables_for_spreadsheets_hold_no_formula(evil: Path) -> None:
    files = render(evil)
    seen = 0
    for name in ("index.csv", "small.csv"):
        header, *rows = csv.reader(files[name].splitlines(keepends=True))
        for row in rows:
            for column, cell in zip(header, row, strict=True):
                if cell[:1] in ("=", "@", "\t", "\r") or (cell[:1] in ("+", "-") and not is_number(cell)):
                    raise AssertionError(f"{name}: {column}: {cell[:40]!r}")
                seen += cell == f"'{FORMULA}"
    assert seen >= 4
    rows = json.loads(files["index.json"])  # which no spreadsheet opens
    assert FORMULA in [row["title"] for row in rows]


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def test_a_literature_without_harm_is_written_as_it_is(tmp_path: Path) -> None:
    finish(tmp_path / "results", make_cell())
    make_grid(tmp_path / "results", "small", [("ce", make_cell())])
    files = render(tmp_path / "results")
    assert "'" not in files["small.csv"] + files["index.csv"]


@pytest.mark.browser
def test_no_script_of_a_stranger_runs_in_a_browser(evil: Path, browser: Any) -> None:  # noqa: F811
    files = render(evil)
    reports = evil.parent / "reports"
    browser.get("about:blank")
    requests(browser)
    for name in files:
        if not name.endswith((".html", ".svg")):
            continue
        browser.get((reports / name).as_uri())
        if name.endswith(".html"):
            title = browser.title
            if browser.find_elements("css selector", "table.sortable"):
                wait(browser, lambda: browser.find_elements("css selector", ".dt-container"))
                for button in browser.find_elements("css selector", "button"):
                    if button.is_displayed() and button.is_enabled():
                        browser.execute_script("arguments[0].click()", button)
                for head in browser.find_elements("css selector", "th"):
                    browser.execute_script("arguments[0].click()", head)
            assert browser.title == title != "owned"
        assert browser.execute_script("return document.title") != "owned"
        complaints = [entry for entry in browser.get_log("browser") if "Content Security" in entry["message"]]
        assert complaints == [], name  # nothing even tried
    assert all(url.startswith(("file:", "blob:", "data:", "about:")) for url in requests(browser))


@pytest.mark.browser
def test_every_tab_opens_whatever_its_data_set_is_called(tmp_path: Path, browser: Any) -> None:  # noqa: F811
    results = tmp_path / "results"
    dataset = CIFAR10.model_copy(update={"name": "my.set+2"})
    finish(results, make_cell(dataset=dataset, imbalance_factor=1.5))
    finish(results, make_cell())
    board = gather(Results(results), literature_of(tmp_path))
    render_index(board, tmp_path / "reports")
    browser.get((tmp_path / "reports/index.html").as_uri())
    for tab in board.tabs:
        browser.execute_script("location.hash = arguments[0]", tab.anchor)
        tabs = browser.find_elements("css selector", "section.tab")
        wait(browser, lambda: [s.get_attribute("id") for s in tabs if s.is_displayed()] == [tab.anchor])  # noqa: B023


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": "../../../owned"},
        {"dataset": "/tmp/owned"},
        {"dataset": "x</style><script>"},
        {"name": SCRIPT},
        {"name": "../../owned"},
        {"imbalance_factor": 0.5},
        {"protocol": {"epochs": "200", SCRIPT: "x"}},
        {"metrics": {"accuracy": [1.0]}},
    ],
)
def test_predictions_of_a_stranger_are_reported_and_write_nothing(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    results = tmp_path / "results"
    labels = np.repeat(np.arange(10), 5)
    np.savez(tmp_path / "mine.npz", predictions=labels)
    made = external.scored(tmp_path / "mine.npz", "mine", CIFAR10, 100.0, labels, np.full(10, 50))
    file = external.save(results, made)
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    before = files_below(tmp_path)
    board = gather(Results(results), literature_of(tmp_path))
    assert len(board.problems) == 1
    assert "mine.json" in board.problems[0]
    render_index(board, tmp_path / "reports")
    assert all(name.startswith(("reports/", "literature/")) for name in files_below(tmp_path) - before)


@pytest.mark.parametrize("name", ["../../owned", "/tmp/owned", "a/b", "..", "[/x]", "A", "x" * 200, ""])
def test_predictions_are_kept_under_plain_names_only(tmp_path: Path, name: str) -> None:
    labels = np.repeat(np.arange(10), 5)
    np.savez(tmp_path / "mine.npz", predictions=labels)
    with pytest.raises(BenchError, match="name: method: "):
        external.scored(tmp_path / "mine.npz", name, CIFAR10, 100.0, labels, np.full(10, 50))


@pytest.mark.parametrize(
    "run", ["../../../etc", "..", "/etc/passwd", "", "*", "[/x]", "x" * 100_000, "\x1b[2J"]
)
def test_a_run_is_named_not_pathed(evil: Path, bench: Bench, run: str) -> None:
    (evil.parent / "owned").mkdir()
    for command in (["rerun", "--data", evil], ["evaluate"], ["explain"]):
        code, out = bench(command[0], run, *command[1:], "--results", evil)
        assert code == 2
        assert "Traceback" not in out
