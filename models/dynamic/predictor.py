"""Where spans end: a linear reading of each row of the first tower, above a threshold that its rate sets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_PACE = 0.05
"""How far the bias goes, in a step of training, to where the batch would have had it."""


class BoundaryPredictor(nn.Module):
    """Rows to one logit each; a row is a boundary if it is above 0, so if its probability is above a half.

    Behind a norm, for the rows of a pre-norm tower have none. The bias is not learned by gradients: in training it is where the
    wanted share of the batch's rows is above it, and what is kept of it is a running mean.
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

    def forward_to_train(self, rows: Tensor) -> Tensor:
        """The same with the batch's own bias, in fp32 under autocast, too: rounding would move boundaries.

        What all rows have in common has no gradient, for the bias would follow it anywhere: a boundary is good for what it
        serves almost always, so that all logits would grow, faster than the running mean.
        """
        with torch.autocast(rows.device.type, enabled=False):
            scores = F.linear(self.norm(rows.float()), self.logit.weight)  # [B, L, 1]
        mean = scores.mean()
        with torch.no_grad():
            below = scores.numel() - round(scores.numel() / self.tokens_per_firing)
            bias = -scores.flatten().kthvalue(max(below, 1)).values
            self.logit.bias.lerp_(bias[None], _PACE)
        return scores - mean + (mean.detach() + bias)
