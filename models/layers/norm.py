"""The norm in front of attention and feed forward."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import LayerConfig


class RMSNorm(nn.Module):
    """`x / rms(x) * scale`, where the root mean square is at least `eps` (MEGABYTE-pytorch's `RMSNorm`)."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """`[..., D]` -> `[..., D]`."""
        rms = x.square().mean(-1, keepdim=True).sqrt()
        y: Tensor = x / rms.clamp(min=self.eps) * self.scale
        return y


def norm_of(config: LayerConfig) -> nn.LayerNorm | RMSNorm:
    """A new norm of width D."""
    if config.norm == "rms":
        return RMSNorm(config.dim, config.norm_eps)
    return nn.LayerNorm(config.dim, eps=config.norm_eps)
