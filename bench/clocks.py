"""Clocks and temperatures, from sysfs.

CPU: cpufreq. GPU: a devfreq device, `17000000.gpu` or `17000000.ga10b` on Orin, `gpu-gpc-0` on Thor. Memory (EMC): the devfreq
device `bwmgr` on Thor, a debugfs folder that only root may read elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

_GPU = re.compile(r".*\.(gpu|ga10b|gv11b|gp10b|gm20b)|gpu-.*")
EMC = "kernel/debug/bpmp/debug/clk/emc"
_OFFLINE_C = -200.0  # a Tegra sensor whose part is powered off reads -256


class Clock(msgspec.Struct, frozen=True, kw_only=True):
    """MHz, and the governor that moves the current one between the bounds; null where a file is missing."""

    current_mhz: float | None
    min_mhz: float | None
    max_mhz: float | None
    governor: str | None = None

    @property
    def is_locked(self) -> bool:
        """Whether the bounds leave no choice, as `jetson_clocks` sets them."""
        return self.min_mhz is not None and self.min_mhz == self.max_mhz


def read_clocks(sysfs: Path) -> dict[str, Clock]:
    """CPU clusters (`cpu policy0`), GPUs (`gpu 17000000.gpu`) and memory (`emc`) that this system shows."""
    return dict([*_cpus(sysfs), *_devices(sysfs), *_emc(sysfs)])


def read_temperatures(sysfs: Path) -> dict[str, float]:
    """Degrees Celsius by thermal zone, those that are powered."""
    temperatures = {}
    for zone in sorted(sysfs.glob("class/thermal/thermal_zone*")):
        name, millidegrees = read_text(zone / "type"), _number(zone / "temp")
        if name is not None and millidegrees is not None and millidegrees * 1e-3 > _OFFLINE_C:
            temperatures[name] = millidegrees / 1e3
    return temperatures


def read_text(file: Path) -> str | None:
    """A file's text, stripped; None where it is missing, locked, or its part powered off."""
    try:
        return file.read_text().strip().rstrip("\0")
    except (OSError, UnicodeDecodeError):
        return None


def _cpus(sysfs: Path) -> Iterator[tuple[str, Clock]]:
    for policy in sorted(sysfs.glob("devices/system/cpu/cpufreq/policy*")):
        files = ("scaling_cur_freq", "scaling_min_freq", "scaling_max_freq")
        yield f"cpu {policy.name}", _clock(policy, files, 1e3, "scaling_governor")


def _devices(sysfs: Path) -> Iterator[tuple[str, Clock]]:
    for device in sorted(sysfs.glob("class/devfreq/*")):
        if _GPU.fullmatch(device.name):
            yield f"gpu {device.name}", _clock(device, ("cur_freq", "min_freq", "max_freq"), 1e6, "governor")
        elif device.name == "bwmgr":
            yield "emc", _clock(device, ("cur_freq", "min_freq", "max_freq"), 1e6, "governor")


def _emc(sysfs: Path) -> Iterator[tuple[str, Clock]]:
    clock = _clock(sysfs / EMC, ("rate", "min_rate", "max_rate"), 1e6)
    if clock.current_mhz is not None:
        yield "emc", clock


def _clock(folder: Path, files: tuple[str, str, str], per_mhz: float, governor: str | None = None) -> Clock:
    current, least, most = (_number(folder / file) for file in files)
    return Clock(
        current_mhz=None if current is None else current / per_mhz,
        min_mhz=None if least is None else least / per_mhz,
        max_mhz=None if most is None else most / per_mhz,
        governor=None if governor is None else read_text(folder / governor),
    )


def _number(file: Path) -> int | None:
    text = read_text(file)
    try:
        return None if text is None else int(text)
    except ValueError:
        return None
