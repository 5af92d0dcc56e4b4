"""Rows of a coarse scale, each mixed with those before it by the chance that it was worth a chunk (H-Net, equation 8).

`s[f] = P[f] z[f] + (1 - P[f]) s[f-1]`, where P is the router's chance for the row that firing f was picked from. The original
keeps P away from 0 and 1, and in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...contract import CacheSpec
from ..cache import State
from ..layers.fade import fades

SMOOTH = "smooth"
"""The cache of mixed rows."""
_LEAST = 1e-4


def smooth(z: Tensor, chances: Tensor) -> Tensor:
    """Whole sequences of rows `[B, F, D]` with their chances `[B, F]`, one after the other as the equation says."""
    weights = _weights(chances)
    new, kept = (weight.to(z.dtype)[:, :, None] for weight in (weights, 1 - weights))
    mixed = [z.new_zeros(z.shape[0], z.shape[2])]
    for row in range(z.shape[1]):
        mixed.append(new[:, row] * z[:, row] + kept[:, row] * mixed[-1])
    return torch.stack(mixed[1:], 1)


def smooth_step(z: Tensor, chances: Tensor, state: State) -> Tensor:
    """The next rows `[B, L, D]` with their chances `[B, L]`, as sums over the earlier ones of them and the row before."""
    first = state.positions(z.shape[1])[:, :1].expand(z.shape[0], -1)  # [B, 1]
    places = (first - 1).clamp(min=0)[:, :, None].expand(-1, -1, z.shape[2])
    before = torch.where(first[:, :, None] == 0, 0.0, state.read(SMOOTH)[:, 0].gather(1, places))  # [B, 1, D]
    weights = _weights(chances)
    between = fades((1 - weights).log())  # [B, L, L]
    mixed = (between * weights[:, None]).to(z.dtype) @ z + (between[..., :1] * (1 - weights[:, :1, None])).to(z.dtype) * before
    written = state.write(SMOOTH, mixed[:, None], first[:, 0])[:, 0]
    return written.gather(1, state.positions(z.shape[1])[:, :, None].expand(*z.shape))


def smooth_cache(dim: int) -> CacheSpec:
    """All rows so far, so that any of them can be taken back."""
    return CacheSpec(name=SMOOTH, heads=1, width=dim)


def _weights(chances: Tensor) -> Tensor:
    return chances.float().clamp(_LEAST, 1 - _LEAST)
