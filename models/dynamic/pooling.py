"""From rows to groups and back, all groups of a batch at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Groups:
    """Groups of rows that end with a boundary each; rows after the last boundary belong to none yet.

    Attributes:
        of: int64 `[B, L]`: the group each row belongs to.
        closed: int64 `[B, L]`: how many groups are closed once a row is there, its own among them if it is a boundary.
        most: the most closed groups of a sequence.
    """

    of: Tensor
    closed: Tensor
    most: int

    @staticmethod
    def between(boundaries: Tensor) -> Groups:
        """Of boundaries bool `[B, L]`."""
        closed = boundaries.long().cumsum(1)
        return Groups(closed - boundaries.long(), closed, int(closed[:, -1].max()) if closed.shape[1] else 0)

    def means(self, rows: Tensor) -> Tensor:
        """Rows `[B, L, D]` -> the mean of each closed group `[B, most, D]`; zeros where a sequence has fewer."""
        batch, _, dim = rows.shape
        sums = rows.new_zeros(batch, self.most + 1, dim).scatter_add(1, self.of[:, :, None].expand_as(rows), rows)
        ones = torch.ones_like(self.of, dtype=torch.float32)
        counts = ones.new_zeros(batch, self.most + 1).scatter_add(1, self.of, ones)
        return (sums / counts.clamp(min=1)[:, :, None])[:, : self.most]

    def serve(self, rows: Tensor) -> Tensor:
        """Rows `[B, most + 1, D]`, the first of no group -> that of the newest closed group for every row `[B, L, D]`."""
        return rows.gather(1, self.closed[:, :, None].expand(-1, -1, rows.shape[2]))

    def at_ends(self, values: Tensor, boundaries: Tensor) -> Tensor:
        """Values `[B, L]` of the rows that are boundaries, by group `[B, most]`; 0 where a sequence has fewer."""
        kept = torch.where(boundaries, values, 0.0)
        return kept.new_zeros(kept.shape[0], self.most + 1).scatter_add(1, self.of, kept)[:, : self.most]


def straight_through(rows: Tensor, chances: Tensor) -> Tensor:
    """Rows `[B, n + 1, D]` as they are, with a gradient for the probabilities `[B, n]` of the boundaries that made them.

    Were a boundary not there, its bytes would be served the row before. So H-Net (arXiv 2507.07955, equation 5) serves
    `p row + (1 - p) row before`; here it is only the derivative by p that is taken from there, rows are served as they are.
    """
    change = (rows[:, 1:] - rows[:, :-1]).detach()
    nothing = chances - chances.detach()
    return torch.cat((rows[:, :1], rows[:, 1:] + nothing[:, :, None] * change), 1)
