"""From a configuration to its model."""

from __future__ import annotations

from .bottom_up import BottomUp
from .config import ModelConfig
from .dynamic.model import Dynamic
from .hourglass.model import Hourglass
from .retina.model import Retina
from .top_down import TopDown

OwnModel = Hourglass | TopDown | BottomUp | Retina | Dynamic
"""Models that a `ModelConfig` describes."""

_MODELS: dict[str, type[OwnModel]] = {
    "hourglass": Hourglass,
    "top-down": TopDown,
    "bottom-up": BottomUp,
    "retina": Retina,
    "dynamic": Dynamic,
}


def build_model(config: ModelConfig) -> OwnModel:
    """A model with random weights."""
    return _MODELS[config.architecture](config)
