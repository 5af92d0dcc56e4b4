"""deploy/systemd/foveal.service, by systemd's own tools where they are installed; no systemd runs here."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dockerfiles import DEPLOY
from served_options import drain_seconds, options_of, unknown_options

UNIT = DEPLOY / "systemd" / "foveal.service"
LINES = [line for line in UNIT.read_text(encoding="utf-8").splitlines() if "=" in line and not line.startswith("#")]
SETTINGS = {line.partition("=")[0]: line.partition("=")[2] for line in LINES}
COMMAND = shlex.split(SETTINGS["ExecStart"])
MOST_EXPOSED = 2.0
"""Of 10; an unhardened service has 9.6."""

has_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


@has_systemd
def test_systemd_knows_every_setting(tmp_path: Path) -> None:
    """It says nothing of the unit; the command is one that this machine has."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text(encoding="utf-8").replace(COMMAND[0], sys.executable), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@has_systemd
def test_it_can_do_little() -> None:
    """By systemd's own measure of what a service could do to the machine."""
    command = ["systemd-analyze", "security", "--no-pager", "--offline=true", f"--threshold={MOST_EXPOSED * 10:.0f}", UNIT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout.splitlines()[-1] + done.stderr


def test_the_server_is_given_what_it_knows() -> None:
    """Every option is one of `foveal serve`; what it writes is below its own folders, and it binds to loopback."""
    assert COMMAND[1] == "serve"
    options = options_of(COMMAND[2:])
    assert unknown_options(options) == set()
    assert options["--store"].startswith(f"%S/{SETTINGS['StateDirectory']}/")
    assert SETTINGS["Environment"].startswith(f"FOVEAL_CACHE=%C/{SETTINGS['CacheDirectory']} ")
    assert options["--token-file"] == f"%d/{SETTINGS['LoadCredential'].partition(':')[0]}"
    assert options["--host"] == "127.0.0.1"


def test_it_waits_longer_for_the_server_than_the_server_for_its_clients() -> None:
    """Else the server is killed while it writes sessions."""
    assert int(SETTINGS["TimeoutStopSec"]) >= drain_seconds(COMMAND[2:]) + 10


def test_no_setting_is_written_twice() -> None:
    """But for the one that is a list."""
    names = [line.partition("=")[0] for line in LINES]
    assert {name for name in names if names.count(name) > 1} == {"SystemCallFilter"}
