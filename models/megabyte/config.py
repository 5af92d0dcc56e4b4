"""What a MEGABYTE is, as data."""

from __future__ import annotations

import math

import msgspec

from ...errors import ConfigError
from ...hierarchy import Hierarchy, Level
from ..config import LayerConfig

NORM_EPS = 1e-8
ROTARY_BASE = 10_000.0


class MegabyteConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes of a MEGABYTE of any number of scales, coarse first.

    Attributes:
        dims: widths of the scales, and `depths`: their layers.
        lengths: rows of a scale for each row of the next coarser one; of the coarsest, how many the model was trained on.
        rotary: whether attention rotates, and `learned_positions`: whether each scale has a table. Both may be, or neither.

    Raises:
        ConfigError: sizes that contradict each other.
    """

    vocab_size: int
    dims: tuple[int, ...]
    depths: tuple[int, ...]
    lengths: tuple[int, ...]
    heads: int
    head_dim: int
    ff_mult: int = 4
    rotary: bool = False
    learned_positions: bool = False

    def __post_init__(self) -> None:
        scales = {"dims": len(self.dims), "depths": len(self.depths), "lengths": len(self.lengths)}
        if not self.depths or len(set(scales.values())) > 1:
            found = ", ".join(f"{count} {name}" for name, count in scales.items())
            raise ConfigError(f"every scale has one width, one depth and one length, got {found}")
        for name in ("vocab_size", "heads", "head_dim", "ff_mult"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if min(self.dims) < 2:
            raise ConfigError(f"token shift halves every vector: widths must be at least 2, got {min(self.dims)}")
        if self.lengths[0] < 1 or min(self.lengths[1:], default=2) < 2:
            raise ConfigError(f"a scale inside another has at least 2 rows for each of its, got lengths {list(self.lengths)}")
        if min(self.depths) < 0 or not any(self.depths):
            raise ConfigError(f"there must be layers, got depths {list(self.depths)}")
        if self.rotary and self.head_dim % 2:
            raise ConfigError(f"rotary positions rotate pairs: head_dim must be even, got {self.head_dim}")

    @property
    def strides(self) -> tuple[int, ...]:
        """Tokens for each row of a scale; 1 of the last."""
        return tuple(math.prod(self.lengths[scale + 1 :]) for scale in range(len(self.lengths)))

    @property
    def hierarchy(self) -> Hierarchy:
        """Layers and strides, coarse first."""
        return Hierarchy(tuple(map(Level, self.depths, self.strides)))

    @property
    def trained_tokens(self) -> int:
        """Tokens of the sequences that it was trained on."""
        return math.prod(self.lengths)

    def layer(self, scale: int) -> LayerConfig:
        """What the layers of a scale are like."""
        return LayerConfig(
            dim=self.dims[scale],
            heads=self.heads,
            head_dim=self.head_dim,
            ff_dim=self.ff_mult * self.dims[scale],
            norm="rms",
            norm_eps=NORM_EPS,
            out_bias=False,
            rotary_base=ROTARY_BASE if self.rotary else None,
        )
