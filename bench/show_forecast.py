"""A forecast of batches as a table for people."""

from __future__ import annotations

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
    "p99",
    "in use",
    "queued",
)
_MEASURED = "measured: ITL p50", "p99", "tokens/s", "forecast off by", "p99", "tokens/s"


def show_forecast(result: BatchForecast, console: Console) -> None:
    """Print a row per case; where the batch was run, what it took beside it, and by how much the forecast is off."""
    times, has_measured = result.times, any(row.measured is not None for row in result.rows)
    console.print(
        f"{times.bundle}: {result.prompt_tokens} prompt + {result.new_tokens} new tokens, {result.steps} steps; from times of "
        f"calls for 1 to {times.largest} sequences behind {times.prompt_tokens} to {times.prompt_tokens + times.new_tokens} "
        f"tokens ({times.environment.cpu}, threads: {times.threads}, {times.environment.created_utc[:10]})"
    )
    table = Table(box=None, header_style="bold")
    for column in _COLUMNS + (_MEASURED if has_measured else ()):
        table.add_column(column, justify="left" if column in ("policy", "arrivals") else "right")
    for row in result.rows:
        beside = _measured_cells(row) if has_measured else []
        table.add_row(_slots(row, times.largest), row.policy, _arrivals(row.rate), *_cells(row.forecast), *beside)
    console.print(table)
    if any(row.largest_call > times.largest for row in result.rows):
        console.print(
            f"* calls for more than {times.largest} sequences: their times go on in a straight line from those measured"
        )


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
        *map(_cell, (ttft.p50, ttft.max if ttft.p99 is None else ttft.p99)),
        f"{figures.in_use:.0%}",
        str(figures.queued),
    ]


def _measured_cells(row: ForecastRow) -> list[str]:
    if row.measured is None:
        return [""] * len(_MEASURED)
    itl, forecast = row.measured.itl_ms, row.forecast.itl_ms
    return [
        _cell(itl.p50),
        _cell(itl.p99),
        f"{row.measured.tokens_per_s:,.0f}",
        _off(forecast.p50, itl.p50),
        _off(forecast.p99, itl.p99),
        _off(row.forecast.tokens_per_s, row.measured.tokens_per_s),
    ]


def _off(forecast: float | None, measured: float | None) -> str:
    return "-" if forecast is None or measured is None else f"{forecast / measured - 1:+.0%}"


def _ratio(itl: Summary) -> str:
    return "-" if itl.p50 is None or itl.p99 is None else f"{itl.p99 / itl.p50:.2f}"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if value < 100 else f"{value:,.0f}"
