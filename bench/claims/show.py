"""Results for people at a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from .result import ClaimsResult
from .tables import SENTENCES, Sheet, pages


def show(result: ClaimsResult, console: Console) -> None:
    """Print each claim, whether it holds here and for what, and the figures; then what makes them doubtful."""
    environment = result.environment
    console.print(f"{environment.cpu}, {result.threads} threads, {environment.created_utc[:10]}", markup=False)
    for page in pages(result):
        console.rule(page.claim, align="left")
        console.print(f"The article: {SENTENCES[page.claim]}.", markup=False)
        console.print(f"Here it {page.verdict.answer}.", style="bold", end=" ")
        console.print(page.verdict.sentence, markup=False)
        for sheet in page.sheets:
            console.print(_table(sheet), markup=False)
        console.print(f"{result.seconds[page.claim]:,.0f} s", markup=False)
        _warn(page.doubts, console)
    _warn(result.problems, console)


def _warn(doubts: Sequence[str], console: Console) -> None:
    for doubt in doubts:
        console.print(doubt, style="yellow", markup=False)


def _table(sheet: Sheet) -> Table:
    table = Table(title=sheet.title, box=None, title_justify="left", header_style="bold")
    for place, column in enumerate(sheet.columns):
        table.add_column(column, justify="right" if place else "left")
    for row in sheet.rows:
        table.add_row(*row)
    return table
