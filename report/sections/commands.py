"""What gives the figures again."""

from __future__ import annotations

from ..document import Report
from .section import Section


def commands(report: Report) -> Section:
    """All of the report's commands."""
    given = report.commands
    every = [given.report, given.measurement, *given.losses, *given.forecasts, *given.describe]
    return Section(
        name="commands",
        title="The same figures again",
        lead=[
            "The first command makes this report. The others give its parts: timings (add --save F to keep every sample, and "
            "--measured F to make a report of them), losses, forecasts, and what bundles are. Times differ from run to run "
            "and from machine to machine; all else is equal."
        ],
        commands=list(dict.fromkeys(filter(None, every))),
    )
