"""A real browser for tests of pages; tests that want it skip where there is none."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

FLAGS = (
    "headless=new no-sandbox disable-gpu disable-quic no-first-run disable-background-networking "
    "disable-component-update disable-sync window-size=1400,1000"
)


@pytest.fixture
def browser() -> Iterator[Any]:
    """Give a browser session; its log is of errors, `requests` tells what it fetched."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    webdriver = pytest.importorskip("selenium.webdriver")
    if not chromium or not driver:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in [*FLAGS.split(), f"user-data-dir={profile}"]:
            options.add_argument(f"--{flag}")
        session = webdriver.Chrome(options, webdriver.ChromeService(driver))
        yield session
        session.quit()


def wait(browser: Any, condition: Any) -> Any:
    """Wait until a condition without arguments holds, and return what it gave."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 20).until(lambda _: condition())


def requests(browser: Any) -> list[str]:
    """Return the addresses that the browser asked for since it was last asked."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [params["request"]["url"] for params in sent]
