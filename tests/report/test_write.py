"""Files of a report: by the names' endings, whole or not at all."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import msgspec
import pytest

from foveal import BackendUnavailable, ConfigError
from foveal.errors import StorageError
from foveal.report import write
from foveal.report.document import Report
from foveal.report.markdown import to_markdown
from foveal.report.page.render import to_html
from foveal.report.sections.all import sections_of
from foveal.report.write import require_outs, write_report


def test_three_formats(report: Report, tmp_path: Path) -> None:
    """HTML and JSON are one file each; Markdown comes with pictures in a folder of its name."""
    assert write_report(report, tmp_path / "r.html") == [tmp_path / "r.html"]
    assert (tmp_path / "r.html").read_text(encoding="utf-8") == to_html(report)
    write_report(report, tmp_path / "r.json")
    assert msgspec.json.decode((tmp_path / "r.json").read_bytes(), type=Report) == report
    *pictures, page = write_report(report, tmp_path / "r.MD")
    assert page == tmp_path / "r.MD"
    assert sorted(pictures) == sorted((tmp_path / "r-pictures").iterdir())
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    assert sorted(tmp_path / name for name in shown) == sorted(pictures)


def test_markdown_has_all_that_the_page_has(report: Report) -> None:
    """Sections, sentences, tables and commands, in the same order."""
    text, _ = to_markdown(report, "r")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["In short", *(section.title for section in sections_of(report))]
    rows = {line for line in text.splitlines() if line.startswith("|")}
    for section in sections_of(report):
        for table in (*section.shown, *section.tables):
            for row in table.rows:
                assert "| " + " | ".join(re.sub(r"([\\`*_\[\]<>|])", r"\\\1", cell) for cell in row) + " |" in rows, table.title
        assert all(command in text for command in section.commands)


def test_markdown_takes_names_as_text(report: Report) -> None:
    """A bar would end a cell, a star make it bold."""
    found = msgspec.json.decode(msgspec.json.encode(report).decode().replace("small.bundle", "a|b*c_d.bundle"), type=Report)
    text, _ = to_markdown(found, "r")
    assert "| a\\|b\\*c\\_d |" in text


@pytest.mark.parametrize("name", ["r.txt", "r", "r.svg"])
def test_other_endings(name: str, tmp_path: Path) -> None:
    """Are refused before anything is measured."""
    with pytest.raises(ConfigError, match=r"expected a name that ends in \.html, \.md, \.json"):
        require_outs([tmp_path / name])
    with pytest.raises(ConfigError, match="nowhere to write the report: give --out F"):
        require_outs([])


def test_a_place_that_can_not_be_written(tmp_path: Path) -> None:
    """A folder of that name, and a file where the folder would have to be."""
    (tmp_path / "d.html").mkdir()
    with pytest.raises(StorageError):
        require_outs([tmp_path / "d.html"])
    (tmp_path / "r-pictures").write_text("")
    with pytest.raises(StorageError):
        require_outs([tmp_path / "r.md"])


@pytest.mark.parametrize(("package", "name"), [("matplotlib", "r.md"), ("matplotlib", "r.html"), ("jinja2", "r.html")])
def test_what_draws_is_missing(package: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said which extra brings it; JSON needs neither."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BackendUnavailable, match=rf"need[s]? {package}: pip install '\.\[report\]'"):
        require_outs([tmp_path / name])
    require_outs([tmp_path / "r.json"])
    assert not (tmp_path / name).exists()


def test_what_was_there_stays_when_writing_fails(report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old page is whole, and nothing lies beside it."""
    (tmp_path / "r.html").write_text("old")

    def full(_path: Path, _data: bytes) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(write, "write_atomically", full)
    with pytest.raises(StorageError, match="the disk is full"):
        write_report(report, tmp_path / "r.html")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("r.html", "old")]
