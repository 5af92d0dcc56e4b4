"""The whole page, in order."""

from __future__ import annotations

from ..document import Report
from .commands import commands
from .comparison import comparison
from .devices import devices
from .environment import environment
from .hierarchy import hierarchy
from .latency import latency
from .memory import memory
from .precision import precision
from .roofline import roofline
from .section import Section
from .stages import stages
from .timeline import timeline

_ORDER = (comparison, hierarchy, timeline, latency, stages, precision, memory, roofline, devices, environment, commands)


def sections_of(report: Report) -> list[Section]:
    """Every section; those without figures say why."""
    return [make(report) for make in _ORDER]
