"""What a figure was measured on."""

from __future__ import annotations

import datetime
import os
import platform
import resource
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from .device import DeviceState, read_device


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """Machine and versions; null where the system does not say, `device` with reasons. `device_after`: at a benchmark's end."""

    created_utc: str
    cpu: str | None
    cpus_usable: int
    memory_bytes: int | None
    system: str
    python: str
    packages: dict[str, str | None]
    load_1min: float | None
    memory_bandwidth_gb_s: float | None = None
    device: DeviceState | None = None
    device_after: DeviceState | None = None


def read_environment() -> Environment:
    """Describe this machine as it is now; a load average well above 0 means the figures beside it are disturbed."""
    return Environment(
        created_utc=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        cpu=_proc_field("/proc/cpuinfo", "model name") or platform.processor() or None,
        cpus_usable=usable_cpus(),
        memory_bytes=_memory_bytes(),
        system=platform.platform(),
        python=platform.python_version(),
        packages={
            name: _version(name) for name in ("foveal", "numpy", "onnxruntime", "torch", "onnx", "tensorrt", "tensorrt_rtx")
        },
        load_1min=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        device=read_device(),
    )


def usable_cpus() -> int:
    """CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_resident_bytes() -> int:
    """The most memory this process has held at once.

    Linux's VmHWM where there is one: getrusage's figure starts at what the parent held when it forked.
    """
    text = _proc_field("/proc/self/status", "VmHWM")
    if text is not None:
        return int(text.split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, the one other system with this module


def resident_bytes() -> int | None:
    """The memory that this process holds now; None where the system does not say."""
    text = _proc_field("/proc/self/status", "VmRSS")
    return None if text is None else int(text.split()[0]) * 1024


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _proc_field(path: str, field: str) -> str | None:
    file = Path(path)
    if not file.is_file():
        return None
    for line in file.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return None


def _memory_bytes() -> int | None:
    text = _proc_field("/proc/meminfo", "MemTotal")
    return int(text.split()[0]) * 1024 if text else None
