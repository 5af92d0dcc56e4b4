"""Power sensors on machines that are not there: sysfs trees and tools in a temporary folder."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from threading import Event

import boards
import msgspec
import pytest
from rich.console import Console
from specimens import Zoo

from foveal.bench import bandwidth
from foveal.bench.decode import Load
from foveal.bench.power.find import find_sensor
from foveal.bench.power.measure import PowerTimes
from foveal.bench.power.rails import whole
from foveal.bench.power.sampler import PowerSampler
from foveal.bench.power.sensor import PowerSensor, SensorInfo
from foveal.bench.power.tegrastats import milliwatts
from foveal.bench.result import BENCH_SCHEMA_VERSION, BenchResult
from foveal.bench.run import bench
from foveal.bench.show import show
from foveal.errors import ConfigError


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    """An empty /sys."""
    return tmp_path / "sys"


def first_watts(sensor: PowerSensor, number: int = 1) -> list[float]:
    """The first readings of a sensor, which is then stopped."""
    readings = sensor.watts(Event())
    try:
        return list(islice(readings, number))
    finally:
        readings.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("labels", "rails", "sees"),
    [
        (["VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"], ["VDD_IN"], "without the carrier board"),
        (["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "NC"], ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"], "the sum"),
        (["VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"], ["VIN_SYS_5V0"], "the sum"),
        (["VDDQ_VDD2_1V8AO"], ["VDDQ_VDD2_1V8AO"], "the sum"),
        (["GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"], ["GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"], "the sum"),
        (["VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0", "VIN"], ["VIN"], "module and carrier board"),
        (["POM_5V_IN", "POM_5V_GPU", "POM_5V_CPU"], ["POM_5V_IN"], "5 V input"),
    ],
    ids=["Orin NX", "AGX Orin", "fed rail", "only a fed rail", "AGX Xavier", "Thor", "Nano"],
)
def test_rails_that_make_up_the_whole(labels: list[str], rails: list[str], sees: str) -> None:
    """The total where there is one; else the sum, no watt counted twice."""
    chosen, said = whole(labels)
    assert chosen == rails
    assert sees in said


def test_orin_nx_has_a_total(sysfs: Path, tools: Path) -> None:
    """Millivolts times milliamperes of VDD_IN; tegrastats is not needed."""
    rails = [("VDD_IN", 5000, 1046), ("VDD_CPU_GPU_CV", 5000, 100), ("VDD_SOC", 5000, 292)]
    folder = boards.add_ina(sysfs, "1-0040", "hwmon3", rails)
    boards.add_tegrastats(tools, boards.THOR_LINE)
    sensor = find_sensor(sysfs)
    assert (sensor.info.sensor, sensor.info.rails) == ("ina3221", ["VDD_IN"])
    assert sensor.info.source == [
        str(sysfs / f"bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/{name}1_input") for name in ("in", "curr")
    ]
    assert first_watts(sensor) == [pytest.approx(5.23)]
    boards.write(folder / "curr1_input", 2000)
    assert first_watts(sensor) == [pytest.approx(10)]


def test_agx_orin_is_summed(sysfs: Path, tools: Path) -> None:
    """Without the rail that another feeds, the channels that are not connected, and the sum of shunt voltages."""
    boards.add_agx_orin(sysfs)
    sensor = find_sensor(sysfs)
    assert sensor.info.rails == ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"]
    assert first_watts(sensor) == [pytest.approx(19 * 0.474 + 19 * 0.079 + 5 * 0.8)]


def test_thor_has_a_monitor_of_another_make(sysfs: Path, tools: Path) -> None:
    """INA238, which has no label: the board's input."""
    rails = [("VDD_GPU", 19_000, -20), ("VDD_CPU_SOC_MSS", 19_000, 206), ("VIN_SYS_5V0", 5_000, 1_012)]
    boards.add_ina(sysfs, "2-0040", "hwmon1", rails)
    boards.add_ina(sysfs, "2-0044", "hwmon2", [(None, 20_000, 750)], driver="ina238")
    sensor = find_sensor(sysfs)
    assert (sensor.info.sensor, sensor.info.rails) == ("ina238", ["VIN"])
    assert first_watts(sensor) == [pytest.approx(15)]


