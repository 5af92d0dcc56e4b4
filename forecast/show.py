"""Forecasts as tables for people: one of models on devices, one of what a search found."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from .devices import AnyDevice, Device
from .forecast import Forecast
from .memory import Memory

_DEVICES = (
    "device",
    "tokens/s",
    "from, to",
    "step, ms",
    "worst step",
    "bound",
    "1st token",
    "MB",
    "fits",
    "J/token",
)
_FOUND = "hierarchy", "layers", "equivalents", "parameters", "tokens/s", "step, ms", "worst step", "bound", "MB"
_SHORT = {"memory bandwidth": "memory", "cache bandwidth": "cache", "arithmetic": "arithmetic", "launch overhead": "launch"}
_WORDS = "device", "from, to", "bound", "hierarchy", "fits"


def show_forecasts(rows: Sequence[Forecast], devices: Sequence[AnyDevice], console: Console) -> None:
    """Print a row for each device, and what they rest on."""
    first, work = rows[0], rows[0].work
    console.print(
        f"FORECAST, not measured: {first.model}, {first.precision}, {first.parameters:,} parameters, "
        f"{first.layer_equivalents:.3g} layer-equivalents; {_sequences(work.batch)} of room for {work.context:,} tokens, "
        f"decoding behind a prompt of {work.prompt_tokens:,}"
    )
    table = _table(_DEVICES)
    for row in rows:
        table.add_row(
            row.device,
            _figure(row.tokens_per_s),
            "measured rates" if row.device_is_measured else f"{_figure(row.at_least)} to {_figure(row.at_most)}",
            _figure(row.step_ms),
            _figure(row.worst_step_ms),
            _bounds(row),
            _figure(row.first_token_ms),
            _figure(row.memory.total / 1e6),
            _fits(row.memory),
            _figure(row.joules_per_token),
        )
    console.print(table)
    memory = first.memory
    console.print(
        f"memory of {first.device}: weights {_figure(memory.weights / 1e6)} MB, state {_figure(memory.state / 1e6)}, working "
        f"{_figure(memory.working / 1e6)}, the program {_figure(memory.program / 1e6)}"
    )
    console.print(
        "bound: what takes most of the mean step, and of the worst where that differs; 1st token in ms; J/token at most"
    )
    if any(isinstance(device, Device) for device in devices):
        console.print("from, to: by the worst and the best share of the makers' figures that is assumed (docs/forecast.md)")


def show_search(rows: Sequence[Forecast], wanted: str, most: int, console: Console) -> None:
    """Print the fastest of what was found."""
    first, work = rows[0], rows[0].work
    console.print(
        f"FORECAST, not measured: {wanted}, on {first.device} in {first.precision}; {_sequences(work.batch)} of room for "
        f"{work.context:,} tokens, behind a prompt of {work.prompt_tokens:,}; the fastest {min(most, len(rows))} of {len(rows)}"
    )
    table = _table(_FOUND)
    for row in rows[:most]:
        table.add_row(
            row.hierarchy,
            str(sum(int(level.split("@")[0]) for level in row.hierarchy.split())),
            f"{row.layer_equivalents:.2f}",
            f"{row.parameters:,}",
            _figure(row.tokens_per_s),
            _figure(row.step_ms),
            _figure(row.worst_step_ms),
            _bounds(row),
            _figure(row.memory.total / 1e6),
        )
    console.print(table)


def _table(columns: Sequence[str]) -> Table:
    table = Table(box=None, header_style="bold")
    for column in columns:
        table.add_column(column, justify="left" if column in _WORDS else "right", no_wrap=True)
    return table


def _sequences(batch: int) -> str:
    return "one sequence" if batch == 1 else f"{batch} sequences in step"


def _bounds(row: Forecast) -> str:
    """Of the mean step, and of the worst if another."""
    bound, worst = (_SHORT.get(each, each) for each in (row.bound, row.worst_bound))
    return bound if bound == worst else f"{bound}, {worst}"


def _fits(memory: Memory) -> str:
    return "unknown" if memory.fits is None else "yes" if memory.fits else "NO"


def _figure(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
