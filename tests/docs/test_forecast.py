"""docs/forecast.md: its commands print what it says they do, and its device is one."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from foveal.cli import app
from foveal.forecast.devices import Device, device_named

PAGE = (Path(__file__).parents[2] / "docs" / "forecast.md").read_text("utf-8")
COMMANDS = re.findall(r"```\n\$ foveal (.*?)\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize(("command", "printed"), COMMANDS, ids=["devices", "search"])
def test_commands_print_what_the_page_shows(command: str, printed: str) -> None:
    """Forecasts are arithmetic: the same everywhere."""
    done = CliRunner().invoke(app, shlex.split(command))
    assert done.exit_code == 0, done.exception
    assert [line.rstrip() for line in done.stdout.splitlines()] == [line.rstrip() for line in printed.splitlines()]


def test_the_device_of_the_page_is_one(tmp_path: Path) -> None:
    """It is read, with what is null in it."""
    (text,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    file = tmp_path / "board.json"
    file.write_text(text)
    found = device_named(str(file))
    assert isinstance(found, Device)
    assert (found.title, found.fp32_tflops.value) == ("my board", None)


def test_all_twelve_models_are_within_a_fifth() -> None:
    """Of the table that the benchmark writes, where it was measured."""
    (table,) = re.findall(r"<!-- figures: forecast error -->\n(.*?)<!-- end", PAGE, re.DOTALL)
    errors = [int(found) for found in re.findall(r"([+-]\d+)%", table)]
    assert len(errors) == 12
    assert max(map(abs, errors)) <= 20
