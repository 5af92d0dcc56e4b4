"""A Jetson's own power monitors, read from sysfs: INA3221 (JetPack 5 to 7) and Thor's INA238.

Linux gives a channel as `in<N>_label`, `in<N>_input` in mV and `curr<N>_input` in mA (the kernel's
Documentation/hwmon/ina3221.rst), in a folder such as /sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Event

from ..clocks import read_text
from .rails import is_rail, whole
from .sensor import INTERVAL_S, SensorInfo

_FOLDERS = "bus/i2c/drivers/ina3221/*/hwmon/hwmon*", "bus/i2c/drivers/ina238/*/hwmon/hwmon*"
_UNLABELLED = {"ina238": "VIN"}  # one channel, which tegrastats and jtop call VIN


class InaSensor:
    """The sum of some rails, each the product of its two files; `rails` maps labels to the files' folder and number."""

    def __init__(self, rails: Mapping[str, tuple[Path, int]]) -> None:
        chosen, sees = whole(rails)
        places = [rails[label] for label in chosen]
        self._files = [(folder / f"in{number}_input", folder / f"curr{number}_input") for folder, number in places]
        self.info = SensorInfo(
            sensor="/".join(sorted({file.parents[3].name for file, _ in self._files})),
            source=[str(file) for pair in self._files for file in pair],
            rails=chosen,
            sees=sees,
            interval_s=INTERVAL_S,
        )

    def watts(self, stop: Event) -> Iterator[float]:
        """Read all rails every `interval_s`."""
        while not stop.wait(self.info.interval_s):
            yield sum(_number(millivolts) * _number(milliamperes) for millivolts, milliamperes in self._files) * 1e-6


def ina_patterns(sysfs: Path) -> list[str]:
    """Where power monitors are looked for."""
    return [str(sysfs / folder) for folder in _FOLDERS]


def find_rails(sysfs: Path) -> dict[str, tuple[Path, int]]:
    """Every rail that can be read now, by label, with its folder and the number of its channel."""
    rails = {}
    for pattern in _FOLDERS:
        for folder in sorted(sysfs.glob(pattern)):
            for number, label in _channels(folder).items():
                if is_rail(label) and _is_readable(folder, number):
                    rails[label] = folder, number
    return rails


def _channels(folder: Path) -> dict[int, str]:
    """Labels by channel number."""
    files = sorted(folder.glob("in[0-9]_label"))
    labels = {int(file.name[len("in")]): label for file in files if (label := read_text(file)) is not None}
    unlabelled = _UNLABELLED.get(folder.parents[2].name)
    return labels or ({1: unlabelled} if unlabelled else {})


def _is_readable(folder: Path, number: int) -> bool:
    """A channel that is switched off has its files, but reading them fails."""
    try:
        _number(folder / f"in{number}_input"), _number(folder / f"curr{number}_input")
    except (OSError, ValueError):
        return False
    return True


def _number(file: Path) -> int:
    return int(file.read_text())
