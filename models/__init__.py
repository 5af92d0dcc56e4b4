"""PyTorch models, the checkpoints that come with foveal, and readers of other people's."""

from pathlib import Path

SHIPPED = {name: Path(__file__).parent / "checkpoints" / name for name in ("hourglass", "vanilla")}
"""Trained checkpoint directories inside the package, each with a model card (README.md)."""
SHIPPED_TEXT = {name: Path(__file__).parent / "checkpoints" / "text" / f"{name}.txt" for name in ("calibration", "evaluation")}
"""English prose: some the checkpoints were trained on, to calibrate with, and some they were not, to measure losses on."""