def test_a_rail_that_is_switched_off_does_not_count(sysfs: Path, tools: Path) -> None:
    """Its files are there, but reading fails."""
    boards.add_ina(sysfs, "1-0040", "hwmon3", [("VDD_GPU_SOC", 19_000, -1), ("VDD_CPU_CV", 19_000, 100)])
    assert find_sensor(sysfs).info.rails == ["VDD_CPU_CV"]


@pytest.mark.parametrize(
    ("line", "power"),
    [
        (boards.ORIN_NX_LINE, {"VDD_IN": 5234, "VDD_CPU_GPU_CV": 502, "VDD_SOC": 1459}),
        (boards.AGX_ORIN_LINE, {"VDD_GPU_SOC": 2340, "VDD_CPU_CV": 390, "VIN_SYS_5V0": 4025, "VDDQ_VDD2_1V8AO": 301}),
        (boards.THOR_LINE, {"VDD_GPU": -392, "VDD_CPU_SOC_MSS": 3924, "VIN_SYS_5V0": 5064, "VIN": 15004}),
        ("RAM 1/2MB VDD_GPU_SOC 2171mW", {"VDD_GPU_SOC": 2171}),
        ("Usage: tegrastats [-option]", {}),
    ],
    ids=["Orin NX", "AGX Orin", "Thor", "no average", "help"],
)
def test_lines_of_tegrastats(line: str, power: dict[str, int]) -> None:
    """The current figure, neither the average nor the peak; nothing else of the line."""
    assert milliwatts(line) == power


def test_tegrastats_where_sysfs_is_hidden(sysfs: Path, tools: Path) -> None:
    """Real lines of a process, which is gone afterwards."""
    boards.add_tegrastats(tools, boards.AGX_ORIN_LINE)
    sensor = find_sensor(sysfs)
    assert (sensor.info.sensor, sensor.info.source) == ("tegrastats", [f"{tools}/tegrastats --interval 50"])
    assert first_watts(sensor, 3) == [pytest.approx(2.340 + 0.390 + 4.025)] * 3


def test_nvidia_smi_instant_power_first(sysfs: Path, tools: Path) -> None:
    """And the average, said to be one, only where there is no other."""
    boards.add_nvidia_smi(tools, {"power.draw.instant": "301.25", "power.draw": "280.00"})
    sensor = find_sensor(sysfs)
    assert sensor.info.rails == ["GPU 0 power.draw.instant"]
    assert first_watts(sensor, 2) == [301.25, 301.25]
    boards.add_nvidia_smi(tools, {"power.draw.instant": "[N/A]", "power.draw": "280.00"})
    sensor = find_sensor(sysfs)
    assert (first_watts(sensor), sensor.info.rails) == ([280.0], ["GPU 0 power.draw"])
    assert "averaged over a second" in sensor.info.sees


def test_the_gpu_that_cuda_sees(sysfs: Path, tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By index or UUID."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-5f3a,1")
    boards.add_nvidia_smi(tools, {"power.draw.instant": "70"})
    assert "--id=GPU-5f3a" in find_sensor(sysfs).info.source[0]


def add_zone(sysfs: Path, zone: str, name: str, energy_uj: int = 1_000_000, most: int = 2_000_000) -> Path:
    """A counter of RAPL."""
    folder = sysfs / "class" / "powercap" / zone
    folder.mkdir(parents=True)
    for file, text in {"name": name, "energy_uj": str(energy_uj), "max_energy_range_uj": str(most)}.items():
        (folder / file).write_text(f"{text}\n")
    return folder


