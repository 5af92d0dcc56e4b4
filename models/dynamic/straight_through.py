"""A gradient for boundaries, which are there or not."""

from __future__ import annotations

import torch
from torch import Tensor


def straight_through(rows: Tensor, chances: Tensor, boundaries: Tensor) -> Tensor:
    """Coarse rows as they are, with a gradient for the probabilities of the boundaries that made them.

    Were a boundary not there, what comes after it would be served the row before. So H-Net (arXiv 2507.07955, section 2.2)
    serves `p row + (1 - p) row before`; from there comes the derivative by p, and nothing else.

    Args:
        rows: `[B, 1 + F, D]`, the first of no group.
        chances: probabilities `[B, L]`.
        boundaries: bool `[B, L]`, at most F of a sequence.
    """
    change = (rows[:, 1:] - rows[:, :-1]).detach()
    chances = _at(boundaries, chances, change.shape[1])
    return torch.cat((rows[:, :1], rows[:, 1:] + (chances - chances.detach())[:, :, None] * change), 1)


def _at(boundaries: Tensor, values: Tensor, most: int) -> Tensor:
    """Values `[B, L]` of the tokens that are boundaries, in order `[B, F]`; 0 where a sequence has fewer than most."""
    before = boundaries.long().cumsum(1) - boundaries.long()  # a token that is none adds nothing wherever it goes
    found = values.new_zeros(len(values), most + 1).scatter_add(1, before, torch.where(boundaries, values, 0.0))
    return found[:, :most]
