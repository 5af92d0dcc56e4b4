"""A datacenter or desktop GPU's settings, from nvidia-smi."""

from __future__ import annotations

import msgspec

from .clocks import Clock
from .command import output_of
from .power.nvidia_smi import first_gpu

_FIELDS = {
    "name": "name",
    "driver": "driver_version",
    "compute_capability": "compute_cap",
    "power_limit_w": "power.limit",
    "persistence": "persistence_mode",
    "mig": "mig.mode.current",
    "sm_mhz": "clocks.sm",
    "sm_max_mhz": "clocks.max.sm",
    "memory_mhz": "clocks.mem",
    "memory_max_mhz": "clocks.max.mem",
    "temperature_c": "temperature.gpu",
}
_THROTTLE_FIELDS = "clocks_event_reasons.active", "clocks_throttle_reasons.active"  # drivers before 535 know the second
_SLOWED = 0x8 | 0x20 | 0x40 | 0x80  # NVML: hardware slowdown, thermal by software and hardware, power brake


class GpuState(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU as nvidia-smi describes it; null where it answers `[N/A]`. `throttle` holds NVML's clock event bits."""

    name: str | None
    driver: str | None
    compute_capability: str | None
    power_limit_w: float | None
    persistence: str | None
    mig: str | None
    sm: Clock
    memory: Clock
    temperature_c: float | None
    throttle: str | None

    @property
    def is_slowed(self) -> bool:
        """Whether heat or the power supply held it back when it was read."""
        return self.throttle is not None and bool(int(self.throttle, 16) & _SLOWED)


def read_gpu() -> tuple[GpuState | None, str | None]:
    """The first GPU's state and None, or None and the reason."""
    answer, failure = _query(",".join(_FIELDS.values()))
    if answer is None:
        return None, failure
    cells = [cell.strip() for cell in answer.splitlines()[0].split(",")]
    if len(cells) != len(_FIELDS):
        return None, f"nvidia-smi answered {len(cells)} fields, expected {len(_FIELDS)}: {answer}"
    said = dict(zip(_FIELDS, (None if cell.startswith("[") else cell for cell in cells), strict=True))
    return GpuState(
        name=said["name"],
        driver=said["driver"],
        compute_capability=said["compute_capability"],
        power_limit_w=_figure(said["power_limit_w"]),
        persistence=said["persistence"],
        mig=said["mig"],
        sm=Clock(current_mhz=_figure(said["sm_mhz"]), min_mhz=None, max_mhz=_figure(said["sm_max_mhz"])),
        memory=Clock(current_mhz=_figure(said["memory_mhz"]), min_mhz=None, max_mhz=_figure(said["memory_max_mhz"])),
        temperature_c=_figure(said["temperature_c"]),
        throttle=_throttle(),
    ), None


def _throttle() -> str | None:
    for field in _THROTTLE_FIELDS:
        answer, _ = _query(field)
        if answer is not None and answer.startswith("0x"):
            return answer
    return None


def _query(fields: str) -> tuple[str | None, str | None]:
    return output_of(["nvidia-smi", f"--id={first_gpu()}", f"--query-gpu={fields}", "--format=csv,noheader,nounits"])


def _figure(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
