"""A browser without a window, for tests of pages; where there is none they are skipped, and say what to install."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

PROGRAMS = (("chromium", "google-chrome", "chrome"), ("chromedriver",))
SECONDS = 20
"""That anything in a page may take on a busy machine."""


@contextmanager
def open_browser() -> Iterator[Chrome]:
    """Chromium; skips the test where it, its driver or selenium is missing."""
    found = [next(filter(None, map(shutil.which, names)), None) for names in PROGRAMS]
    if None in found:
        pytest.skip("no chromium and chromedriver to open pages with: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium to open pages with: pip install selenium")
    from selenium.webdriver.chrome.service import Service

    os.environ["SE_OFFLINE"] = "true"  # selenium would ask for drivers elsewhere
    options = webdriver.ChromeOptions()
    options.binary_location = found[0]
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run", "lang=en"):
        options.add_argument(f"--{argument}")
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")  # nothing but this machine
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(found[1]))
    try:
        browser.set_script_timeout(SECONDS)
        yield browser
    finally:
        browser.quit()


def until(holds: Callable[[], Any], what: str) -> Any:
    """What becomes true in a while."""
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.wait import WebDriverWait

    wait = WebDriverWait(None, SECONDS, poll_frequency=0.02, ignored_exceptions=[StaleElementReferenceException])
    return wait.until(lambda _: holds(), what)


def resize(browser: Chrome, width: int, height: int) -> None:
    """The page's own size, in CSS pixels; a window could not be so narrow."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    )
