"""The original model's weights under names that need no knowledge of foveal, for peers that build it anew."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Affine:
    """A norm `[D]`, or a product `[out, in]` with its bias `[out]`."""

    weight: Array
    bias: Array


@dataclass(frozen=True)
class Layer:
    """Pre-norm: `x + out(attention(norm(x)))`, then `x + down(gelu(up(norm(x))))`. `qkv` has no bias."""

    norm: Affine
    qkv: Array
    out: Affine
    second_norm: Affine
    up: Affine
    down: Affine


@dataclass(frozen=True)
class Vanilla:
    """A vanilla Transformer with learned positions: exact GELU, a layer norm before the tied head."""

    heads: int
    epsilon: float
    tokens: Array  # [V, D]
    positions: Array  # [context, D]
    layers: list[Layer]
    norm: Affine

    @property
    def dim(self) -> int:
        """D."""
        return int(self.tokens.shape[1])


def read_vanilla(original: Path) -> Vanilla:
    """The model of a folder that `write_original` wrote.

    Raises:
        ValueError: a hierarchy of more than one scale, which only foveal runs.
    """
    config, weights = json.loads((original / "config.json").read_text()), load_file(original / "model.safetensors")
    layers, _, factor = config["hierarchy"].partition("@")
    if factor != "1":
        raise ValueError(f"expected a vanilla model, as 12@1, got {config['hierarchy']}")

    def affine(name: str) -> Affine:
        return Affine(weights[f"{name}.weight"], weights[f"{name}.bias"])

    def layer(name: str) -> Layer:
        inner = f"{name}.feed_forward"
        return Layer(
            norm=affine(f"{name}.norm"),
            qkv=weights[f"{name}.attention.qkv.weight"],
            out=affine(f"{name}.attention.out"),
            second_norm=affine(f"{inner}.norm"),
            up=affine(f"{inner}.up"),
            down=affine(f"{inner}.down"),
        )

    return Vanilla(
        heads=config["heads"],
        epsilon=config["norm_eps"],
        tokens=weights["embed.tokens.weight"],
        positions=weights["embed.positions.weight"],
        layers=[layer(f"root.layers.{index}") for index in range(int(layers))],
        norm=affine("head.norm"),
    )
