"""The state of a device: what its files and tools say, and reasons for the rest."""

from __future__ import annotations

from pathlib import Path

import boards
import msgspec

from foveal.bench.device import DeviceState, read_device, throttling

GPU = {
    "name": "NVIDIA H100 80GB HBM3",
    "driver_version": "580.65.06",
    "compute_cap": "9.0",
    "power.limit": "700.00",
    "persistence_mode": "Enabled",
    "mig.mode.current": "Disabled",
    "clocks.sm": "1980",
    "clocks.max.sm": "1980",
    "clocks.mem": "2619",
    "clocks.max.mem": "2619",
    "temperature.gpu": "41",
    "clocks_event_reasons.active": "0x0000000000000001",
}


def add_orin(root: Path, tools: Path, locked: bool = True) -> None:
    """An AGX Orin on JetPack 6, whose files root may read."""
    boards.add_clocks(root / "sys", locked)
    board = root / "proc/device-tree/model"
    board.parent.mkdir(parents=True)
    board.write_bytes(b"NVIDIA Jetson AGX Orin Developer Kit\0")
    boards.write(root / "etc/nv_tegra_release", "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n# more")
    boards.add_tool(
        tools, "nvpmodel", "assert arguments == ['-q']\nprint('NVPM WARN: fan mode is not set!\\nNV Power Mode: MAXN\\n0')"
    )


def test_an_orin(tmp_path: Path, tools: Path) -> None:
    """Mode, clocks in MHz, temperatures of what is powered, counters."""
    add_orin(tmp_path, tools)
    state = read_device(tmp_path)
    assert (state.board, state.power_mode) == ("NVIDIA Jetson AGX Orin Developer Kit", "MAXN (0)")
    assert state.l4t == "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic"
    assert list(state.clocks) == ["cpu policy0", "gpu 17000000.gpu", "emc"]
    assert state.clocks["cpu policy0"].max_mhz == 2201.6
    assert (state.clocks["gpu 17000000.gpu"].current_mhz, state.clocks["gpu 17000000.gpu"].governor) == (
        1300.5,
        "nvhost_podgov",
    )
    assert (state.clocks["emc"].current_mhz, state.clocks["emc"].min_mhz) == (3199, 204)
    assert state.clocks_locked is True
    assert state.temperatures_c == {"cpu-thermal": 44.562}
    assert state.throttle_events == {"hwmon5/oc3": 7}
    assert state.missing == {"gpu": "nvidia-smi is not on PATH"}
    assert msgspec.json.decode(msgspec.json.encode(state), type=DeviceState) == state


def test_clocks_that_may_move(tmp_path: Path, tools: Path) -> None:
    """`jetson_clocks` was not run."""
    add_orin(tmp_path, tools, locked=False)
    assert read_device(tmp_path).clocks_locked is False


def test_thor_has_other_names(tmp_path: Path, tools: Path) -> None:
    """GPU and memory are devfreq devices that anyone may read."""
    for name, hertz in (("gpu-gpc-0", 1_574_000_000), ("bwmgr", 4_266_000_000)):
        boards.write(tmp_path / f"sys/class/devfreq/{name}/cur_freq", hertz)
    clocks = read_device(tmp_path).clocks
    assert (clocks["gpu gpu-gpc-0"].current_mhz, clocks["emc"].current_mhz) == (1574, 4266)


def test_a_machine_that_says_nothing(tmp_path: Path, tools: Path) -> None:
    """A reason for every field."""
    state = read_device(tmp_path)
    assert (state.board, state.l4t, state.power_mode, state.clocks_locked, state.gpu) == (None,) * 5
    assert (state.clocks, state.temperatures_c, state.throttle_events) == ({}, {}, {})
    assert state.missing["power_mode"] == "nvpmodel is not on PATH"
    assert "run as root" in state.missing["clocks.emc"]
    fields = {"board", "l4t", "power_mode", "clocks", "clocks.emc", "clocks_locked", "temperatures_c", "throttle_events", "gpu"}
    assert set(state.missing) == fields


def test_a_datacenter_gpu(tmp_path: Path, tools: Path) -> None:
    """Limit, persistence, MIG and clocks; `[N/A]` is null."""
    boards.add_nvidia_smi(tools, GPU | {"mig.mode.current": "[N/A]"})
    gpu = read_device(tmp_path).gpu
    assert gpu is not None
    assert (gpu.name, gpu.power_limit_w, gpu.persistence, gpu.mig) == ("NVIDIA H100 80GB HBM3", 700, "Enabled", None)
    assert (gpu.sm.current_mhz, gpu.memory.max_mhz, gpu.temperature_c) == (1980, 2619, 41)
    assert (gpu.throttle, gpu.is_slowed) == ("0x0000000000000001", False)


def test_older_drivers_name_throttling_otherwise(tmp_path: Path, tools: Path) -> None:
    """Before 535."""
    answers = {name: value for name, value in GPU.items() if name != "clocks_event_reasons.active"}
    boards.add_nvidia_smi(tools, answers | {"clocks_throttle_reasons.active": "0x0000000000000040"})
    gpu = read_device(tmp_path).gpu
    assert gpu is not None
    assert gpu.is_slowed


def test_a_failing_tool_is_a_reason(tmp_path: Path, tools: Path) -> None:
    """Its own words."""
    boards.add_tool(tools, "nvpmodel", "print('NVPM ERROR: failed to read PARAM', file=sys.stderr); sys.exit(1)")
    boards.add_tool(tools, "nvidia-smi", "print('NVIDIA-SMI has failed because it could not communicate'); sys.exit(9)")
    state = read_device(tmp_path)
    assert state.missing["power_mode"] == "nvpmodel failed: NVPM ERROR: failed to read PARAM"
    assert state.missing["gpu"] == "nvidia-smi failed: NVIDIA-SMI has failed because it could not communicate"


def test_throttling_is_a_problem(tmp_path: Path, tools: Path) -> None:
    """Counters that went up meanwhile, or a GPU that heat slowed; old events do not count."""
    add_orin(tmp_path, tools)
    before = read_device(tmp_path)
    assert throttling(before, before) == []
    boards.write(tmp_path / "sys/class/hwmon/hwmon5/oc3_event_cnt", 12)
    boards.add_nvidia_smi(tools, GPU | {"clocks_event_reasons.active": "0x0000000000000020"})
    assert throttling(before, read_device(tmp_path)) == [
        "hwmon5/oc3 counted 5 over-current or under-voltage events: the device was throttled",
        "the GPU was slowed by heat or power when the run ended (clock event bits 0x0000000000000020)",
    ]
