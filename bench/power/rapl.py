"""Energy that processors count themselves: RAPL, as Linux shows it in powercap (the kernel's Documentation/power/powercap).

A zone is a folder such as /sys/class/powercap/intel-rapl:0 (AMD's have the same names): `name`, `energy_uj`, which counts
microjoules and begins again behind `max_energy_range_uj`. Since Linux 5.10 only root may read the counter.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event

from ..clocks import read_text
from .sensor import INTERVAL_S, SensorInfo

_ZONES = "class/powercap/intel-rapl:*"
_PLATFORM = "psys"


class RaplSensor:
    """The sum of some zones: what each counted since the reading before, by the time since then."""

    def __init__(self, zones: Sequence[Path]) -> None:
        self._zones = list(zones)
        names = [read_text(zone / "name") or zone.name for zone in zones]
        self.info = SensorInfo(
            sensor="RAPL",
            source=[str(zone / "energy_uj") for zone in zones],
            rails=names,
            sees="the whole platform" if names == [_PLATFORM] else "the processors, and memory where it is among the rails",
            interval_s=INTERVAL_S,
        )
        self._ranges = [_number(zone / "max_energy_range_uj") for zone in zones]

    def watts(self, stop: Event) -> Iterator[float]:
        """The mean over each `interval_s`."""
        before, began = self._counted(), time.perf_counter()
        while not stop.wait(self.info.interval_s):
            now, ended = self._counted(), time.perf_counter()
            each = zip(now, before, self._ranges, strict=True)
            microjoules = sum(count - last + (most if count < last else 0) for count, last, most in each)
            yield microjoules * 1e-6 / (ended - began)
            before, began = now, ended

    def _counted(self) -> list[int]:
        return [_number(zone / "energy_uj") for zone in self._zones]


def rapl_pattern(sysfs: Path) -> str:
    """Where zones are looked for."""
    return str(sysfs / _ZONES)


def find_zones(sysfs: Path) -> list[Path]:
    """Zones that can be read and count nothing twice: the platform's if there is one, else packages and memory.

    Cores and what else a package has are part of it.
    """
    zones = {zone: read_text(zone / "name") or "" for zone in sorted(sysfs.glob(_ZONES)) if _is_readable(zone)}
    platform = [zone for zone, name in zones.items() if name == _PLATFORM]
    return platform[:1] or [zone for zone, name in zones.items() if name.startswith("package") or name == "dram"]


def _is_readable(zone: Path) -> bool:
    try:
        _number(zone / "energy_uj"), _number(zone / "max_energy_range_uj")
    except (OSError, ValueError):
        return False
    return True


def _number(file: Path) -> int:
    return int(file.read_text())
