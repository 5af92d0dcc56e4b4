"""Whatever is damaged, nothing but a named error comes of it, in one line, and nothing hangs; `make fuzz` runs 10,000."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("mutants run in forked workers with limits on time and memory", allow_module_level=True)

TESTS = Path(__file__).parent
MUTANTS, SEED = int(os.environ.get("FOVEAL_MUTANTS", "150")), int(os.environ.get("FOVEAL_SEED", "0"))


def test_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    """Checkpoints of every layout, bundles whose hashes were made to fit, plans, calibrations, training runs."""
    command = [sys.executable, "fuzz.py", str(tmp_path), str(SEED), str(MUTANTS)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=TESTS)
    assert done.returncode == 0, done.stderr
    *wrong, summary = done.stdout.splitlines()
    print(done.stdout)
    assert json.loads(summary)["mutants"] == MUTANTS
    assert wrong == []
