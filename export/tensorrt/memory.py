"""The memory of this process and machine, as Linux counts it."""

from __future__ import annotations

import re
from pathlib import Path

_RESET_PEAK = "5"  # proc(5), clear_refs: set the peak to what is resident now


def reset_peak() -> None:
    """Let `peak_bytes` count from here; where that can't be had, it counts from the start of the process."""
    try:
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return


def peak_bytes() -> int:
    """The most memory of this process that was resident at once; 0 where that is not known."""
    return _read(Path("/proc/self/status"), "VmHWM") or 0


def resident_bytes() -> int | None:
    """The memory of this process that is resident; None where that is not known."""
    return _read(Path("/proc/self/status"), "VmRSS")


def available_bytes() -> int | None:
    """What new work may take without swapping; None where that is not known."""
    return _read(Path("/proc/meminfo"), "MemAvailable")


def _read(path: Path, field: str) -> int | None:
    try:
        found = re.search(rf"^{field}:\s+(\d+) kB$", path.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
