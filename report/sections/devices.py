"""Other devices: what the subject needs of one. Forecasts for devices by name belong here, as rows of a table of their own."""

from __future__ import annotations

from ..document import ModelFacts, Report
from ..lookup import memory_of, needs_of, other_precisions, subject_of
from ..numbers import label, megabytes, significant
from ..summary import ran_on
from .section import Section, Table


def devices(report: Report) -> Section:
    """Memory that must be free, and the most that a bandwidth allows."""
    return Section(
        name="devices",
        title="On another device",
        lead=[
            ran_on(report),
            "What it needs does not depend on the device: memory for weights, for the state of one sequence at the full "
            "context, and to work in; Python with its libraries comes on top (a process’s peak is under Memory). The most "
            "tokens/s is arithmetic: a device that reads memory at so many GB/s decodes at most so many times the last "
            "column; most reach a part of it.",
        ],
        shown=[
            Table(
                title="What it needs",
                header=[
                    "bundle",
                    "weights, MB",
                    "state, MB",
                    "working, MB",
                    "in all, MB",
                    "read per token, MB",
                    "tokens/s per GB/s, at most",
                ],
                rows=[_row(report, model) for model in [subject_of(report), *other_precisions(report)]],
            )
        ],
        commands=report.commands.describe[:1],
    )


def _row(report: Report, model: ModelFacts) -> list[str]:
    full, needs = memory_of(report, model.name).points[-1], needs_of(report, model.name)
    sizes = (full.weights, full.state, full.working, needs.memory, needs.bytes_per_token)
    return [label(model.name), *map(megabytes, sizes), significant(needs.tokens_per_s_per_gb_s)]
