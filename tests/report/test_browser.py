"""The page in Chromium: nothing is wider than the window, nothing is complained of, text can be read, paper takes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from browsers import open_browser, resize

from foveal.report.document import Report
from foveal.report.pictures.style import DARK, LIGHT
from foveal.report.write import write_report

if TYPE_CHECKING:
    from selenium.webdriver import Chrome


@pytest.fixture(scope="module")
def browser(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """With the page open."""
    out = tmp_path_factory.mktemp("page") / "report.html"
    write_report(report, out)
    with open_browser() as chrome:
        chrome.get(out.as_uri())
        yield chrome


def show(browser: Chrome, width: int, theme: str, media: str = "screen") -> None:
    """At a width, in a theme, all tables unfolded."""
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
    resize(browser, width, 900)
    browser.execute_script("for (const each of document.querySelectorAll('details')) each.open = true")


def colour(browser: Chrome, selector: str, what: str) -> str:
    """As `#rrggbb`."""
    script = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]].match(/\\d+/g).map(Number)"
    found: Any = browser.execute_script(script, selector, what)
    return "#" + "".join(f"{part:02x}" for part in found[:3])


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 800, 1280])
def test_nothing_is_wider_than_the_window(width: int, theme: str, browser: Chrome) -> None:
    """Wide tables scroll in frames of their own; every picture is inside its card; the console is empty."""
    show(browser, width, theme)
    assert browser.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    outside = browser.execute_script(
        """const within = (box, frame) => box.left >= frame.left - 1 && box.right <= frame.right + 1;
        return [...document.querySelectorAll('svg text')].filter((text) =>
          !within(text.getBoundingClientRect(), text.closest('figure').getBoundingClientRect()))
          .map((text) => text.textContent)"""
    )
    assert outside == []
    assert browser.get_log("browser") == []


@pytest.mark.parametrize(("theme", "palette"), [("light", LIGHT), ("dark", DARK)])
def test_the_theme_is_the_readers(theme: str, palette: dict[str, str], browser: Chrome) -> None:
    """Of the page and of the pictures."""
    show(browser, 1280, theme)
    assert colour(browser, "body", "backgroundColor") == palette["ground"]
    assert colour(browser, "body", "color") == palette["ink"]
    assert colour(browser, "#timeline-desc ~ g path[style*='--scale-0']", "fill") == palette["scale-0"]


def test_paper_is_white(browser: Chrome) -> None:
    """Whatever the theme of the screen."""
    show(browser, 800, "dark", "print")
    assert colour(browser, "body", "color") == LIGHT["ink"]
    assert colour(browser, "#timeline-desc ~ g path[style*='--scale-0']", "fill") == LIGHT["scale-0"]
    assert browser.execute_script("return getComputedStyle(document.querySelector('nav')).display") == "none"


@pytest.mark.parametrize("width", [390, 1280])
def test_text_of_pictures_can_be_read(width: int, browser: Chrome) -> None:
    """From 8.5 pixels up to the size of a heading."""
    show(browser, width, "light")
    sizes = browser.execute_script(
        """return [...document.querySelectorAll('svg text')].map((text) =>
          parseFloat(getComputedStyle(text).fontSize) * Math.hypot(text.getScreenCTM().c, text.getScreenCTM().d))"""
    )
    assert min(sizes) > 8.5
    assert max(sizes) < 17


def test_words_do_not_stand_upon_each_other(browser: Chrome) -> None:
    """In no picture."""
    show(browser, 1280, "light")
    found = browser.execute_script(
        """const upon = [];
        for (const picture of document.querySelectorAll('svg')) {
          const texts = [...picture.querySelectorAll('text')].map((text) => [text.textContent, text.getBoundingClientRect()]);
          texts.forEach(([one, a], index) => texts.slice(index + 1).forEach(([other, b]) => {
            const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
            const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
            if (across > 1 && down > 3) upon.push([one, other]);
          }));
        }
        return upon"""
    )
    assert found == []
