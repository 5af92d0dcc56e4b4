"""Draw validation curves of training runs against the arithmetic spent: the picture in docs/training.md.

python -m foveal.bench.curves OUT.svg CHECKPOINT...
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib

from ..json_files import decode
from ..models.train import TrainReport


def draw(out: Path, checkpoints: Sequence[Path]) -> None:
    """Write an SVG, the same bytes for the same runs.

    Raises:
        OSError, msgspec.DecodeError: a checkpoint has no readable `training.json`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for checkpoint in checkpoints:
        report = decode((checkpoint / "training.json").read_bytes(), TrainReport)
        petaflops = [point.tokens * report.flops_per_token / 1e15 for point in report.curve]
        axes.plot(petaflops, [point.valid_bits_per_byte for point in report.curve], marker=".", label=checkpoint.name)
    axes.set(xlabel="training compute, 1e15 operations", ylabel="validation, bits per byte")
    axes.grid(alpha=0.3)
    axes.legend()
    with matplotlib.rc_context({"svg.hashsalt": "foveal", "svg.fonttype": "none"}):
        figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(sys.argv[1]), [Path(argument) for argument in sys.argv[2:]])
