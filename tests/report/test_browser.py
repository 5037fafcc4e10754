"""The pages in a real browser: they sort, filter, widen, lead on, fetch nothing and complain of nothing."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest
from browser_fixture import axe, browser, faults, requests, wait  # noqa: F401 - fixtures are used by their names
from html_reader import HOSTILE
from leaderboard_fakes import literature
from records_factory import CIFAR10_JPEG, finish, make_cell, make_grid

from bench.cell import BackboneChoice, Protocol
from bench.leaderboard import gather
from bench.records import Results
from bench.report.index_page import render_index
from bench.report.recipe_page import render_recipe
from bench.report.run_page import render_runs

pytestmark = pytest.mark.browser

RESNET32 = BackboneChoice(name="resnet32_cifar")


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """The pages of a leaderboard with three leagues, of which one is measured, and with hostile text."""
    results, folder = tmp_path / "results", tmp_path / "literature"
    folder.mkdir()
    for name in ("ce", "ldam_drw", "balanced_softmax"):
        for seed in range(3 if name == "ce" else 1):
            finish(results, make_cell(name, seed, backbone=RESNET32))
    finish(results, make_cell("ce", dataset=CIFAR10_JPEG, backbone=RESNET32))
    finish(results, make_cell("evil", backbone=RESNET32, protocol=Protocol(epochs=20)), method=evil())
    base = {"dataset": "cifar10", "augmentation": "std"}
    numbers = [
        {"method": "ce", "value": "70.4", "note": HOSTILE},
        {"method": "ce", "value": "71.2", "reported_by": "Another", "source": HOSTILE, "original": "no"},
        {"method": "crt", "value": "90.5"},
        {"method": "ride", "value": "95.5", "epochs": "400"},
        {"method": "bcl", "value": "60.5", "augmentation": "autoaug"},
        {"method": "bcl", "value": "51.9", "dataset": "cifar100"},
    ]
    literature(folder, *[base | number for number in numbers])
    board = gather(Results(results), folder)
    render_index(board, tmp_path / "reports")
    render_runs(board, tmp_path / "reports")
    return tmp_path / "reports"


def evil() -> dict[str, Any]:
    about = {"name": "evil", "title": HOSTILE, "paper": "javascript:document.title='owned'"}
    return about | {"reconstruction": True, "scores": "train_prior", "venue": HOSTILE, "year": 2020}


class Page:
    """What a reader sees of an open leaderboard."""

    def __init__(self, browser: Any, reports: Path, tab: str) -> None:  # noqa: F811
        self.browser, self.tab = browser, tab
        browser.get((reports / "index.html").as_uri() + f"#{tab}")
        wait(browser, lambda: browser.find_elements("css selector", f"#{tab} .dt-container"))

    def find(self, selector: str) -> list[Any]:
        return list(self.browser.find_elements("css selector", f"#{self.tab} {selector}"))

    def column(self, head: str) -> list[str]:
        """The column's texts, of the rows that are shown."""
        heads = [cell.text.partition("\n")[0] for cell in self.find("thead th")]
        index = next(i for i, text in enumerate(heads) if text.startswith(head))
        rows = self.find("tbody tr")
        return [row.find_elements("css selector", "td")[index].text for row in rows]

    def head(self, text: str) -> Any:
        return next(cell for cell in self.find("thead th") if cell.text.startswith(text))

    def choose(self, field: str, value: str) -> None:
        from selenium.webdriver.support.ui import Select

        self.browser.execute_script("arguments[0].open = true", self.find("details.more")[0])
        (select,) = self.find(f'select[data-label="{field}"]')
        Select(select).select_by_value(value)

    def open(self, protocol: str) -> None:
        from selenium.webdriver.support.ui import Select

        select = Select(self.find(".league select")[0])
        (option,) = [option for option in select.options if option.text.startswith(protocol)]
        select.select_by_visible_text(option.text)

    @property
    def summary(self) -> str:
        return " ".join(self.find(part)[0].text for part in ("h2", ".headline", ".agreement"))


def names(page: Page) -> list[str]:
    return [text.partition("\n")[0] for text in page.column("method")]


def numbers(texts: list[str]) -> list[float | None]:
    """The numbers that a column begins with, None where it has none."""
    found = [re.match(r"[+−]?\d+(\.\d+)?", text) for text in texts]
    return [float(number[0].replace("−", "-")) if number else None for number in found]


