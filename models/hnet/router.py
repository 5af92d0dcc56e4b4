"""Where a chunk begins: at a row that is unlike the one before it (H-Net, section 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...contract import CacheSpec
from ..cache import State

QUERY = "query"
"""The cache of what the next row is compared with."""
THRESHOLD = 0.5
_LEAST = 1e-12


class Router(nn.Module):
    """The chance `(1 - cos(W_q h[t-1], W_k h[t])) / 2` that row t begins a chunk; the first row's is 1."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        for linear in (self.query, self.key):
            nn.init.eye_(linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        """A whole sequence `[B, L, D]` -> `[B, L]`."""
        chances = _chances(_directions(self.query(x[:, :-1])), _directions(self.key(x[:, 1:])))
        return torch.cat((torch.ones_like(x[:, :1, 0]), chances), 1)

    def step(self, x: Tensor, state: State) -> Tensor:
        """The next rows `[B, L, D]` -> `[B, L, 1]`."""
        positions = state.positions(x.shape[1]).expand(x.shape[0], -1)  # [B, L]
        queries = state.write(QUERY, _directions(self.query(x))[:, None], positions[:, 0])[:, 0]  # [B, S, D]
        places = (positions - 1).clamp(min=0)[:, :, None].expand(-1, -1, x.shape[2])
        chances = _chances(queries.gather(1, places), _directions(self.key(x)))
        return torch.where(positions == 0, 1.0, chances)[:, :, None]

    def cache(self) -> CacheSpec:
        """Directions of the queries of all rows, so that any of them can be taken back."""
        return CacheSpec(name=QUERY, heads=1, width=self.query.out_features)


def begins(chances: Tensor) -> Tensor:
    """Which rows begin a chunk. The original takes the likelier of two, the first of equal ones: which comes to this."""
    return chances > THRESHOLD


def _directions(x: Tensor) -> Tensor:
    return x / x.square().sum(-1, keepdim=True).sqrt().clamp(min=_LEAST)


def _chances(queries: Tensor, keys: Tensor) -> Tensor:
    return ((1 - (queries * keys).sum(-1)) / 2).clamp(0, 1)
