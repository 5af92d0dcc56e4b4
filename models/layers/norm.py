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


class RMSNormEps(nn.Module):
    """`x / sqrt(mean(x ** 2) + eps) * scale` (arXiv 1910.07467, as Llama has it).

    Written as ONNX Runtime and TensorRT find it and make one kernel of it: dialects of older opsets have no such operator.
    """

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """`[..., D]` -> `[..., D]`."""
        y: Tensor = x / (x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt() * self.scale
        return y


def norm_of(config: LayerConfig) -> nn.LayerNorm | RMSNorm | RMSNormEps:
    """A new norm of width D."""
    if config.norm == "rms_eps":
        return RMSNormEps(config.dim, config.norm_eps)
    if config.norm == "rms":
        return RMSNorm(config.dim, config.norm_eps)
    return nn.LayerNorm(config.dim, eps=config.norm_eps)
