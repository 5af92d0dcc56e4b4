"""Choose this machine's power sensor."""

from __future__ import annotations

import shutil
from pathlib import Path

from ...errors import ConfigError
from ..command import output_of
from .ina import InaSensor, find_rails, ina_patterns
from .lines import first_line
from .nvidia_smi import FIELDS, NvidiaSmiSensor, as_watts, power_query
from .rapl import RaplSensor, find_zones, rapl_pattern
from .sensor import PowerSensor
from .tegrastats import TegrastatsSensor, milliwatts, tegrastats_command

_FIRST_LINE_S = 5.0


def find_sensor(sysfs: Path = Path("/sys"), target: str = "cpu") -> PowerSensor:
    """The finest sensor there is: a Jetson's power monitors, else tegrastats, else that of what runs the target's engines: RAPL
    of processors, nvidia-smi of GPUs; or the other.

    Raises:
        ConfigError: none; says where it was looked for.
    """
    looked: list[str] = []
    of_board = _ina(sysfs, looked) or _tegrastats(looked)
    if target == "cpu":
        sensor = of_board or _rapl(sysfs, looked) or _nvidia_smi(looked)
    else:
        sensor = of_board or _nvidia_smi(looked) or _rapl(sysfs, looked)
    if sensor is None:
        raise ConfigError(
            f"no power sensor was found; looked at {'; '.join(looked)}. On a Jetson run as a user who may read these files, or "
            "mount /sys and tegrastats into the container; elsewhere run as root, who alone may read RAPL, or install "
            "nvidia-smi with the driver; or leave out --power"
        )
    return sensor


def _rapl(sysfs: Path, looked: list[str]) -> PowerSensor | None:
    zones = find_zones(sysfs)
    if not zones:
        looked.append(f"{rapl_pattern(sysfs)} (no readable zone)")
    return RaplSensor(zones) if zones else None


def _ina(sysfs: Path, looked: list[str]) -> PowerSensor | None:
    rails = find_rails(sysfs)
    looked += [f"{pattern} (no readable rail)" for pattern in ina_patterns(sysfs)]
    return InaSensor(rails) if rails else None


def _tegrastats(looked: list[str]) -> PowerSensor | None:
    executable = shutil.which("tegrastats")
    if executable is None:
        looked.append("tegrastats (not on PATH)")
        return None
    line = first_line(tegrastats_command(executable), _FIRST_LINE_S)
    if milliwatts(line or ""):
        return TegrastatsSensor(executable, line or "")
    looked.append(f"{executable} (no rail in its first line: {line})")
    return None


def _nvidia_smi(looked: list[str]) -> PowerSensor | None:
    executable = shutil.which("nvidia-smi")
    if executable is None:
        looked.append("nvidia-smi (not on PATH)")
        return None
    for field in FIELDS:
        answer, failure = output_of(power_query(executable, field))
        if as_watts(answer or "") is not None:
            return NvidiaSmiSensor(executable, field)
        looked.append(f"{executable} ({field}: {failure or answer})")
    return None
