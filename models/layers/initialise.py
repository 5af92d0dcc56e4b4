"""Random weights to train from."""

from __future__ import annotations

import math

from torch import nn


def initialise(model: nn.Module, depth: int) -> None:
    """GPT-2's initialisation, in place: N(0, 0.02), projections into the residual stream scaled down by the depth."""
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.dim() >= 2:
            is_residual = name.endswith(("out.weight", "down.weight"))
            nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * depth) if is_residual else 0.02)
