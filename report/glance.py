"""The few figures that stand in front of all others."""

from __future__ import annotations

from typing import NamedTuple

from .document import Report
from .lookup import memory_of, other_models, ratio_of, result_of
from .numbers import interval, label, megabytes, percent, significant, times


class Tile(NamedTuple):
    """A figure, what it is, and a word on it."""

    label: str
    value: str
    note: str


def figures_at_a_glance(report: Report) -> list[Tile]:
    """Of the subject: its rate, the worst steps, how it stands beside the first other model, memory, bandwidth."""
    mine = result_of(report, report.subject)
    itl, full = mine.latency.itl_ms, memory_of(report, report.subject).points[-1]
    found = [
        Tile(
            "decoding", f"{significant(mine.latency.decode_tokens_per_s)} tokens/s", f"{mine.precision}, {mine.threads} threads"
        )
    ]
    for other in other_models(report)[:1]:
        ratio = ratio_of(report, report.subject, other.name)
        value, note = "no difference shown", interval(ratio).strip(" ()")
        if ratio.differs:
            value = f"{times(ratio.ratio)} times as fast"
        found.append(Tile(f"beside {label(other.name)}", value, note))
    tail = f"p99 {significant(itl.p99)} ms" if itl.p99 is not None else "too few steps for p99"
    found.append(Tile("from token to token", f"{significant(itl.p50)} ms", f"median; {tail}"))
    state = f"and {megabytes(full.state)} MB of state at {full.tokens:,} tokens"
    found.append(Tile("weights", f"{megabytes(full.weights)} MB", state))
    if mine.roofline is not None:
        found.append(
            Tile(
                "memory bandwidth reached",
                percent(mine.roofline.share),
                f"of {significant(mine.roofline.memory_bandwidth_gb_s)} GB/s",
            )
        )
    return found