def test_the_leaderboard(reports: Path, browser: Any) -> None:  # noqa: F811
    browser.get("about:blank")
    requests(browser)
    page = Page(browser, reports, "cifar10-100")
    assert browser.title.startswith("Long-tailed recognition")

    # It opens on the league with most measured rows, each beside what is published, in the order of ranks.
    assert names(page) == ["Balanced Softmax", "LDAM-DRW", "Cross-entropy", "cRT"]
    assert page.column("#") == ["(1)", "(2)", "3", "1"]
    assert "protocol" not in [head.text for head in page.find("thead th")]

    # Filtering by text leaves the ranks alone.
    (search,) = page.find("input[type=search]")
    search.send_keys("LDAM")
    wait(browser, lambda: names(page) == ["LDAM-DRW"])
    assert page.column("#") == ["(2)"]
    search.clear()
    search.send_keys(" ")
    wait(browser, lambda: len(names(page)) == 4)

    # Widening shows more, names what differs, and neither ranks nor names a winner.
    page.choose("epochs", "")
    wait(browser, lambda: len(names(page)) == 6)
    assert "no winner is named" in page.summary
    assert "epochs (" in page.summary
    assert "best" not in page.summary
    assert {*page.column("#")} == {"n/a"}
    differing = dict(zip(names(page), page.column("protocol"), strict=True))
    assert differing["RIDE"] == "epochs 250-499"
    assert differing["cRT"] == ""
    page.open("all protocols")
    wait(browser, lambda: len(names(page)) == 8)
    assert "data copy (original, JPEG quality 75)" in page.summary
    page.choose("rows", "1")
    wait(browser, lambda: set(names(page)) == {"BCL", "RIDE", "cRT"})

    # A range opens on a key press and names its sources.
    page.open("ResNet-32, 200 epochs, crop and flip (")
    (button,) = page.find("td button.range")
    assert button.text == "70.4–71.2, 2 reports"
    button.send_keys("\n")
    tip = browser.find_element("id", "tip")
    wait(browser, lambda: tip.is_displayed())
    assert "Another" in tip.text
    assert "read from text" in tip.text

    # Columns are optional.
    def heads() -> list[str]:
        return [head.text.partition("\n")[0] for head in page.find("thead th")]

    browser.execute_script("document.getElementById('tip').hidePopover()")
    assert "ECE" not in heads()
    page.find(".buttons-colvis")[0].click()
    wait(browser, lambda: page.find(".dt-button-collection"))
    next(item for item in page.find(".dt-button-collection button") if item.text == "ECE").click()
    wait(browser, lambda: "ECE" in heads())

    # Nothing was fetched, nothing complained, nothing hostile ran.
    fetched = [url for url in requests(browser) if not url.startswith(("blob:", "data:"))]
    assert fetched == [(reports / "index.html").as_uri()] or fetched == [
        (reports / "index.html").as_uri() + "#cifar10-100"
    ]
    assert browser.get_log("browser") == []
    assert browser.title.startswith("Long-tailed recognition")
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")


def test_the_first_click_sorts_down_and_what_is_not_known_stands_last(reports: Path, browser: Any) -> None:  # noqa: F811
    page = Page(browser, reports, "cifar10-100")
    page.open("all protocols")
    for head in ("measured", "published", "many", "device time"):
        known = [number for number in numbers(page.column(head)) if number is not None]
        empty = [None] * (len(page.column(head)) - len(known))
        assert known, head
        assert empty or head == "published", head
        for order in (sorted(known, reverse=True), sorted(known)):
            page.head(head).click()
            wait(browser, lambda head=head, order=[*order, *empty]: numbers(page.column(head)) == order)
    browser.get("about:blank")
    page = Page(browser, reports, "cifar10-100")  # on one league, as only there are ranks
    page.head("method").click()
    page.head("#").click()
    assert page.column("#") == ["(1)", "(2)", "3", "1"]  # measured, then only published


def test_the_headline_is_what_the_table_says(reports: Path, browser: Any) -> None:  # noqa: F811
    page = Page(browser, reports, "cifar10-100")
    rows = list(zip(names(page), page.column("measured"), page.column("published"), strict=True))
    name, score, _ = max(rows, key=lambda row: numbers([row[1]])[0] or 0)
    best, _, printed = max(rows, key=lambda row: numbers([row[2]])[0] or 0)
    printed = str(numbers([printed])[0])
    assert "CIFAR-10-LT, imbalance factor 100, ResNet-32, 200 epochs, crop and flip" in page.summary
    assert f"Highest measured {name} {score}, one seed: not ranked" in page.summary
    steady = {row[0]: row[1] for row in rows}["Cross-entropy"]
    assert f"best measured Cross-entropy {steady} (n = 3)" in page.summary
    assert f"best published {best} {printed}." in page.summary
    gap = page.column("verdict")[names(page).index("Cross-entropy")].removeprefix("below ")
    assert (
        f"Of 3 measured methods, 1 beside a published number: 1 below; measured minus published {gap}."
        in page.summary
    )

    page.open("ResNet-32, 250–499 epochs")
    wait(browser, lambda: names(page) == ["RIDE"])
    assert "Nothing measured here; best published RIDE 95.5." in page.summary


