"""After which tokens a group closes, and the mean of each group (`boundary_creator.py` and `shortening.py` of the original).

A boundary is the last token of its group, though a comment of the original says that it opens one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import DynamicPoolingConfig
from .tower import activation_of

THRESHOLD = 0.5


class BoundaryPredictor(nn.Module):
    """How likely a row closes its group: `sigmoid(W2 act(W1 x))`."""

    def __init__(self, config: DynamicPoolingConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.dim, config.ff_dim)
        self.activation = activation_of(config)
        self.out = nn.Linear(config.ff_dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Rows `[B, L, D]` -> probabilities `[B, L, 1]`."""
        y: Tensor = self.out(self.activation(self.up(x))).sigmoid()
        return y


def boundaries_of(config: DynamicPoolingConfig, predictor: BoundaryPredictor | None, ids: Tensor, rows: Tensor) -> Tensor:
    """Which tokens of whole sequences close their group: ids `[B, L]`, rows of the first tower `[B, L, D]` -> bool `[B, L]`."""
    if config.stride is not None:
        return (torch.arange(ids.shape[1]) % config.stride == 0).expand(ids.shape)
    if predictor is None:
        return torch.isin(ids, torch.tensor(config.ids))
    likely: Tensor = predictor(rows)[:, :, 0] > THRESHOLD
    return likely


def pool(rows: Tensor, boundaries: Tensor) -> Tensor:
    """The mean of each group that is closed, in order: rows `[B, L, D]`, bool `[B, L]` -> `[B, F, D]`.

    F is the most groups of any sequence; what others have behind their last one means nothing.
    """
    batch, _, dim = rows.shape
    closed = boundaries.long()
    group = closed.cumsum(1) - closed  # [B, L]: of how many closed ones a token comes after
    most = int(closed.sum(1).max())
    sums = rows.new_zeros(batch, most + 1, dim).scatter_add(1, group[:, :, None].expand_as(rows), rows)
    counts = rows.new_zeros(batch, most + 1).scatter_add(1, group, torch.ones_like(group, dtype=rows.dtype))
    return sums[:, :most] / counts[:, :most, None].clamp(min=1)


def serve(rows: Tensor, boundaries: Tensor) -> Tensor:
    """The coarse row that each token sees, that of the newest closed group: `[B, 1 + F, D]` -> `[B, L, D]`.

    Row 0 is of no group. The token that closes a group sees the group's row.
    """
    newest = boundaries.long().cumsum(1)[:, :, None]
    return rows.gather(1, newest.expand(-1, -1, rows.shape[2]))
