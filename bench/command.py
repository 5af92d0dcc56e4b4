"""What a system's tool says, or why it says nothing."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

_PATIENCE_S = 20  # nvidia-smi without the persistence daemon first wakes the driver


def output_of(command: Sequence[str]) -> tuple[str | None, str | None]:
    """A command's standard output, stripped, and None; or None and the reason there is none, in a few words."""
    if shutil.which(command[0]) is None:
        return None, f"{command[0]} is not on PATH"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"{command[0]} failed: {error}"
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[0]
        return None, f"{command[0]} failed: {said}"
    return done.stdout.strip(), None
