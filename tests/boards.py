"""Machines that are not there: sysfs trees and tools, as public records of real boards show them.

Layouts: the kernel's Documentation/hwmon/ina3221.rst, the channels of an AGX Orin listed in alumet-dev/alumet#212, and
tegrastats lines of AGX Orin and AGX Thor quoted by their users.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

AGX_ORIN_LINE = (
    "04-11-2025 10:36:27 RAM 4321/62801MB (lfb 1759x4MB) SWAP 19/31400MB (cached 0MB) CPU [0%@729,0%@729,off,0%@729] "
    "EMC_FREQ 0%@2133 GR3D_FREQ 0%@[0,0] VIC_FREQ 729 APE 174 CV0@-256C CPU@44.562C Tboard@32C tj@44.343C "
    "VDD_GPU_SOC 2340mW/2199mW VDD_CPU_CV 390mW/388mW VIN_SYS_5V0 4025mW/4025mW NC 0mW/0mW "
    "VDDQ_VDD2_1V8AO 301mW/301mW NC 0mW/0mW"
)
ORIN_NX_LINE = (
    "11-15-2024 08:38:09 RAM 6185/7620MB (lfb 8x2MB) SWAP 851/3810MB (cached 1MB) CPU [15%@729,11%@729] EMC_FREQ 1%@2133 "
    "GR3D_FREQ 0%@[305] cpu@50.968C tj@52.25C VDD_IN 5234mW/5100mW VDD_CPU_GPU_CV 502mW/500mW VDD_SOC 1459mW/1460mW"
)
THOR_LINE = (
    "05-14-2026 21:36:35 RAM 26063/125772MB (lfb 35x4MB) CPU [2%@972,1%@972] tj@52.2C/61.7C VDD_GPU -392mW/-392mW/784mW "
    "VDD_CPU_SOC_MSS 3924mW/3835mW/12281mW VIN_SYS_5V0 5064mW/5055mW/7424mW VIN 15004mW/15096mW/36487mW"
)


def write(file: Path, content: object) -> None:
    """Write a file such as sysfs has, with a newline at its end."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{content}\n")


def add_ina(
    sysfs: Path, address: str, hwmon: str, channels: Sequence[tuple[str | None, int, int]], driver: str = "ina3221"
) -> Path:
    """A power monitor, linked into its driver's folder as in sysfs: label, mV, mA of each channel; -1 mA: reading fails."""
    device = sysfs / "devices/platform/bus@0/c240000.i2c/i2c-1" / address
    folder = device / "hwmon" / hwmon
    write(device / "name", driver)
    for number, (label, millivolts, milliamperes) in enumerate(channels, 1):
        if label is not None:
            write(folder / f"in{number}_label", label)
        write(folder / f"in{number}_input", millivolts)
        write(folder / f"curr{number}_input", "" if milliamperes == -1 else milliamperes)
    if driver == "ina3221":
        write(folder / "in7_label", "sum of shunt voltages")
        write(folder / "in7_input", 12)
        write(folder / "curr4_input", 9999)
    link = sysfs / "bus/i2c/drivers" / driver / address
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(device)
    return folder


def add_agx_orin(sysfs: Path) -> None:
    """Two monitors, no total: 9 W, 1.5 W, 4 W, of which 0.3 W go on to VDDQ_VDD2_1V8AO; unconnected channels fail."""
    rails = [("VDD_GPU_SOC", 19_000, 474), ("VDD_CPU_CV", 19_000, 79), ("VIN_SYS_5V0", 5_000, 800)]
    add_ina(sysfs, "1-0040", "hwmon3", rails)
    add_ina(sysfs, "1-0041", "hwmon4", [("NC", 0, -1), ("VDDQ_VDD2_1V8AO", 5_000, 60), ("NC", 0, -1)])


def add_clocks(sysfs: Path, locked: bool) -> None:
    """Clocks, temperatures and over-current counters of an Orin on JetPack 6."""
    cpu, gpu = sysfs / "devices/system/cpu/cpufreq/policy0", sysfs / "class/devfreq/17000000.gpu"
    least = 2_201_600 if locked else 115_200
    for name, value in (("cur", 2_201_600), ("min", least), ("max", 2_201_600)):
        write(cpu / f"scaling_{name}_freq", value)
        write(gpu / f"{name}_freq", 1_300_500_000)
    write(cpu / "scaling_governor", "schedutil")
    write(gpu / "governor", "nvhost_podgov")
    write(sysfs / "class/devfreq/15340000.vic/cur_freq", 729_000_000)
    for name, value in (("rate", 3_199_000_000), ("min_rate", 204_000_000), ("max_rate", 3_199_000_000)):
        write(sysfs / "kernel/debug/bpmp/debug/clk/emc" / name, value)
    for number, (zone, millidegrees) in enumerate((("cpu-thermal", 44_562), ("gpu-thermal", -256_000))):
        write(sysfs / f"class/thermal/thermal_zone{number}/type", zone)
        write(sysfs / f"class/thermal/thermal_zone{number}/temp", millidegrees)
    write(sysfs / "class/hwmon/hwmon5/name", "soctherm_oc")
    write(sysfs / "class/hwmon/hwmon5/oc3_event_cnt", 7)


def add_tool(folder: Path, name: str, body: str) -> None:
    """An executable in Python, in a folder that a test puts on PATH."""
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!{sys.executable}\nimport sys, time\narguments = sys.argv[1:]\n{body}\n")
    file.chmod(0o755)


def add_tegrastats(folder: Path, line: str) -> None:
    """One that prints a line per interval until it is killed."""
    add_tool(
        folder,
        "tegrastats",
        "assert arguments[0] == '--interval'\n"
        "while True:\n"
        f"    print({line!r}, flush=True)\n"
        "    time.sleep(int(arguments[1]) / 1000)",
    )


def add_nvidia_smi(folder: Path, answers: Mapping[str, str]) -> None:
    """One that knows some fields, and repeats itself with `-lms`."""
    add_tool(
        folder,
        "nvidia-smi",
        f"answers = {dict(answers)!r}\n"
        "fields = next(a for a in arguments if a.startswith('--query-gpu=')).split('=')[1].split(',')\n"
        "unknown = [field for field in fields if field not in answers]\n"
        "if unknown:\n"
        "    print(f'Field \"{unknown[0]}\" is not a valid field to query.')\n"
        "    sys.exit(2)\n"
        "while True:\n"
        "    print(', '.join(answers[field] for field in fields), flush=True)\n"
        "    if '-lms' not in arguments:\n"
        "        break\n"
        "    time.sleep(int(arguments[-1]) / 1000)",
    )
