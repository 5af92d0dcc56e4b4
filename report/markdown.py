"""Sections to Markdown, with pictures in files beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .document import Report
from .glance import figures_at_a_glance
from .numbers import label
from .pictures.svg import alone
from .sections.all import sections_of
from .sections.section import Section, Table


def to_markdown(report: Report, folder: str) -> tuple[str, dict[str, str]]:
    """The text, and the pictures that it shows, by file name in `folder`, which is relative to it.

    Raises:
        BackendUnavailable: matplotlib is not installed.
    """
    sections = sections_of(report)
    pictures = {f"{picture.name}.svg": alone(picture.svg()) for section in sections for picture in section.pictures}
    lines = [*_head(report)]
    for section in sections:
        lines += _section(section, folder)
    lines.append(f"Made by foveal {report.foveal}, {report.created_utc}.")
    return "\n".join(lines) + "\n", pictures


def _head(report: Report) -> Iterator[str]:
    measured, subject = report.measured.environment, report.models[0]
    yield f"# {label(report.subject)}: a report by foveal\n"
    beside = ", ".join(label(model.name) for model in report.models[1:])
    yield (
        f"{subject.hierarchy}, {subject.precision}; measured {measured.created_utc[:10]} on {measured.cpu or 'an unnamed CPU'}"
        f"{f'; beside {beside}' if beside else ''}.\n"
    )
    if report.measured.problems:
        yield f"> Read the times with care ({report.measured.status}):"
        yield from (f"> - {_plain(problem)}" for problem in report.measured.problems)
        yield ""
    yield from _table(Table("", ["", "", ""], [list(tile) for tile in figures_at_a_glance(report)], frozenset({1, 2})))
    yield "## In short\n"
    for answer in report.summary:
        yield f"**{answer.question}** {_plain(answer.answer)}\n"


def _section(section: Section, folder: str) -> Iterator[str]:
    yield f"## {section.title}\n"
    yield from (f"{_plain(paragraph)}\n" for paragraph in section.lead)
    if section.missing:
        yield f"*{_plain(section.missing)}*\n"
    for picture in section.pictures:
        yield f"![{_plain(picture.title)}. {_plain(picture.description)}]({folder}/{picture.name}.svg)\n"
    for table in section.shown:
        yield from _table(table)
    if section.tables:
        yield '<details markdown="1">\n<summary>All figures</summary>\n'  # markdown="1": for sites made by Python-Markdown
        for table in section.tables:
            yield from _table(table)
        yield "</details>\n"
    if section.commands:
        yield "```sh"
        yield from section.commands
        yield "```\n"


def _table(table: Table) -> Iterator[str]:
    if table.title:
        yield f"**{_plain(table.title)}**\n"
    yield _row(table.header)
    yield _row(["---" if index == 0 or index in table.texts else "---:" for index in range(len(table.header))])
    yield from map(_row, table.rows)
    yield ""


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_plain, cells))} |"


def _plain(text: str) -> str:
    """Without what Markdown would take for marks of its own."""
    for mark in "\\`*_[]<>|":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())
