"""Rotary position embedding (RoFormer, arXiv 2104.09864), in the half-split form of GPT-NeoX."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import LayerConfig


class Rotary(nn.Module):
    """Angles for positions counted at the stack's own rate: row i of a stride-16 scale is position i, not 16 i."""

    inverse_frequency: Tensor

    def __init__(self, config: LayerConfig) -> None:
        super().__init__()
        if config.rotary_base is None:
            raise TypeError("a stack without rotary positions has no angles")
        dims = config.rotary_dims or config.head_dim
        exponent = torch.arange(0, dims, 2, dtype=torch.float32) / dims
        self.register_buffer("inverse_frequency", config.rotary_base**-exponent, persistent=False)

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Turn positions `[B, L]` into cosines and sines `[B, 1, L, dims / 2]`, fp32."""
        angles = positions[:, None, :, None].float() * self.inverse_frequency
        return angles.cos(), angles.sin()


def halved(x: Tensor, dims: int) -> Tensor:
    """Put the pairs (0, 1), (2, 3), ... of the first `dims` of `[..., D]` where `rotate` expects pairs: 0, 2, ..., 1, 3, ...

    Scores are the same in whatever order queries and keys both have their dimensions, so nothing is put back after a rotation.
    """
    turned, rest = x[..., :dims], x[..., dims:]
    return torch.cat((turned[..., 0::2], turned[..., 1::2], rest), dim=-1)


def rotate(x: Tensor, rope: tuple[Tensor, Tensor] | None) -> Tensor:
    """Rotate the first dimensions of queries or keys `[B, H, L, D]`, as many as there are angles for; None: none."""
    if rope is None:
        return x
    cos, sin = (part.to(x.dtype) for part in rope)
    dims = 2 * cos.shape[-1]
    turned, rest = (x, None) if dims == x.shape[-1] else (x[..., :dims], x[..., dims:])
    first, second = turned.chunk(2, dim=-1)
    parts = (first * cos - second * sin, second * cos + first * sin)
    return torch.cat(parts if rest is None else (*parts, rest), dim=-1)
