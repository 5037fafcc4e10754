"""A real browser for tests of pages; tests that want it skip where there is none."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from project import ROOT

#: The checker of accessibility, and where git does not see it.
AXE = "axe-core@4.14.1"
AXE_HERE = ROOT / "build" / AXE / "axe.min.js"

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


@pytest.fixture(scope="session")
def axe() -> str:
    """Give axe-core's script, from npm or from an earlier time."""
    if not AXE_HERE.exists():
        npm = shutil.which("npm")
        if not npm:
            pytest.skip("needs npm, for axe-core")
        with tempfile.TemporaryDirectory() as folder:
            command = [npm, "install", "--no-audit", "--no-fund", "--prefix", folder, AXE]
            made = subprocess.run(command, capture_output=True, text=True)
            source = Path(folder) / "node_modules/axe-core/axe.min.js"
            if made.returncode or not source.exists():
                pytest.skip(f"axe-core cannot be had from npm: {made.stderr.strip()[-200:]}")
            AXE_HERE.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, AXE_HERE.with_suffix(".new"))
            AXE_HERE.with_suffix(".new").replace(AXE_HERE)
    return AXE_HERE.read_text(encoding="utf-8")


def faults(browser: Any, axe: str) -> list[str]:
    """Return the serious and critical faults that axe-core finds in the open page, with what has them."""
    browser.execute_script(axe)
    found = browser.execute_async_script(
        "const done = arguments[0]; axe.run().then((reported) => done(reported.violations))"
    )
    return [
        f"{fault['id']}: {node['html'][:200]} {node['failureSummary'][:200]}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"][:3]
    ]


def requests(browser: Any) -> list[str]:
    """Return the addresses that the browser asked for since it was last asked."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [params["request"]["url"] for params in sent]
