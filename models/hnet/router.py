"""Where a chunk begins: at a row that is unlike the one before it (H-Net, section 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..cache import State
from .last_row import LastRow

QUERY = "query"
"""What is kept of the last row: what the next one is compared with."""
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

    def step(self, x: Tensor, last: LastRow, state: State) -> Tensor:
        """The next rows `[B, L, D]` -> `[B, L, 1]`; `last` is the direction of the query of the row before."""
        queries = torch.cat((last.read(x.shape[1], state), _directions(self.query(x))), 1)
        last.keep(queries, state)
        chances = _chances(queries[:, :-1], _directions(self.key(x)))
        return torch.where(state.positions(x.shape[1]) == 0, torch.ones_like(chances), chances)[:, :, None]


def begins(chances: Tensor) -> Tensor:
    """Which rows begin a chunk. The original takes the likelier of two, the first of equal ones: which comes to this."""
    return chances > THRESHOLD


def _directions(x: Tensor) -> Tensor:
    return x / x.square().sum(-1, keepdim=True).sqrt().clamp(min=_LEAST)


def _chances(queries: Tensor, keys: Tensor) -> Tensor:
    return ((queries * keys).sum(-1) * -0.5 + 0.5).clamp(0, 1)  # halves are exact
