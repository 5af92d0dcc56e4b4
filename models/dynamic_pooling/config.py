"""What a model with dynamic token pooling is, as data."""

from __future__ import annotations

from typing import Literal

import msgspec

from ...errors import ConfigError
from ..config import LayerConfig

Boundaries = Literal["none", "fixed", "whitespaces", "unigram", "entropy", "gumbel"]
Activation = Literal["relu", "gelu"]
PREDICTED = ("unigram", "entropy", "gumbel")
"""Boundaries that a network predicts; the names say what it was trained on."""
EXPECTED_TOKENS = 5.0
"""Tokens for each firing of the coarse tower, for forecasts, where nothing says otherwise."""


class DynamicPoolingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes and choices of a `DynamicPooling`.

    Attributes:
        layers: of the first tower, the coarse one and the last one; of a vanilla Transformer, of its only one.
        boundaries: after which tokens a group closes: never, as there are no groups (`none`); every `stride` tokens, from the
            first on (`fixed`); at the tokens `ids` (`whitespaces`); or where a network says so.
        tokens_per_firing: to expect of the data, for forecasts.
        context: the most tokens of a session: engines hold a table of all distances within it.

    Raises:
        ConfigError: sizes that contradict each other.
    """

    vocab_size: int
    dim: int
    heads: int
    head_dim: int
    ff_dim: int
    layers: tuple[int, int, int]
    boundaries: Boundaries
    context: int
    activation: Activation = "relu"
    stride: int | None = None
    ids: tuple[int, ...] = ()
    tokens_per_firing: float = EXPECTED_TOKENS

    def __post_init__(self) -> None:
        for name in ("vocab_size", "dim", "heads", "head_dim", "ff_dim", "context"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.dim % 2:
            raise ConfigError(f"half of the columns of positions are sines: dim must be even, got {self.dim}")
        if min(self.layers) < 0 or not any(self.layers):
            raise ConfigError(f"there must be layers, got {list(self.layers)}")
        if self.is_vanilla != (self.boundaries == "none"):
            raise ConfigError(
                f'a model of {list(self.layers)} layers has the boundaries "{self.boundaries}", expected layers of the first '
                'tower alone for "none", and of the coarse or the last one for all others'
            )
        if (self.stride is not None) != (self.boundaries == "fixed"):
            raise ConfigError(
                f'the boundaries "fixed", and no others, have a stride, got {self.stride} for "{self.boundaries}"'
            )
        if self.stride is not None and self.stride < 1:
            raise ConfigError(f"the stride of fixed boundaries must be at least 1, got {self.stride}")
        if bool(self.ids) != (self.boundaries == "whitespaces"):
            raise ConfigError(
                f'the boundaries "whitespaces", and no others, are at token ids, got {list(self.ids)} for "{self.boundaries}"'
            )
        if self.ids and not 0 <= min(self.ids) <= max(self.ids) < self.vocab_size:
            raise ConfigError(f"the ids of boundaries must be in [0, {self.vocab_size}), got {list(self.ids)}")

    @property
    def is_vanilla(self) -> bool:
        """Whether there is one tower only."""
        return self.layers[1:] == (0, 0)

    @property
    def is_predicted(self) -> bool:
        """Whether a network says where groups close."""
        return self.boundaries in PREDICTED

    @property
    def hierarchy(self) -> str:
        """Layers and strides of the towers; the stride that the data decides is about so many tokens."""
        first, coarse, last = self.layers
        if self.is_vanilla:
            return f"{first}@1"
        stride = f"~{self.tokens_per_firing:g}" if self.stride is None else str(self.stride)
        return f"{first}@1 {coarse}@{stride} {last}@1"

    @property
    def layer(self) -> LayerConfig:
        """What every layer is like, but for its activation and the places of its norms."""
        return LayerConfig(dim=self.dim, heads=self.heads, head_dim=self.head_dim, ff_dim=self.ff_dim, qkv_bias=True)
