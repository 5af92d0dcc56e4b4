"""Rotary position embedding (RoFormer, arXiv 2104.09864), in the half-split form of GPT-NeoX."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Rotary(nn.Module):
    """Angles for positions counted at the stack's own rate: row i of a stride-16 scale is position i, not 16 i."""

    inverse_frequency: Tensor

    def __init__(self, head_dim: int, base: float) -> None:
        super().__init__()
        exponent = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
        self.register_buffer("inverse_frequency", base**-exponent, persistent=False)

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Turn positions `[B, L]` into cosines and sines `[B, 1, L, head_dim / 2]`, fp32."""
        angles = positions[:, None, :, None].float() * self.inverse_frequency
        return angles.cos(), angles.sin()


def rotate(x: Tensor, rope: tuple[Tensor, Tensor] | None) -> Tensor:
    """Rotate queries or keys `[B, H, L, D]`; None leaves them as they are."""
    if rope is None:
        return x
    cos, sin = (part.to(x.dtype) for part in rope)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
