"""Rows of a coarse scale, each mixed with those before it by the chance that it was worth a chunk (H-Net, equation 8).

`s[f] = P[f] z[f] + (1 - P[f]) s[f-1]`, where P is the router's chance for the row that firing f was picked from. The original
keeps P away from 0 and 1, and in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..cache import State
from ..layers.fade import fades
from .last_row import LastRow

SMOOTH = "smooth"
"""What is kept of the last row: the mixed one."""
_LEAST = 1e-4


def smooth(z: Tensor, chances: Tensor) -> Tensor:
    """Whole sequences of rows `[B, F, D]` with their chances `[B, F]`, one after the other as the equation says."""
    new, kept = (weight.to(z.dtype)[:, :, None] for weight in _weights(chances))
    mixed = [z.new_zeros(z.shape[0], z.shape[2])]
    for row in range(z.shape[1]):
        mixed.append(new[:, row] * z[:, row] + kept[:, row] * mixed[-1])
    return torch.stack(mixed[1:], 1)


def smooth_step(z: Tensor, chances: Tensor, last: LastRow, state: State) -> Tensor:
    """The next rows `[B, L, D]` with their chances `[B, L]`, as sums over the earlier ones of them and the mixed row before."""
    before, (new, kept) = last.read(z.shape[1], state), _weights(chances)
    between = fades(kept.log())  # [B, L, L]
    old = between[..., :1] * kept[:, :1, None]  # [B, L, 1]
    mixed = (between * new[:, None]).to(z.dtype) @ z + old.to(z.dtype) * before
    last.keep(torch.cat((before, mixed), 1), state)
    return mixed


def _weights(chances: Tensor) -> tuple[Tensor, Tensor]:
    """Of the new row, and of those before; `1 - x` is spelled as what an exporter has a name for."""
    new = chances.float().clamp(_LEAST, 1 - _LEAST)
    return new, -new + 1
