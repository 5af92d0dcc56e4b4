"""NVIDIA's tegrastats, where the power monitors' files cannot be read, as in many containers.

A line says `VDD_IN 5234mW/5100mW`, current and averaged over tegrastats' own life, or with a third figure, the peak
(JetPack 7). The current one is taken: averages cannot be integrated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from threading import Event

from .lines import lines
from .rails import is_rail, whole
from .sensor import INTERVAL_S, SensorInfo

_RAIL = re.compile(r"\b([A-Z][A-Z0-9_]*) (-?\d+)mW\b")


def milliwatts(line: str) -> dict[str, int]:
    """Current mW by rail of one line; a rail may read a little below 0 when it is idle."""
    return {label: int(power) for label, power in _RAIL.findall(line) if is_rail(label)}


def tegrastats_command(executable: str) -> list[str]:
    """Ask for a line every `INTERVAL_S`."""
    return [executable, "--interval", str(round(INTERVAL_S * 1000))]


class TegrastatsSensor:
    """The rails that `whole` picks of the first line; `executable` is tegrastats' path."""

    def __init__(self, executable: str, first_line: str) -> None:
        self._command = tegrastats_command(executable)
        rails, sees = whole(milliwatts(first_line))
        self.info = SensorInfo(
            sensor="tegrastats", source=[" ".join(self._command)], rails=rails, sees=sees, interval_s=INTERVAL_S
        )

    def watts(self, stop: Event) -> Iterator[float]:
        """One reading per line that has all the rails."""
        for line in lines(self._command, stop):
            power = milliwatts(line)
            if all(rail in power for rail in self.info.rails):
                yield sum(power[rail] for rail in self.info.rails) * 1e-3
