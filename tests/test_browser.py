"""The pages in a real browser: they sort, filter, widen, lead on, fetch nothing and complain of nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browser_fixture import browser, requests, wait  # noqa: F401 - the fixture is used by its name
from leaderboard_fakes import literature
from records_factory import CIFAR10_JPEG, finish, make_cell, make_grid
from test_report import HOSTILE

from bench.cell import BackboneChoice, Protocol
from bench.leaderboard import gather
from bench.records import Results
from bench.report import render_index, render_recipe, render_runs

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
        place = next(i for i, text in enumerate(heads) if text.startswith(head))
        rows = self.find("tbody tr")
        return [row.find_elements("css selector", "td")[place].text for row in rows]

    def head(self, text: str) -> Any:
        return next(cell for cell in self.find("thead th") if cell.text.startswith(text))

    def choose(self, field: str, value: str) -> None:
        from selenium.webdriver.support.ui import Select

        (select,) = self.find(f'select[data-label="{field}"]')
        Select(select).select_by_value(value)

    @property
    def said(self) -> str:
        return str(self.find("output")[0].text)


def names(page: Page) -> list[str]:
    return [text.partition("\n")[0] for text in page.column("method")]


def test_the_leaderboard(reports: Path, browser: Any) -> None:  # noqa: F811
    browser.get("about:blank")
    requests(browser)
    page = Page(browser, reports, "cifar10-100")
    assert browser.title.startswith("Long-tailed recognition")

    # It opens on the league with most measured rows; others are not in it.
    opened = names(page)
    assert sorted(opened) == ["Balanced Softmax", "CE", "Cross-entropy", "LDAM-DRW", "cRT"]
    assert "one protocol" in page.said
    assert "5 of 9 rows" in page.said
    assert "protocol" not in [head.text for head in page.find("thead th")]

    # Sorting, and the ranks that go with it; those of one seed are in brackets.
    def ranks() -> list[str]:
        return [text.strip("()") for text in page.column("#")]

    page.head("#").click()
    wait(browser, lambda: ranks() == ["1", "2", "3", "4", "5"])
    values = [float(text.split()[0]) for text in page.column("accuracy")]
    assert values == sorted(values, reverse=True)
    (top,) = (rank for rank, name in zip(page.column("#"), names(page), strict=True) if name == "cRT")
    for rank, n, row in zip(page.column("#"), page.column("n"), page.find("tbody tr"), strict=True):
        assert rank.startswith("(") == (n == "1" and "measured" in row.text)
    page.head("#").click()
    wait(browser, lambda: ranks() == ["5", "4", "3", "2", "1"])

    # Filtering by text leaves the ranks alone.
    (search,) = page.find("input[type=search]")
    search.send_keys("cRT")
    wait(browser, lambda: names(page) == ["cRT"])
    assert page.column("#") == [top]
    search.clear()
    search.send_keys(" ")
    wait(browser, lambda: len(names(page)) == 5)

    # Widening shows more, says what differs, and ranks anew.
    page.choose("epochs", "")
    wait(browser, lambda: len(names(page)) == 7)
    assert "unlike in epochs (" in page.said
    of_rows = dict(zip(names(page), ranks(), strict=True))
    assert (of_rows["RIDE"], of_rows["cRT"]) == ("1", "2")
    differing = dict(zip(names(page), page.column("protocol"), strict=True))
    assert differing["RIDE"] == "epochs 250-499"
    assert differing["cRT"] == ""
    page.find("button.widen")[0].click()
    wait(browser, lambda: len(names(page)) == 9)
    assert "data copy (original, JPEG quality 75)" in page.said
    page.choose("rows", "1")
    wait(browser, lambda: set(names(page)) == {"BCL", "CE", "RIDE", "cRT"})

    # A range opens on a key press and names its sources.
    (button,) = page.find("td.headline button.range")
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


def test_bold_follows_the_rows_shown(reports: Path, browser: Any) -> None:  # noqa: F811
    page = Page(browser, reports, "cifar10-100")

    def bold() -> set[str]:
        rows = page.find("tbody tr:has(td.headline.strong) td:nth-child(2)")
        return {cell.text.partition("\n")[0] for cell in rows}

    # One seed or two say too little of noise, and are never bold.
    assert bold() == {"Cross-entropy", "cRT"}
    page.choose("epochs", "")
    wait(browser, lambda: "RIDE" in bold())
    assert "cRT" not in bold()


def test_tabs_have_keys_and_addresses(reports: Path, browser: Any) -> None:  # noqa: F811
    Page(browser, reports, "cifar10-100")
    other = browser.find_element("id", "cifar100-100")
    assert not other.is_displayed()
    assert not other.find_elements("css selector", ".dt-container")  # made when it is first looked at
    browser.find_element("id", "tab-cifar10-100").send_keys("\ue012")  # arrow left
    wait(browser, other.is_displayed)
    assert not browser.find_element("id", "cifar10-100").is_displayed()
    assert browser.current_url.endswith("#cifar100-100")
    assert names(Page(browser, reports, "cifar100-100")) == ["BCL"]
    assert len(names(Page(browser, reports, "cifar10-100"))) == 5


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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(reports: Path, browser: Any, scheme: str) -> None:  # noqa: F811
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
    Page(browser, reports, "cifar10-100")
    for file in (reports / "index.html", *sorted(reports.glob("runs/*.html"))):
        browser.get(file.as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth"), (
            file
        )
        ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(255, 255, 255)") == (scheme == "light")


def test_the_recipe_page(tmp_path: Path, browser: Any) -> None:  # noqa: F811
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
    assert before != sorted(before)
    for order in (sorted(before), sorted(before, reverse=True)):
        head.click()
        wait(browser, lambda order=order: column() == order)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
