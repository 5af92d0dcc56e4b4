"""MEGABYTE (arXiv 2305.07185) of any number of scales, as lucidrains' MEGABYTE-pytorch 0.3.6 computes it.

A scale of stride k sees one row per patch of k tokens, behind a start token, and each of its rows is turned into one row for
each patch of the next finer scale inside the *next* patch. So nothing is ever waited for: a coarse scale runs as soon as the
last token of a patch is known, and what it gives is first read with the token after it. All but the coarsest scale begin
anew in every patch of the next coarser one.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ...contract import patch_rule
from ..architecture import Description, Stage
from .config import MegabyteConfig
from .scale import CoarseScale, FineScale
from .stages import coarse_stage, fine_stage


class Megabyte(nn.Module):
    """Token ids to next-token logits; `logits[t]` predicts token t+1."""

    def __init__(self, config: MegabyteConfig) -> None:
        super().__init__()
        self.config = config
        last = len(config.lengths) - 1
        self.coarse = nn.ModuleList(CoarseScale(config, index) for index in range(last))
        self.fine = FineScale(config)

    def describe(self) -> Description:
        """As `Architecture.describe`."""
        config = self.config
        return Description(
            architecture="megabyte",
            hierarchy=str(config.hierarchy),
            vocab_size=config.vocab_size,
            dim=config.dims[-1],
            max_positions=config.trained_tokens if config.learned_positions else None,
            context=config.trained_tokens,
            end_rules=() if config.strides[0] == 1 else (patch_rule(config.strides[0]),),
        )

    def stages(self) -> list[Stage]:
        """As `Architecture.stages`: one per scale, named after its stride, coarse first."""
        found: list[Stage] = []
        for scale in self._coarse():
            found.append(coarse_stage(scale, found[-1].spec if found else None))
        return [*found, fine_stage(self.fine, found[-1].spec if found else None)]

    def forward(self, ids: Tensor) -> Tensor:
        """Ids `[B, L]`, int64 -> logits `[B, L, V]`, all at once, no state.

        An incomplete patch is filled up with token 0, as in the package: nothing before it sees that.
        """
        length = ids.shape[1]
        patch = self.config.strides[0]
        padded = F.pad(ids, (0, -length % patch))
        context: Tensor | None = None
        for scale in self.coarse:
            context = scale(padded, context)
        y: Tensor = self.fine(padded, context)
        return y[:, :length]

    def _coarse(self) -> list[CoarseScale]:
        return [scale for scale in self.coarse if isinstance(scale, CoarseScale)]
