"""`foveal bench --power` and `foveal doctor`, where there is a sensor and where there is none."""

from __future__ import annotations

from pathlib import Path

import boards
import pytest
from typer.testing import CliRunner

from foveal import cli
from foveal.errors import ConfigError


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one folder on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.mark.skipif(Path("/sys/bus/i2c/drivers/ina3221").exists(), reason="this machine has power monitors")
def test_power_without_a_sensor_fails_at_once(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any bundle is read; `doctor` says the same."""
    monkeypatch.setattr("foveal.bench.power.find.find_zones", lambda _sysfs: [])  # this machine may have RAPL
    result = CliRunner().invoke(cli.app, ["bench", "nowhere.bundle", "--power"])
    assert isinstance(result.exception, ConfigError)
    assert "no power sensor was found; looked at /sys/bus/i2c/drivers/ina3221" in str(result.exception)
    assert "tegrastats (not on PATH); /sys/class/powercap/intel-rapl:* (no readable zone); nvidia-smi (not on PATH)" in str(
        result.exception
    )
    result = CliRunner().invoke(cli.app, ["doctor"])
    assert (result.exit_code, "power: no power sensor was found" in result.output) == (0, True)


@pytest.mark.skipif(Path("/sys/bus/i2c/drivers/ina3221").exists(), reason="this machine has power monitors")
def test_doctor_names_the_sensor(tools: Path) -> None:
    """And what it sees."""
    boards.add_tegrastats(tools, boards.ORIN_NX_LINE)
    result = CliRunner().invoke(cli.app, ["doctor"])
    assert "power: tegrastats, VDD_IN: the module's input, without the carrier board" in result.output
