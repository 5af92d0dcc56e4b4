"""How long a conversion takes, beside that of another checkout: the figures of docs/performance.md.

python -m foveal.bench.conversion --against ../other/.venv/bin/python models/checkpoints/hourglass
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from ..files import scratch_directory
from .script import run_script

_CONVERT = "import sys, foveal.export; foveal.export.convert(sys.argv[1], sys.argv[2])"
_NOTHING = "import torch, torch.export._trace, foveal.export.conversion"  # what a conversion takes before it begins


class Seconds(NamedTuple):
    """Of one process: on the clock, and of processors."""

    wall: float
    cpu: float


def main() -> None:
    """Convert each checkpoint in new processes of both checkouts, in turn, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--against", required=True, help="the python of another checkout's environment")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    table = Table("checkpoint", "before, s", "now, s", "before, CPU s", "now, CPU s", "as quick", box=None)
    pythons = (given.against, sys.executable)
    table.add_row("(imports alone)", *compare(pythons, given.rounds, _NOTHING))
    for checkpoint in given.checkpoints:
        table.add_row(checkpoint.name, *compare(pythons, given.rounds, _CONVERT, checkpoint.resolve()))
    Console().print(table)


def compare(pythons: tuple[str, str], rounds: int, code: str, *arguments: Path) -> list[str]:
    """Medians of both interpreters' processes, in rounds that alternate, as cells of the table."""
    found = [[run(python, code, *arguments) for python in pythons] for _ in range(rounds)]
    before, now = (Seconds(*map(median, zip(*samples, strict=True))) for samples in zip(*found, strict=True))
    times = [f"{value:.1f}" for value in (before.wall, now.wall, before.cpu, now.cpu)]
    return [*times, f"{before.cpu / now.cpu:.1f}x"]


def run(python: str, code: str, *arguments: Path) -> Seconds:
    """Run code in a new process on one thread, so that its CPU seconds are work and no waiting."""
    with scratch_directory() as directory:
        command = [python, "-c", code, *map(str, arguments), str(directory / "out")]
        before, began = os.times(), perf_counter()
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return Seconds(perf_counter() - began, spent)


if __name__ == "__main__":
    run_script(main)
