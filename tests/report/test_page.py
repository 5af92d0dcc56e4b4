"""The page: it loads nothing, its figures are the JSON's, and every picture has words and a table beside it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest
from report_specimens import NAMES

from foveal.report.document import Report
from foveal.report.numbers import megabytes, percent, significant
from foveal.report.page.render import to_html
from foveal.report.sections.all import sections_of

_VOID = {"meta", "link"}


class Page(HTMLParser):
    """Tags with their attributes, ids, cells by table, and how tags are nested."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._open: list[str] = []
        self._title = ""
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "tr":
            self.tables[self._title].append([])
        elif tag in ("td", "th"):
            self.tables[self._title][-1].append("")

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "caption":
            self._title = data
            self.tables[data] = []
        elif self._open and self._open[-1] in ("td", "th"):
            self.tables[self._title][-1][-1] += data


@pytest.fixture(scope="module")
def html(report: Report) -> str:
    """The page."""
    return to_html(report)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    """The same, read."""
    return Page(html)


def test_it_loads_nothing(html: str, page: Page) -> None:
    """No script, no address of another machine; and a browser is told to load nothing either."""
    assert not {"script", "iframe", "object", "embed", "img", "image", "base"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        assert not {name for name in attributes if name.startswith("on") or name in ("src", "srcset", "action")}, tag
        target = attributes.get("href")
        assert target is None or target.startswith("#") or target == "data:,", (tag, target)
    assert set(re.findall(r"https?://[^\"' <)]+", html)) == {"http://www.w3.org/2000/svg"}  # the name of SVG's tags
    assert not re.search(r"@import|url\((?!#)", html)
    policy = next(attributes["content"] for tag, attributes in page.tags if attributes.get("http-equiv"))
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_ids_are_unique_and_links_lead_somewhere(html: str, page: Page) -> None:
    """Those inside of pictures too."""
    ids = Counter(attributes["id"] for _, attributes in page.tags if attributes.get("id"))
    assert max(ids.values()) == 1
    named = {attributes["href"] for _, attributes in page.tags if (attributes.get("href") or "").startswith("#")}
    assert {str(name)[1:] for name in named} | set(re.findall(r"url\(#([^)]+)\)", html)) <= set(ids)
    assert set(re.findall(r'href="#([\w-]+)">More', html)) <= set(ids)


def test_every_picture_has_words_and_figures(report: Report, page: Page, html: str) -> None:
    """A title and a description that readers of screens are given, and a table in the same section."""
    pictures = [attributes for tag, attributes in page.tags if tag == "svg"]
    sections = [section for section in sections_of(report) if section.pictures]
    assert len(pictures) == sum(len(section.pictures) for section in sections) >= 9
    for attributes in pictures:
        assert attributes["role"] == "img"
        for name in str(attributes["aria-labelledby"]).split():
            assert re.search(rf'id="{name}">[^<]{{10,}}<', html), name
    assert all(section.tables and section.commands for section in sections)


def floats(value: object) -> Iterator[float]:
    """All numbers of a document, but for raw samples."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name != "samples":
                yield from floats(inner)
    elif isinstance(value, list):
        yield float(len(value))  # firings are counted
        for inner in value:
            yield from floats(inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)


def test_every_figure_of_a_table_is_one_of_the_json(report: Report, page: Page) -> None:
    """As it is, in MB, in percent, or in milliseconds; rounded as it is written."""
    given = {
        scaled for value in floats(msgspec.to_builtins(report)) for scaled in (value, value / 1e6, value * 100, value / 1e3)
    }
    checked = 0
    for title, (header, *rows) in page.tables.items():
        if header == ["", ""]:
            continue  # of the machine, in words
        for row in rows:
            for cell in row[1:]:
                for text in re.findall(r"(?<![\w.@])[+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]\d+)?(?![\w.@])", cell):
                    value, digits = float(text.replace(",", "")), len(text.partition(".")[2])
                    half = 0.5001 * 10**-digits if "e" not in text else abs(value) * 0.06
                    assert any(abs(each - value) <= half for each in given), (title, cell)
                    checked += 1
    assert checked > 300


def test_tables_hold_the_figures_that_they_name(report: Report, page: Page) -> None:
    """Row by row, against the document."""
    for model, row in zip(report.measured.models, page.tables["Decoding"][1:], strict=True):
        assert row[:2] == [model.name.removesuffix(".bundle"), significant(model.latency.decode_tokens_per_s)]
        assert row[3] == significant(model.latency.itl_ms.p50)
    for stage, row in zip(report.models[0].stages, page.tables["Per token, on average"][1:], strict=True):
        assert row[2:] == [percent(report.time_shares[NAMES[0]][stage.name]), percent(stage.parameter_share)]
    for facts, row in zip(report.memory, page.tables["At the full context, MB"][1:], strict=True):
        full = facts.points[-1]
        assert row[2:5] == [megabytes(full.weights), megabytes(full.state), megabytes(full.working)]


def test_the_page_is_made_of_the_json_alone(report: Report, html: str) -> None:
    """The same bytes from what was written and read again; another figure makes another page."""
    again = msgspec.json.decode(msgspec.json.encode(report), type=Report)
    assert to_html(again) == html
    first, *others = report.measured.models
    other = msgspec.structs.replace(first, latency=msgspec.structs.replace(first.latency, decode_tokens_per_s=123456.0))
    measured = msgspec.structs.replace(report.measured, models=[other, *others])
    assert "123,456" in to_html(msgspec.structs.replace(report, measured=measured))
    assert "123,456" not in html


def test_names_are_text(report: Report) -> None:
    """Whatever a bundle is called."""
    name = "<img src=x onerror=alert(1)>.bundle"
    text = msgspec.json.encode(report).decode().replace("small.bundle", name)
    found = to_html(msgspec.json.decode(text, type=Report))
    assert "<img" not in found
    assert "&lt;img src=x" in found
    Page(found)


def test_doubts_stand_in_front(report: Report) -> None:
    """What is wrong with a measurement is said before its figures."""
    measured = msgspec.structs.replace(report.measured, status="noisy", problems=["rounds differ by 99%"])
    found = to_html(msgspec.structs.replace(report, measured=measured))
    assert found.index("rounds differ by 99%") < found.index('class="tiles"')


def test_what_was_not_measured_says_so(report: Report) -> None:
    """A section without figures has the reason in their place."""
    bare = msgspec.structs.replace(report, losses=[], losses_missing="no text was given; give one: --text F", texts=[])
    assert "Not measured: no text was given; give one: --text F." in to_html(bare)
    assert "GPU: not run" in to_html(bare)
