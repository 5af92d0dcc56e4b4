"""Token shift (RWKV, as in MEGABYTE-pytorch): the second half of every row is replaced by that of the row before."""

from __future__ import annotations

import torch
from torch import Tensor

from ..cache import State


def moved_half(x: Tensor) -> Tensor:
    """The half of rows `[B, L, D]` that goes to the next row, `[B, L, D // 2]`: the smaller one."""
    return x.chunk(2, dim=-1)[1]


def token_shift(x: Tensor, before: Tensor | None = None) -> Tensor:
    """Rows `[B, L, D]` shifted; `before` is the half `[B, 1, D // 2]` that comes to the first of them, None: zeros."""
    stays, moves = x.chunk(2, dim=-1)
    first = torch.zeros_like(moves[:, :1]) if before is None else before
    return torch.cat((stays, torch.cat((first, moves), dim=1)[:, :-1]), dim=-1)


def token_shift_step(x: Tensor, state: State, cache: str, start: Tensor | None = None) -> Tensor:
    """The next rows `[B, L, D]` shifted; a cache `[B, 1, S, D // 2]` remembers the halves, each in the row of its firing.

    Args:
        x: the rows of these firings.
        state: of the stage.
        cache: its name.
        start: what comes to the row of firing 0 (counted from the last reset), `[1, 1, D // 2]`; None: zeros.
    """
    first = state.positions(x.shape[1])[:, :1]  # [B or 1, 1]
    half = moved_half(x)
    written = state.write(cache, half[:, None], first[:, 0])
    # The row before is read from the cache as it is after the write, which leaves that row alone: so all that comes later
    # depends on the write. Else the compiler of TensorRT-RTX 1.7 fuses it with the writes of later layers into one kernel,
    # cannot order that ("uses before defs"), and mostly ends the process with a segmentation fault.
    row = (first - 1).clamp(min=0)[:, None, :, None].expand(x.shape[0], 1, 1, half.shape[-1])
    found = written.gather(2, row)[:, 0]  # [B, 1, D // 2]
    nothing = torch.zeros_like(found) if start is None else start
    before = torch.where((first == 0)[:, :, None], nothing, found)
    return token_shift(x, before)
