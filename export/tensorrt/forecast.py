"""The memory that building an engine takes, before it is built."""

from __future__ import annotations

import logging

from ..graphs.gpu import LoweredStage, weight_files
from .memory import available_bytes

BASE_BYTES, PER_WEIGHT_BYTE = 190 << 20, 3
"""What TensorRT-RTX 1.7.1 took on 2 CPUs without a GPU, as the rise of the peak of resident memory, in MiB:

    weights    607 fp32    99 fp32    87 w4    27 w8    16 w4    1 to 7 (shipped Hourglass, fp32 and int8)
    measured   2006        483        521      269      236      65 to 139
    forecast   2010        486        449      271      236      193 to 210

A build on a GPU times kernels too, and a Jetson's GPU shares the memory: what that adds was not measured.
"""

_log = logging.getLogger("foveal.tensorrt")


def forecast_bytes(weight_bytes: int) -> int:
    """Memory, beyond what the process has, that building an engine of so many bytes of weights is forecast to take."""
    return BASE_BYTES + round(PER_WEIGHT_BYTE * weight_bytes)


def forecast_line(largest_weights: int) -> str:
    """What a build of engines, the largest of which has so many bytes of weights, is forecast to take, and what there is."""
    available = available_bytes()
    there = "" if available is None else f"; {available / 1e9:.1f} GB are available"
    return f"memory forecast: {forecast_bytes(largest_weights) / 1e9:.1f} GB{there}"


def warn_if_short(stage: LoweredStage) -> None:
    """Log a warning if the machine has less memory than a build is forecast to take; Linux may kill the build then."""
    weights = sum(path.stat().st_size for path in weight_files(stage))
    needed, available = forecast_bytes(weights), available_bytes()
    if available is not None and available < needed:
        _log.warning(
            "building stage %s is forecast to take %.1f GB of memory, and %.1f GB are available; if it is killed, close other "
            "programs, add swap, or build from narrower weights",
            stage.spec.name,
            needed / 1e9,
            available / 1e9,
        )