def test_no_gap_stands_where_protocols_differ(reports: Path, browser: Any) -> None:  # noqa: F811
    page = Page(browser, reports, "cifar10-100")
    page.open("all protocols")
    wait(browser, lambda: len(names(page)) == 8)
    (shown,) = [text for text in page.column("verdict") if "differs" in text]
    assert shown == "protocol differs data copy"  # on one line
    (published,) = [
        published
        for published, verdict in zip(page.column("published"), page.column("verdict"), strict=True)
        if verdict == shown
    ]
    assert published == "n/a"
    page.find("button.detail")[0].send_keys("\n")
    assert "its protocol differs in data copy" in browser.find_element("id", "tip").text


def test_pairs_of_unlike_protocols_are_drawn_only_when_asked_for(reports: Path, browser: Any) -> None:  # noqa: F811
    browser.get((reports / "index.html").as_uri())
    shown = lambda: [  # noqa: E731
        "protocol differs" in figure.text
        for figure in browser.find_elements("css selector", ".agreement-figure figure")
        if figure.is_displayed()
    ]
    assert shown() == [False]
    browser.find_element("css selector", ".agreement-figure input").click()
    assert shown() == [True]


def downloaded(page: Page) -> str:
    """Return the CSV file that the button offers, without its byte order mark."""
    keep = "URL.createObjectURL = (blob) => (blob.text().then((text) => (window.saved = text)), 'blob:none')"
    page.browser.execute_script(keep)
    page.find("button.buttons-csv")[0].click()
    wait(page.browser, lambda: page.browser.execute_script("return window.saved"))
    return str(page.browser.execute_script("return window.saved"))


def test_controls_stay_beneath_their_method(tmp_path: Path, browser: Any) -> None:  # noqa: F811
    results = tmp_path / "results"
    for seed in range(3):
        finish(results, make_cell("bcl", seed, backbone=RESNET32))
        finish(results, make_cell("bcl", seed, params={"contrast_weight": 0.0}, backbone=RESNET32))
        finish(results, make_cell("ce", seed, backbone=RESNET32))
    (tmp_path / "literature").mkdir()
    literature(tmp_path / "literature", {"method": "crt"})
    render_index(gather(Results(results), tmp_path / "literature"), tmp_path / "reports")
    page = Page(browser, tmp_path / "reports", "cifar10-100")
    methods = ["bcl", "↳ no contrast", "Cross-entropy"]
    assert sorted(names(page)) == sorted(methods)
    for head in ("measured", "measured", "method", "method", "#"):
        page.head(head).click()
        order = names(page)
        assert order.index("↳ no contrast") == order.index("bcl") + 1
    head, *rows = filter(None, csv.reader(downloaded(page).splitlines()))
    assert [row[1] for row in rows] == names(page)
    assert {len(row) for row in rows} == {len(head)}
    (added,) = [text for text in page.column("verdict") if "adds" in text]
    assert re.fullmatch(r"bcl adds [+−]\d\.\d\d \([+−]\d+\.\d\d to [+−]\d+\.\d\d, n = 3\)", added)
    screen(browser, 390)
    (verdict,) = [head.rect for head in page.find("thead th") if head.text.startswith("verdict")]
    assert verdict["x"] + verdict["width"] <= 390


def test_bold_follows_the_rows_shown(reports: Path, browser: Any) -> None:  # noqa: F811
    page = Page(browser, reports, "cifar10-100")

    def bold() -> set[str]:
        rows = page.find("tbody tr:has(td.strong) td:nth-child(2)")
        return {cell.text.partition("\n")[0] for cell in rows}

    # One seed or two say too little of noise, and are never bold.
    assert bold() == {"Cross-entropy", "cRT"}
    page.choose("epochs", "")  # rows of several protocols have no best
    wait(browser, lambda: not bold())


