"""Nothing is ever lost: commands are killed at random points, and places at every point."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("processes are forked and killed", allow_module_level=True)

TESTS = Path(__file__).parent
KILLS = int(os.environ.get("FOVEAL_KILLS", "4"))
"""Of each command; `make kill-test` asks for 100."""


def run(script: str, *arguments: str) -> str:
    """A test's helper in a process of its own, which has no threads that a fork would lose."""
    done = subprocess.run([sys.executable, TESTS / script, *arguments], capture_output=True, text=True, cwd=TESTS)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", ["new", "one exchange", "two renames", "in place"])
def test_a_place_survives_a_kill_at_every_call_to_the_file_system(kind: str) -> None:
    """The old or the new directory is there, whole, other people's files too; and nothing else. What is left is cleared."""
    assert int(run("kill_places.py", kind)) > 20


@pytest.mark.parametrize("command", ["calibrate", "build", "add", *(["convert"] if KILLS >= 100 else [])])
def test_a_bundle_survives_kills(command: str, tmp_path: Path) -> None:
    """Of real commands at random points: old or new, whole; the next command finds nothing of the killed one."""
    outcome = json.loads(run("kill_commands.py", str(tmp_path), str(KILLS), "1", command))
    print(outcome)
    assert outcome["problems"] == []
    assert outcome["kills"] >= KILLS // 2
