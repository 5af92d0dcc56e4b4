"""The state a machine is in while it is measured: power mode, clocks, temperatures, throttling."""

from __future__ import annotations

from pathlib import Path

import msgspec

from .clocks import EMC, Clock, read_clocks, read_temperatures, read_text
from .command import output_of
from .nvidia import GpuState, read_gpu


class DeviceState(msgspec.Struct, frozen=True, kw_only=True):
    """A machine at one moment; what is null or empty has its reason in `missing`, by field.

    Attributes:
        board: a Jetson's name from its device tree.
        l4t: the first line of /etc/nv_tegra_release.
        power_mode: of nvpmodel, name and number.
        clocks: MHz of CPU clusters, GPU and memory.
        clocks_locked: whether no CPU or GPU clock may move, as after `jetson_clocks`.
        temperatures_c: by thermal zone.
        throttle_events: events since boot, by counter: under-voltage, average and instantaneous over-current on Orin.
        gpu: a datacenter or desktop GPU.
    """

    board: str | None
    l4t: str | None
    power_mode: str | None
    clocks: dict[str, Clock]
    clocks_locked: bool | None
    temperatures_c: dict[str, float]
    throttle_events: dict[str, int]
    gpu: GpuState | None
    missing: dict[str, str]


def read_device(root: Path = Path("/")) -> DeviceState:
    """Read everything this system shows; `root` is where /sys, /proc and /etc are."""
    sysfs = root / "sys"
    power_mode, no_mode = _power_mode()
    gpu, no_gpu = read_gpu()
    clocks, temperatures, events = read_clocks(sysfs), read_temperatures(sysfs), _throttle_events(sysfs)
    board, l4t = read_text(root / "proc/device-tree/model"), read_text(root / "etc/nv_tegra_release")
    cores = [clock for name, clock in clocks.items() if name != "emc"]
    reasons = {
        "board": None if board else f"{root / 'proc/device-tree/model'} cannot be read",
        "l4t": None if l4t else f"{root / 'etc/nv_tegra_release'} cannot be read",
        "power_mode": no_mode,
        "clocks": None if clocks else f"no cpufreq or devfreq device in {sysfs}",
        "clocks.emc": None if "emc" in clocks else f"{sysfs / EMC} cannot be read; on a Jetson run as root",
        "clocks_locked": None if cores else "no clock of CPU or GPU is known",
        "temperatures_c": None if temperatures else f"no thermal zone in {sysfs / 'class/thermal'}",
        "throttle_events": None if events else f"no oc*_event_cnt in {sysfs / 'class/hwmon'}",
        "gpu": no_gpu,
    }
    return DeviceState(
        board=board,
        l4t=l4t.splitlines()[0] if l4t else None,
        power_mode=power_mode,
        clocks=clocks,
        clocks_locked=all(clock.is_locked for clock in cores) if cores else None,
        temperatures_c=temperatures,
        throttle_events=events,
        gpu=gpu,
        missing={field: reason for field, reason in reasons.items() if reason is not None},
    )


def throttling(before: DeviceState, after: DeviceState) -> list[str]:
    """What held the machine back between two moments, as far as it says."""
    found = [
        f"{name} counted {count - before.throttle_events[name]} over-current or under-voltage events: the device was throttled"
        for name, count in after.throttle_events.items()
        if count > before.throttle_events.get(name, count)
    ]
    if after.gpu is not None and after.gpu.is_slowed:
        found.append(f"the GPU was slowed by heat or power when the run ended (clock event bits {after.gpu.throttle})")
    return found


def _power_mode() -> tuple[str | None, str | None]:
    """`MAXN (0)` of nvpmodel's "NV Power Mode: MAXN" and the line after it."""
    answer, failure = output_of(["nvpmodel", "-q"])
    lines = (answer or "").splitlines()
    for number, line in enumerate(lines):
        label, _, name = line.partition("NV Power Mode:")
        if name and not label:
            following = lines[number + 1].strip() if number + 1 < len(lines) else ""
            return name.strip() + (f" ({following})" if following.isdigit() else ""), None
    return None, failure or f"nvpmodel -q named no mode: {answer}"


def _throttle_events(sysfs: Path) -> dict[str, int]:
    texts = {
        f"{file.parent.name}/{file.name.removesuffix('_event_cnt')}": read_text(file)
        for file in sorted(sysfs.glob("class/hwmon/hwmon*/oc*_event_cnt"))
    }
    return {name: int(text) for name, text in texts.items() if text is not None and text.isdigit()}
