"""Two results' differences as a table for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from .difference import Change, Difference
from .show import interval_of


def show_difference(found: Difference, console: Console) -> None:
    """Print what changed beyond noise, figure by figure, then how many did not, and what else was other."""
    for other in found.environment:
        console.print(f"not the same: {other.what}: {other.before} and {other.after}")
    if found.changed:
        console.print(_table(found.changed))
    same, silent = (sum(change.verdict == verdict for change in found.changes) for verdict in ("same", "not judged"))
    console.print(
        f"{len(found.changed)} figures changed beyond noise (the interval leaves 1 out, and the ratio is off by more than "
        f"{found.least:.0%}; what is counted: at all), {same} did not, {silent} were measured once and are not judged"
    )
    for name in found.missing:
        console.print(f"missing: {name}")
    for name in found.new:
        console.print(f"new: {name}")
    for problem in found.problems:
        console.print(problem, style="yellow", markup=False)


def _table(changes: list[Change]) -> Table:
    table = Table(box=None, header_style="bold")
    for column in ("", "figure", "before", "after", "times before (95 %)"):
        table.add_column(column, justify="left" if column in ("", "figure") else "right")
    for one in changes:
        values = (f"{number_of(value)} {one.unit}" for value in (one.before, one.after))
        table.add_row(one.whose, one.figure, *values, "-" if one.ratio is None else interval_of(one.ratio))
    return table


def number_of(value: float) -> str:
    """Three digits, or a whole number."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