def test_rapl_counts_packages_and_memory(sysfs: Path, tools: Path) -> None:
    """What is part of a package is not added to it, and a zone that only root may read is none."""
    add_zone(sysfs, "intel-rapl:0", "package-0")
    add_zone(sysfs, "intel-rapl:0:0", "core")
    add_zone(sysfs, "intel-rapl:0:1", "dram")
    (add_zone(sysfs, "intel-rapl:1", "package-1") / "energy_uj").unlink()
    info = find_sensor(sysfs).info
    assert (info.sensor, info.rails) == ("RAPL", ["package-0", "dram"])
    add_zone(sysfs, "intel-rapl:2", "psys")
    assert find_sensor(sysfs).info.rails == ["psys"]


def test_rapl_is_energy_by_time_also_when_the_counter_begins_again(sysfs: Path, tools: Path) -> None:
    """0.3 J until the next reading, over its end."""
    file = add_zone(sysfs, "intel-rapl:0", "package-0", 1_900_000) / "energy_uj"
    stop, begun = Event(), time.perf_counter()
    readings = find_sensor(sysfs).watts(stop)
    counts = iter(["200000\n", "500000\n"])
    stop.wait = lambda _seconds: (file.write_text(next(counts)), False)[1]  # type: ignore[method-assign,assignment]
    watts, took = next(readings), time.perf_counter() - begun
    assert watts >= 0.3 / took
    assert next(readings) > 0


def test_the_sensor_is_that_of_what_runs(sysfs: Path, tools: Path) -> None:
    """RAPL for engines of processors, nvidia-smi for those of a GPU."""
    add_zone(sysfs, "intel-rapl:0", "package-0")
    boards.add_nvidia_smi(tools, {"power.draw.instant": "70"})
    assert find_sensor(sysfs).info.sensor == "RAPL"
    assert find_sensor(sysfs, "tensorrt").info.sensor == "nvidia-smi"


def test_no_sensor(sysfs: Path, tools: Path) -> None:
    """Every place that was looked at, what was wrong there, and what to do."""
    boards.add_nvidia_smi(tools, {"power.draw.instant": "[N/A]", "power.draw": "[Not Supported]"})
    with pytest.raises(ConfigError) as caught:
        find_sensor(sysfs)
    text = str(caught.value)
    for part in (
        f"{sysfs}/bus/i2c/drivers/ina3221/*/hwmon/hwmon* (no readable rail)",
        f"{sysfs}/bus/i2c/drivers/ina238/*/hwmon/hwmon* (no readable rail)",
        "tegrastats (not on PATH)",
        "nvidia-smi (power.draw.instant: [N/A])",
        "nvidia-smi (power.draw: [Not Supported])",
        f"{sysfs}/class/powercap/intel-rapl:* (no readable zone)",
        "run as a user who may read these files",
        "run as root, who alone may read RAPL",
        "leave out --power",
    ):
        assert part in text


def test_tools_that_fail_say_why(sysfs: Path, tools: Path) -> None:
    """A tegrastats that prints its help, a driver that is not loaded."""
    boards.add_tool(tools, "tegrastats", "print('Usage: tegrastats')")
    boards.add_tool(tools, "nvidia-smi", "print('NVIDIA-SMI has failed'); sys.exit(9)")
    with pytest.raises(
        ConfigError, match="no rail in its first line: Usage: tegrastats.*nvidia-smi failed: NVIDIA-SMI has failed"
    ):
        find_sensor(sysfs)


class Ramp:
    """A sensor that reads 1, 2, 3, ... W, every few milliseconds."""

    info = SensorInfo(sensor="ramp", source=["nowhere"], rails=["RAMP"], sees="nothing", interval_s=0.002)

    def watts(self, stop: Event) -> Iterator[float]:
        """Count until stopped."""
        for number in count(1):
            if stop.wait(self.info.interval_s):
                return
            yield float(number)


class Broken(Ramp):
    """A sensor whose file went away."""

    def watts(self, stop: Event) -> Iterator[float]:
        """Fail at once."""
        raise OSError("in1_input: Input/output error")


