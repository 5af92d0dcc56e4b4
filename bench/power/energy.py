"""From raw samples to energy: integrated over time, refused where the samples are too few."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np

from .sampler import PowerSamples

MIN_WINDOW_S = 10.0
MIN_SAMPLES = 100  # 10 Hz over the shortest window
MAX_GAP_S = 1.0  # what happened between two samples further apart is anybody's guess


class PowerWindow(msgspec.Struct, frozen=True, kw_only=True):
    """Power over one stretch of time, of monotonic nanoseconds; `samples` also holds one reading on each side of it.

    Attributes:
        seconds: its length.
        count: readings inside it.
        longest_gap_s: the longest time without one.
        mean_w, peak_w, energy_j: of the readings, joined by straight lines.
    """

    began_ns: int
    ended_ns: int
    seconds: float
    count: int
    longest_gap_s: float
    mean_w: float
    peak_w: float
    energy_j: float
    samples: PowerSamples


def energy_j(samples: PowerSamples, began_ns: int, ended_ns: int) -> float:
    """Joules between two times: the trapezoidal rule over the readings, interpolated at both ends.

    Before the first and after the last reading, power is taken to be theirs.
    """
    seconds = (np.array(samples.time_ns, np.int64) - began_ns) * 1e-9
    end = (ended_ns - began_ns) * 1e-9
    inside = (seconds > 0) & (seconds < end)
    at = np.concatenate(([0.0], seconds[inside], [end]))
    return float(np.trapezoid(np.interp(at, seconds, samples.watts), at))


def summarise_window(samples: PowerSamples, began_ns: int, ended_ns: int) -> PowerWindow:
    """The figures of a window that is not empty, of at least one reading."""
    seconds = (ended_ns - began_ns) * 1e-9
    inside = [(at, watts) for at, watts in zip(samples.time_ns, samples.watts, strict=True) if began_ns <= at <= ended_ns]
    marks = [began_ns, *(at for at, _ in inside), ended_ns]
    energy = energy_j(samples, began_ns, ended_ns)
    return PowerWindow(
        began_ns=began_ns,
        ended_ns=ended_ns,
        seconds=seconds,
        count=len(inside),
        longest_gap_s=max(later - earlier for earlier, later in pairwise(marks)) * 1e-9,
        mean_w=energy / seconds,
        peak_w=max((watts for _, watts in inside), default=energy / seconds),
        energy_j=energy,
        samples=samples,
    )


def why_too_thin(window: PowerWindow, min_seconds: float = MIN_WINDOW_S, min_samples: int = MIN_SAMPLES) -> str | None:
    """Why a window carries no figure, or None."""
    got = f"{window.count} power samples in {window.seconds:.1f} s"
    if window.seconds < min_seconds or window.count < min_samples:
        return f"{got} are too few for a figure, at least {min_samples} in {min_seconds:.0f} s are needed"
    if window.longest_gap_s > MAX_GAP_S:
        return f"{got} leave a gap of {window.longest_gap_s:.1f} s, at most {MAX_GAP_S:.0f} s may pass between two"
    return None
