"""What an H-Net is, as data."""

from __future__ import annotations

import re

import msgspec

from ...errors import ConfigError
from ..config import LayerConfig, head_dim_of, require_depth
from ..layers.mamba2 import Mamba2Config

LAYERS = "mMtT"
"""Kinds of layers: Mamba-2 and attention, in capitals with a feed-forward block behind it."""
_MULTIPLE = 128
_BASE = 10_000.0
_RUN = re.compile(rf"([{LAYERS}])(\d+)")


def layers_of(layout: str) -> str:
    """A tower's layers, a letter for each: `"T1m2"` -> `"Tmm"`; raises ConfigError if it is written otherwise."""
    if re.sub(_RUN, "", layout) or not layout:
        raise ConfigError(f'a tower has the layers "{layout}", expected letters of {LAYERS}, each with a number, such as T1m4')
    return "".join(kind * require_depth(int(count)) for kind, count in _RUN.findall(layout))


class ScaleConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes of the towers of one scale; the innermost has one, the others an encoder and a decoder.

    Attributes:
        towers: layers of the encoder and the decoder, or of the only one, as the original writes them: `("m4", "m4")`.
        ff_dim: of the feed-forward blocks, rounded up to a multiple of 128 as the original does.
        rotary_dims: of each head, that are turned; 0: positions are not known.
        window: rows that attention sees, its own among them; None: all before it.
    """

    towers: tuple[str, ...]
    dim: int
    heads: int = 1
    ff_dim: int = 0
    rotary_dims: int = 0
    window: int | None = None

    def layer(self) -> LayerConfig:
        """Of its attention layers; raises ConfigError for sizes that contradict each other."""
        head_dim = head_dim_of(self.dim, self.heads)
        if self.rotary_dims % 2 or not 0 <= self.rotary_dims <= head_dim:
            raise ConfigError(f"rotary_dims must be even and at most a head's {head_dim}, got {self.rotary_dims}")
        if self.window is not None and self.window < 1:
            raise ConfigError(f"a window sees at least 1 row, got {self.window}")
        return LayerConfig(
            dim=self.dim,
            heads=self.heads,
            head_dim=head_dim,
            ff_dim=-(-self.ff_dim // _MULTIPLE) * _MULTIPLE,
            ff_bias=False,
            norm="rms_eps",
            activation="swiglu",
            out_bias=False,
            rotary_base=_BASE if self.rotary_dims else None,
            rotary_dims=self.rotary_dims or None,
            window=self.window,
        )


class HNetConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes of an H-Net.

    Attributes:
        scales: outermost first.
        state, taps, expand: of its Mamba-2 layers (`d_state`, `d_conv`, `expand`).
        tied: the head's weights are the token table.
        context: tokens that it was trained on.
        chunk: rows of a scale that are expected to make one of the next, for people and plans: nothing is computed with it.

    Raises:
        ConfigError: sizes that contradict each other.
    """

    vocab_size: int
    scales: tuple[ScaleConfig, ...]
    state: int = 128
    taps: int = 4
    expand: int = 2
    tied: bool = False
    context: int = 8192
    chunk: float = 4.5

    def __post_init__(self) -> None:
        if len(self.scales) < 2:
            raise ConfigError(f"an H-Net has at least 2 scales, got {len(self.scales)}; one alone makes no chunks")
        for name in ("vocab_size", "context", "chunk"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for place, scale in enumerate(self.scales):
            towers = 1 if place == len(self.scales) - 1 else 2
            if len(scale.towers) != towers:
                raise ConfigError(f"scale {place} has {len(scale.towers)} towers, expected {towers}")
            layers = "".join(map(layers_of, scale.towers))
            if scale.ff_dim < 1 and set(layers) & set("MT"):
                raise ConfigError(
                    f"scale {place} has layers with feed forward, so that ff_dim must be at least 1, got {scale.ff_dim}"
                )
            if place and scale.dim < self.scales[place - 1].dim:
                raise ConfigError(
                    f"scale {place} is {scale.dim} wide, expected at least the {self.scales[place - 1].dim} of the one around"
                )

    def mamba(self, dim: int) -> Mamba2Config:
        """Of the Mamba-2 layers of a tower so wide."""
        return Mamba2Config(dim=dim, state=self.state, taps=self.taps, expand=self.expand)
