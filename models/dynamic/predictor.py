"""Where spans end: after tokens that are thought to be hard to go on from."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_PACE = 0.1
"""How far the bias goes, in a step of training, to where the batch would have had it."""


class BoundaryPredictor(nn.Module):
    """Rows to one logit each, linearly behind a norm (the rows of a pre-norm tower have none); above 0 is a boundary.

    Without its bias it is an estimate of how uncertain the whole model will be of the next token, the entropy in nats but for a
    constant, learned from what it turns out to be. The bias is no weight: in training it is where the wanted share of the
    batch's rows is above 0, and what is kept is a running mean of that.
    """

    def __init__(self, dim: int, norm_eps: float, tokens_per_firing: float) -> None:
        super().__init__()
        self.tokens_per_firing = tokens_per_firing
        self.norm = nn.LayerNorm(dim, eps=norm_eps)
        self.logit = nn.Linear(dim, 1)
        self.logit.bias.requires_grad_(False)

    def forward(self, rows: Tensor) -> Tensor:
        """`[B, L, D]` -> logits `[B, L, 1]`."""
        y: Tensor = self.logit(self.norm(rows))
        return y

    def estimate(self, rows: Tensor) -> Tensor:
        """Entropies to expect `[B, L, 1]`; in fp32 under autocast, too, for rounding would move boundaries."""
        with torch.autocast(rows.device.type, enabled=False):
            return F.linear(self.norm(rows.float()), self.logit.weight)

    @torch.no_grad()
    def aim(self, estimates: Tensor, pace: float = _PACE) -> Tensor:
        """The bias that puts the wanted share of estimates above 0; the kept one goes there by a step, or with a pace of 1."""
        below = estimates.numel() - round(estimates.numel() / self.tokens_per_firing)
        bias = -estimates.flatten().kthvalue(max(below, 1)).values
        self.logit.bias.lerp_(bias[None], pace)
        return bias


def entropies(logits: Tensor) -> Tensor:
    """Of the next token, in nats: logits `[B, L, V]` -> `[B, L, 1]`, without a gradient."""
    log = logits.detach().float().log_softmax(-1)
    return -(log.exp() * log).sum(-1, keepdim=True)