def test_the_sampler_brackets_a_window() -> None:
    """One reading at or before its beginning, one at or after its end, in order, stamped with monotonic time."""
    with PowerSampler(Ramp()) as sampler:
        time.sleep(0.02)
        began = time.monotonic_ns()
        time.sleep(0.05)
        ended = time.monotonic_ns()
        kept = sampler.between(began, ended)
    assert kept.time_ns[0] <= began < kept.time_ns[1]
    assert kept.time_ns[-2] < ended <= kept.time_ns[-1]
    assert kept.watts == [kept.watts[0] + number for number in range(len(kept.watts))]


def test_a_sensor_that_gives_nothing() -> None:
    """Said before anything is measured."""
    with (
        pytest.raises(ConfigError, match="ramp gave no reading: in1_input: Input/output error; try `nowhere`"),
        PowerSampler(Broken()),
    ):
        pass


@pytest.fixture(scope="module")
def measured(zoo: Zoo) -> BenchResult:
    """A benchmark with power, of windows too short for figures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bandwidth.MemoryReader, "gb_s", lambda _reader: 20.0)
        times = PowerTimes(window_s=0.3, idle_s=0.1, settle_s=0)
        return bench([zoo["nested"].bundle.path], Load(8, 16, rounds=1), threads=1, power=Ramp(), power_times=times)


def test_bench_keeps_raw_samples_and_refuses_figures(measured: BenchResult) -> None:
    """Too short a window is a problem, not a number."""
    (model,) = measured.models
    assert model.power is not None
    assert measured.power is not None
    assert (model.power.j_per_token, measured.status) == (None, "incomplete")
    assert any("nested" in problem and "are too few for a figure" in problem for problem in measured.problems)
    assert model.power.tokens > 0
    window = model.power.window
    assert (window.ended_ns - window.began_ns) * 1e-9 == pytest.approx(0.3, abs=0.2)
    assert len(window.samples.time_ns) == len(window.samples.watts) >= window.count > 10
    assert measured.power.idle.ended_ns <= window.began_ns


def test_power_survives_json(measured: BenchResult) -> None:
    """Setup, windows, raw samples, the device's state before and after."""
    assert msgspec.json.decode(msgspec.json.encode(measured), type=BenchResult) == measured
    assert measured.environment.device is not None
    assert measured.environment.device_after is not None
    assert measured.schema_version == BENCH_SCHEMA_VERSION == 5


def test_results_saved_before_there_was_power_can_be_read(measured: BenchResult) -> None:
    """Schema version 1."""
    old = json.loads(msgspec.json.encode(measured))
    old["schema_version"] = 1
    del old["power"], old["power_missing"], old["environment"]["device"], old["environment"]["device_after"]
    for model in old["models"]:
        del model["power"]
    read = msgspec.json.decode(json.dumps(old), type=BenchResult)
    assert (read.schema_version, read.power, read.models[0].power, read.environment.device) == (1, None, None, None)
    assert read.models[0].samples == measured.models[0].samples


def test_the_table_shows_power(measured: BenchResult) -> None:
    """A line about the sensor and the baseline; dashes for what was refused."""
    console = Console(width=200, record=True)
    show(measured, console)
    text = console.export_text()
    assert "power by ramp, RAMP (nothing), every 2 ms; idle" in text
    for label in ("decoding, W: mean", "  net of idle", "J per token"):
        assert label in text
    row = next(line for line in text.splitlines() if "J per token" in line)
    assert row.split()[-1] == "-"


def test_without_power_there_is_a_reason(zoo: Zoo) -> None:
    """And no rows in the table."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bandwidth.MemoryReader, "gb_s", lambda _reader: 20.0)
        result = bench([zoo["vanilla"].bundle.path], Load(4, 4, rounds=1), threads=1)
    assert (result.power, result.power_missing, result.models[0].power) == (None, "not asked for", None)
    console = Console(width=200, record=True)
    show(result, console)
    assert "J per token" not in console.export_text()
