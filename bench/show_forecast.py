"""A forecast of batches as a table for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from .batch_forecast import BatchForecast, ForecastRow, ServiceFigures
from .statistics import Summary

_COLUMNS = (
    "slots",
    "policy",
    "arrivals",
    "ITL p50, ms",
    "p90",
    "p99",
    "p99/p50",
    "tokens/s",
    "TTFT p50, ms",
    "p90",
    "p99",
    "in use",
    "queued",
)
_BESIDE = "slots", "policy", "ITL p50, ms", "measured", "off", "p99", "measured", "off", "tokens/s", "measured", "off"
_NAMES = "policy", "arrivals"

_COMPARED: tuple[Callable[[ServiceFigures], float | None], ...] = (
    lambda figures: figures.itl_ms.p50,
    lambda figures: figures.itl_ms.p99,
    lambda figures: figures.tokens_per_s,
)


def show_forecast(result: BatchForecast, console: Console) -> None:
    """Print a row per case; then, where the batch was run, what it took and by how much the forecast is off."""
    times = result.times
    console.print(
        f"{times.bundle}: {result.prompt_tokens} prompt + {result.new_tokens} new tokens, {result.steps} steps; from times of "
        f"calls for 1 to {times.largest} sequences behind {times.prompt_tokens} to {times.prompt_tokens + times.new_tokens} "
        f"tokens ({times.environment.cpu}, threads: {times.threads}, {times.environment.created_utc[:10]})"
    )
    if result.expected:
        rates = ", ".join(f"{name} once in {tokens:g} tokens" for name, tokens in result.expected.items())
        console.print(f"the data decides when stages fire; expected, and drawn by chance here: {rates}", markup=False)
    table = _table(_COLUMNS)
    for row in result.rows:
        table.add_row(_slots(row, times.largest), row.policy, _arrivals(row.rate), *_cells(row.forecast))
    console.print(table)
    if any(row.largest_call > times.largest for row in result.rows):
        console.print(
            f"* calls for more than {times.largest} sequences: their times go on in a straight line from those measured"
        )
    measured = [(row, row.measured) for row in result.rows if row.measured is not None]
    if measured:
        beside = _table(_BESIDE, "Beside the batch itself, in a closed loop")
        for row, figures in measured:
            beside.add_row(str(row.slots), row.policy, *_beside(row.forecast, figures))
        console.print(beside)


def _table(columns: Sequence[str], title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    for column in columns:
        table.add_column(column, justify="left" if column in _NAMES else "right")
    return table


def _slots(row: ForecastRow, largest: int) -> str:
    return f"{row.slots}{'*' if row.largest_call > largest else ''}"


def _arrivals(rate: float | None) -> str:
    return "closed loop" if rate is None else f"{rate:g}/s"


def _cells(figures: ServiceFigures) -> list[str]:
    itl, ttft = figures.itl_ms, figures.ttft_ms
    return [
        *map(_cell, (itl.p50, itl.p90, itl.p99)),
        _ratio(itl),
        f"{figures.tokens_per_s:,.0f}",
        *map(_cell, (ttft.p50, ttft.p90, ttft.p99)),
        f"{figures.in_use:.0%}",
        str(figures.queued),
    ]


def _beside(forecast: ServiceFigures, measured: ServiceFigures) -> list[str]:
    cells = []
    for figure in _COMPARED:
        said, took = figure(forecast), figure(measured)
        cells += [_cell(said), _cell(took), "-" if said is None or took is None else f"{said / took - 1:+.0%}"]
    return cells


def _ratio(itl: Summary) -> str:
    return "-" if itl.p50 is None or itl.p99 is None else f"{itl.p99 / itl.p50:.2f}"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if value < 100 else f"{value:,.0f}"
