"""A sweep as a table for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from .show import interval_of
from .sweep_result import SweepPoint, SweepResult


def show_sweep(result: SweepResult, console: Console) -> None:
    """Print a row for each point, then what makes the figures doubtful."""
    environment = result.environment
    console.print(
        f"{environment.cpu}, {environment.cpus_usable} CPUs, {environment.created_utc[:10]}: {result.new_tokens} new tokens, "
        f"{result.rounds} rounds that took turns; memory reads {environment.memory_bandwidth_gb_s or float('nan'):.1f} GB/s"
    )
    table = Table(box=None, header_style="bold")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == COLUMNS[0] else "right")
    for point in result.points:
        table.add_row(*cells(point))
    console.print(table)
    for problem in result.problems:
        console.print(problem, style="yellow", markup=False)


COLUMNS = ("", "threads", "batch", "context", "tokens/s", "step p50, ms", "p90", "times the first row (95 %)")


def cells(point: SweepPoint) -> tuple[str, ...]:
    """Of a point, by column."""
    times = (_cell(point.itl_ms.p50), _cell(point.itl_ms.p90))
    sizes = map(str, (point.threads, point.batch, point.context))
    return (point.bundle, *sizes, f"{point.tokens_per_s:,.0f}", *times, interval_of(point.ratio))


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
