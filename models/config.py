"""What a foveal language model is, as data: the `config.json` of a checkpoint directory."""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec

from ..errors import ConfigError
from ..hierarchy import Hierarchy

Positions = Literal["learned", "rotary"]
Shortening = Literal["average", "linear", "attention", "linear+attention"]
Upsampling = Literal["repeat", "linear", "attention", "linear+attention"]


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes and choices of one Hourglass (or, with a single level, one vanilla Transformer).

    `"attention"` resampling is lucidrains' form: after averaging (or a linear pooling) each coarse vector attends to its
    own group, and each fine vector receives the attention's value of its coarse vector, then a feed-forward block.

    Raises:
        ConfigError: sizes that contradict each other, or a malformed hierarchy.
    """

    hierarchy: str
    vocab_size: int
    dim: int
    heads: int
    head_dim: int
    ff_dim: int
    max_positions: int
    positions: Positions = "learned"
    shortening: Shortening = "average"
    upsampling: Upsampling = "repeat"
    tie_embeddings: bool = True
    head_bias: bool = False
    norm_eps: float = 1e-5
    rope_base: float = 10_000.0

    def __post_init__(self) -> None:
        Hierarchy.parse(self.hierarchy)
        for name in ("vocab_size", "dim", "heads", "head_dim", "ff_dim", "max_positions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.positions == "rotary" and self.head_dim % 2:
            raise ConfigError(f"rotary positions rotate pairs: head_dim must be even, got {self.head_dim}")

    @property
    def levels(self) -> Hierarchy:
        """The parsed hierarchy."""
        return Hierarchy.parse(self.hierarchy)


def one_of(choices: Any, given: str, name: str) -> Any:
    """Narrow a string to one of a Literal's values; raises ConfigError that lists them."""
    if given not in get_args(choices):
        raise ConfigError(f'{name} is "{given}", expected one of {", ".join(get_args(choices))}')
    return given
