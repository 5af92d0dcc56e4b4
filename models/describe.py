"""A configuration of foveal's own in a few words."""

from __future__ import annotations

from .architecture import Description
from .config import ModelConfig


def describe(config: ModelConfig) -> Description:
    """What a model of this configuration is."""
    is_vanilla = config.architecture == "hourglass" and config.levels.is_vanilla
    return Description(
        architecture="vanilla" if is_vanilla else config.architecture,
        hierarchy=str(config.levels),
        vocab_size=config.vocab_size,
        dim=config.dim,
        max_positions=config.max_positions if config.positions == "learned" else None,
        context=config.max_positions,
    )
