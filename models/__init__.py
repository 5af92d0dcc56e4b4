"""PyTorch models, the checkpoints that come with foveal, and readers of other people's."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .architecture import Architecture, Description, Stage, StageModule, count_parameters
    from .cache import State
    from .layers.stack_stage import StackStage, stack_stage
    from .spans import Spans

SHIPPED = {name: Path(__file__).parent / "checkpoints" / name for name in ("hourglass", "top_down", "vanilla")}
"""Trained checkpoint directories inside the package, each with a model card (README.md)."""
SHIPPED_BYTES = {
    name: Path(__file__).parent / "checkpoints" / name
    for name in (
        *("bytes_dynamic", "bytes_hourglass", "bytes_mixed", "bytes_vanilla"),
        *("bytes_1k_bottom_up", "bytes_1k_hourglass", "bytes_1k_vanilla"),
    )
}
"""Likewise, of bytes: one that decides when it fires, two that do not, and one that knows tunes and code beside novels; and
three of equal training compute with a context of 1,024."""
SHIPPED_TEXT = {name: Path(__file__).parent / "checkpoints" / "text" / f"{name}.txt" for name in ("calibration", "evaluation")}
"""English prose: some the checkpoints were trained on, to calibrate with, and some they were not, to measure losses on."""

_PLACES = {
    "Architecture": ".architecture",
    "Description": ".architecture",
    "Spans": ".spans",
    "StackStage": ".layers.stack_stage",
    "Stage": ".architecture",
    "StageModule": ".architecture",
    "State": ".cache",
    "count_parameters": ".architecture",
    "stack_stage": ".layers.stack_stage",
}
__all__ = [
    "SHIPPED",
    "SHIPPED_BYTES",
    "SHIPPED_TEXT",
    "Architecture",
    "Description",
    "Spans",
    "StackStage",
    "Stage",
    "StageModule",
    "State",
    "count_parameters",
    "stack_stage",
]


def __getattr__(name: str) -> Any:
    """Import what a model of your own needs, and torch with it, when it is first asked for."""
    if name in _PLACES:
        return getattr(import_module(_PLACES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
