"""A datacenter or desktop GPU's power, from nvidia-smi.

`power.draw` is an average over a second on Ampere (but GA100) and later (NVML, nvmlDeviceGetPowerUsage);
`power.draw.instant` is not, so it is asked for first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from threading import Event

from .lines import lines
from .sensor import INTERVAL_S, SensorInfo

FIELDS = {
    "power.draw.instant": "the whole graphics board, whoever uses it",
    "power.draw": "the whole graphics board, whoever uses it; on most GPUs averaged over a second",
}


def first_gpu() -> str:
    """What nvidia-smi is to look at: the first of CUDA_VISIBLE_DEVICES, else the first GPU."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"


def power_query(executable: str, field: str) -> list[str]:
    """Ask for one figure, in W."""
    return [executable, f"--id={first_gpu()}", f"--query-gpu={field}", "--format=csv,noheader,nounits"]


class NvidiaSmiSensor:
    """One field of one GPU, asked for again and again by one process."""

    def __init__(self, executable: str, field: str) -> None:
        self._command = [*power_query(executable, field), "-lms", str(round(INTERVAL_S * 1000))]
        self.info = SensorInfo(
            sensor="nvidia-smi",
            source=[" ".join(self._command)],
            rails=[f"GPU {first_gpu()} {field}"],
            sees=FIELDS[field],
            interval_s=INTERVAL_S,
        )

    def watts(self, stop: Event) -> Iterator[float]:
        """One reading per line that is a number."""
        for line in lines(self._command, stop):
            power = as_watts(line)
            if power is not None:
                yield power


def as_watts(text: str) -> float | None:
    """A figure of nvidia-smi; None for `[N/A]`, `[Not Supported]` and error messages."""
    try:
        return float(text.removesuffix("W"))
    except ValueError:
        return None
