"""Makes the bundles that claims are measured on, each once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...calibration.settings import CalibrationSettings
from ...models import SHIPPED_TEXT
from ...progress import Progress, silent
from ..random_models import CALIBRATION_TOKENS, RandomModels
from .settings import Case


@dataclass(frozen=True)
class Workshop:
    """Bundles in a directory, which are made when they are first asked for."""

    directory: Path
    report: Progress = silent
    calibration_tokens: int = CALIBRATION_TOKENS

    def random(self, sizes: RandomModels, case: Case, precision: str = "fp32") -> Path:
        """A model of random weights; other precisions learn their ranges from the text that comes with foveal, as bytes."""
        from ...export import build, convert_model

        path = self.directory / f"{sizes.positions} {sizes.context}" / f"{case.name}, {precision}"
        if path.exists():
            return path
        if precision == "fp32":
            convert_model(sizes.build(case.hierarchy, case.given), path, tokenizer="bytes", on_progress=self.report)
        else:
            settings = CalibrationSettings(max_tokens=self.calibration_tokens)
            text = [SHIPPED_TEXT["calibration"]]
            full = self.random(sizes, case)
            build(full, path, precision, calibration=text, settings=settings, on_progress=self.report)
        return path

    def trained(self, name: str, checkpoint: Path) -> Path:
        """A trained checkpoint, in fp32."""
        from ...export import convert

        path = self.directory / "trained" / name
        if not path.exists():
            convert(checkpoint, path, on_progress=self.report)
        return path
