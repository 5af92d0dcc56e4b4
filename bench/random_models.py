"""Models of random weights, for timing architectures that nobody has trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..calibration.settings import CalibrationSettings
from ..calibration.text import require_texts
from ..errors import ConfigError
from ..models.config import architecture_of
from ..models.sizes import Sizes
from ..progress import Progress
from .eager import EagerModel

if TYPE_CHECKING:
    from ..models.architectures import OwnModel
    from ..models.config import Architecture

CALIBRATION_TOKENS = 16_384  # random weights do not deserve more


@dataclass(frozen=True)
class RandomModels(Sizes):
    """Models of random weights, whose sizes all of one benchmark share."""

    def build(self, hierarchy: str, architecture: Architecture | None = None) -> OwnModel:
        """A model of random weights, the same at every call; None: of the architecture that has its levels in this order.

        One that decides its schedule itself fires as often as its hierarchy says on random tokens.

        Raises:
            ConfigError: a malformed hierarchy, or one that the architecture can't have.
        """
        import torch

        from ..models.architectures import build_model
        from ..models.dynamic.model import Dynamic

        torch.manual_seed(0)
        model = build_model(self.config(hierarchy, architecture)).eval()
        if isinstance(model, Dynamic):
            model.aim(torch.randint(0, self.vocab_size, (8, min(self.context, 512))))
        return model

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
        from ..export.building import plan_of, require_text

        for precision in precisions:  # what can't be is said before the first of them is exported
            require_text(plan_of(precision), calibration)
        require_texts(calibration, True, "a model of bytes")
        settings = CalibrationSettings(max_tokens=CALIBRATION_TOKENS) if calibration else None
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

    def eager(self, hierarchies: Sequence[str]) -> list[EagerModel]:
        """The same models for PyTorch.

        Raises:
            ConfigError: other models than Hourglass and vanilla ones, which have no decoding of their own in PyTorch.
        """
        for hierarchy in hierarchies:
            if architecture_of(hierarchy) != "hourglass":
                raise ConfigError(
                    f'only Hourglass and vanilla models can be decoded with PyTorch\'s own caches, got "{hierarchy}"; '
                    "leave --eager out"
                )
        return [EagerModel(f"{hierarchy} (PyTorch)", self.build(hierarchy)) for hierarchy in hierarchies]
