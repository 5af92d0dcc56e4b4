"""Memory by length."""

from __future__ import annotations

from ..document import MemoryFacts, Report
from ..lookup import memory_of
from ..numbers import label, megabytes
from ..pictures.memory import describe_memory, describe_totals, draw_memory, draw_totals
from .section import Picture, Section, Table


def memory(report: Report) -> Section:
    """Of one sequence: the subject part by part, all bundles as a whole."""
    facts = memory_of(report, report.subject)
    pictures = [
        Picture(
            "memory", f"Memory of {label(report.subject)}, part by part", describe_memory(facts), lambda: draw_memory(facts)
        )
    ]
    if len(report.memory) > 1:
        pictures.append(
            Picture("memory-all", "Memory of all bundles", describe_totals(report.memory), lambda: draw_totals(report.memory))
        )
    lead = [
        "Of one sequence, in a session with room for just so many tokens. Weights are there once for all sequences. State, "
        "that is caches and the hidden states that stages hand to one another, comes from the manifest by arithmetic."
    ]
    if any(point.working is not None for point in facts.points):
        lead.append(
            "Working memory is what a fresh process took beside those, from when it was loaded until it had read the tokens, "
            f"{report.measured.prompt_tokens:,} in a call at the most; it was measured at three lengths."
        )
    return Section(
        name="memory",
        title="Memory",
        lead=lead,
        pictures=pictures,
        shown=[_processes(report)],
        tables=[_table(one) for one in report.memory],
        missing=None if facts.missing is None else f"Working memory: {facts.missing}.",
        commands=[report.commands.report],
    )


def _processes(report: Report) -> Table:
    rows = []
    for one in report.memory:
        full = one.points[-1]
        measured = next(model.memory for model in report.measured.models if model.name == one.name)
        peak = None if measured is None else measured.peak_bytes
        rows.append(
            [
                label(one.name),
                f"{full.tokens:,}",
                *(megabytes(size) for size in (full.weights, full.state, full.working, peak)),
            ]
        )
    tokens = report.measured.prompt_tokens + report.measured.new_tokens
    return Table(
        title="At the full context, MB",
        header=["bundle", "context", "weights", "state", "working", f"peak of a process at {tokens:,} tokens"],
        rows=rows,
    )


def _table(facts: MemoryFacts) -> Table:
    return Table(
        title=f"{label(facts.name)}: MB by tokens",
        header=["tokens", "weights", "caches", "hidden states", "all of these", "working"],
        rows=[
            [
                f"{point.tokens:,}",
                *(megabytes(size) for size in (point.weights, point.caches, point.rows, point.held, point.working)),
            ]
            for point in facts.points
        ],
    )
