"""The result of `foveal bench speculation` as a table."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from .measure import DraftsResult, SpeculationResult


def show(result: SpeculationResult, console: Console) -> None:
    """Print it."""
    table = Table(
        title=f"{result.bundle}: {result.hierarchy}, {result.precision}, {result.threads} threads, "
        f"{result.rounds} rounds of at most {result.new_tokens} tokens"
    )
    for heading in ("prompts", "temperature", "drafts"):
        table.add_column(heading)
    for heading in ("tokens/s without", "with", "gain", "in rounds", "accepted", "tokens per call", "texts that differ"):
        table.add_column(heading, justify="right")
    for one in result.drafts:
        table.add_row(*_cells(one))
    console.print(table)


def _cells(one: DraftsResult) -> list[str]:
    return [
        one.kind,
        f"{one.temperature:g}",
        one.draft,
        f"{one.plain_tokens_per_s:,.0f}",
        f"{one.drafted_tokens_per_s:,.0f}",
        f"{one.gain:.2f}",
        f"{min(one.gain_by_round):.2f} to {max(one.gain_by_round):.2f}",
        "-" if one.acceptance is None else f"{one.acceptance:.0%}",
        f"{one.tokens_per_call:.2f}",
        f"{one.differing} of {one.texts * len(one.gain_by_round)}",
    ]
