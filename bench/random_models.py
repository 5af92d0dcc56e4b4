"""Models of random weights, for timing architectures that nobody has trained."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..calibration.settings import CalibrationSettings
from ..progress import Progress
from .eager import EagerModel

if TYPE_CHECKING:
    from ..models.hourglass import Hourglass

CALIBRATION_TOKENS = 16_384  # random weights do not deserve more


@dataclass(frozen=True)
class RandomModels:
    """Sizes that all models of one benchmark share; `context` is their number of learned positions."""

    dim: int
    heads: int
    ff_dim: int
    vocab_size: int
    context: int

    def build(self, hierarchy: str) -> Hourglass:
        """A model of random weights, the same at every call."""
        import torch

        from ..models.config import ModelConfig
        from ..models.hourglass import Hourglass

        torch.manual_seed(0)
        config = ModelConfig(
            hierarchy=hierarchy,
            vocab_size=self.vocab_size,
            dim=self.dim,
            heads=self.heads,
            head_dim=self.dim // self.heads,
            ff_dim=self.ff_dim,
            max_positions=self.context,
        )
        return Hourglass(config).eval()

    def convert(
        self,
        hierarchies: Sequence[str],
        directory: Path,
        on_progress: Progress,
        precisions: Sequence[str] = ("fp32",),
        calibration: Sequence[Path] = (),
    ) -> list[Path]:
        """Write a bundle for each hierarchy and precision, named after them; calibration text is read as bytes."""
        from ..export import build, convert_model

        settings = CalibrationSettings(max_tokens=CALIBRATION_TOKENS)
        paths = []
        for hierarchy in hierarchies:
            full = directory / hierarchy
            convert_model(self.build(hierarchy), full, tokenizer="bytes", on_progress=on_progress)
            for precision in precisions:
                path = full if precision == "fp32" else directory / f"{hierarchy} {precision}"
                if path != full:
                    build(full, path, precision, calibration=calibration, settings=settings, on_progress=on_progress)
                paths.append(path)
        return paths

    def eager(self, hierarchies: Sequence[str], threads: int | None) -> list[EagerModel]:
        """The same models for PyTorch, on so many threads (None: all CPUs)."""
        count = threads or len(os.sched_getaffinity(0))
        return [EagerModel(f"{hierarchy} (PyTorch)", self.build(hierarchy), count) for hierarchy in hierarchies]
