"""What a benchmark says of power."""

from __future__ import annotations

import msgspec

from .energy import PowerWindow, why_too_thin
from .sensor import SensorInfo

MIN_IDLE_S = 3.0
MIN_IDLE_SAMPLES = 30


class PowerSetup(msgspec.Struct, frozen=True, kw_only=True):
    """The sensor, and the baseline: models loaded, nothing running, measured once before the rounds."""

    sensor: SensorInfo
    idle: PowerWindow


class PowerResult(msgspec.Struct, frozen=True, kw_only=True):
    """One model decoding, prefill left out. W, J, and J per token; net is what idling for as long would not have cost.

    Figures are null where the samples are too few, and `missing` says why; the raw samples are in `window` all the same.
    """

    window: PowerWindow
    tokens: int
    mean_w: float | None
    peak_w: float | None
    energy_j: float | None
    energy_net_j: float | None
    j_per_token: float | None
    j_per_token_net: float | None
    tokens_per_j: float | None
    missing: str | None


def power_result(window: PowerWindow, tokens: int, idle: PowerWindow) -> PowerResult:
    """The figures of a decode window against the idle baseline."""
    thin, thin_idle = why_too_thin(window), why_too_thin(idle, MIN_IDLE_S, MIN_IDLE_SAMPLES)
    gross = None if thin else window.energy_j
    net = None if gross is None or thin_idle else gross - idle.mean_w * window.seconds
    return PowerResult(
        window=window,
        tokens=tokens,
        mean_w=None if thin else window.mean_w,
        peak_w=None if thin else window.peak_w,
        energy_j=gross,
        energy_net_j=net,
        j_per_token=None if gross is None else gross / tokens,
        j_per_token_net=None if net is None else net / tokens,
        tokens_per_j=None if not gross or gross < 0 else tokens / gross,
        missing=thin or (f"net of idle: {thin_idle}" if thin_idle else None),
    )