def test_tabs_have_addresses(reports: Path, browser: Any) -> None:  # noqa: F811
    from selenium.webdriver.support.ui import Select

    page = Page(browser, reports, "cifar10-100")
    other = browser.find_element("id", "cifar100-100")
    assert not other.is_displayed()
    assert not other.find_elements("css selector", ".dt-container")  # made when it is first looked at
    Select(page.find("select[data-goto]")[0]).select_by_visible_text("CIFAR-100-LT")
    wait(browser, other.is_displayed)
    assert not browser.find_element("id", "cifar10-100").is_displayed()
    assert browser.current_url.endswith("#cifar100-100")
    assert names(Page(browser, reports, "cifar100-100")) == ["BCL"]
    browser.back()
    browser.back()
    assert len(names(Page(browser, reports, "cifar10-100"))) == 4


def test_a_row_leads_to_its_run_page(reports: Path, browser: Any) -> None:  # noqa: F811
    page = Page(browser, reports, "cifar10-100")
    (link,) = [link for link in page.find("tbody a") if link.text == "LDAM-DRW"]
    link.click()
    wait(browser, lambda: "/runs/" in browser.current_url)
    assert browser.find_element("tag name", "h1").text == "LDAM-DRW"
    assert "run_bench.py rerun cifar10-if100-ldam_drw-s0-" in browser.find_element("tag name", "pre").text
    browser.find_element("link text", "leaderboard").click()
    wait(browser, lambda: browser.current_url.endswith("index.html#cifar10-100"))
    assert browser.get_log("browser") == []


def screen(browser: Any, width: int, scheme: str = "light") -> None:  # noqa: F811
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 640}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)


def test_a_phone_shows_method_accuracy_and_verdict_without_scrolling_sideways(
    reports: Path,
    browser: Any,  # noqa: F811
) -> None:
    screen(browser, 390)
    page = Page(browser, reports, "cifar10-100")
    heads = {
        head.text.partition("\n")[0].split(" ")[0]: head.rect for head in page.find("thead th") if head.text
    }
    for name in ("method", "measured", "published", "verdict"):
        assert heads[name]["x"] >= 0
        assert heads[name]["x"] + heads[name]["width"] <= 390, name
    table = page.find("table")[0].rect
    assert table["y"] < 844 / 2  # the table comes first
    assert table["y"] < min(figure.rect["y"] for figure in page.find("figure") if figure.is_displayed())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_pages_have_no_serious_fault_of_accessibility(
    reports: Path,
    browser: Any,  # noqa: F811
    axe: str,  # noqa: F811
    scheme: str,
    width: int,
) -> None:
    screen(browser, width, scheme)
    browser.set_script_timeout(120)
    page = Page(browser, reports, "cifar10-100")
    page.open("all protocols")
    assert faults(browser, axe) == []
    browser.get(next(reports.glob("runs/*.html")).as_uri())
    assert faults(browser, axe) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(reports: Path, browser: Any, scheme: str) -> None:  # noqa: F811
    screen(browser, 390, scheme)
    Page(browser, reports, "cifar10-100")
    for file in (reports / "index.html", *sorted(reports.glob("runs/*.html"))):
        browser.get(file.as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth"), (
            file
        )
        ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(255, 255, 255)") == (scheme == "light")


def test_the_recipe_page(tmp_path: Path, browser: Any, axe: str) -> None:  # noqa: F811
    results, cells = tmp_path / "results", [make_cell(name) for name in ("tsc", "ce", "ldam_drw")]
    for cell in cells:
        finish(results, cell)
    finish(results, make_cell("evil"), method=evil())
    labels = [(cell.method.name, cell) for cell in cells]
    make_grid(results, "small", [*labels, (HOSTILE, make_cell("evil"))], title="A page", notes=HOSTILE)
    render_recipe(Results(results), "small", tmp_path)
    browser.get((tmp_path / "small.html").as_uri())
    wait(browser, lambda: browser.find_elements("css selector", ".dt-container"))
    assert browser.title == "A page"
    assert browser.get_log("browser") == []

    def column() -> list[float]:
        cells = browser.find_elements("css selector", "table.sortable td.headline")
        return [float(cell.text.split()[0]) for cell in cells]

    heads = browser.find_elements("css selector", "table.sortable th")
    (head,) = [head for head in heads if head.text.startswith("accuracy")]
    before = column()
    assert before != sorted(before, reverse=True)
    for order in (sorted(before, reverse=True), sorted(before)):
        head.click()
        wait(browser, lambda order=order: column() == order)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert faults(browser, axe) == []
