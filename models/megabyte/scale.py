"""One scale of a MEGABYTE: what it reads, its layers, and what it gives."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..layers.norm import RMSNorm
from .config import NORM_EPS, MegabyteConfig
from .patch_embed import PatchEmbed
from .shifted_stack import ShiftedStack


class Scale(nn.Module):
    """What coarse and fine scales have in common.

    Attributes:
        length: rows for each row of the next coarser scale; None: this is the coarsest.
        start: the vector in front of every sequence; it gets no position and nothing from a coarser scale.
    """

    def __init__(self, config: MegabyteConfig, index: int, embed: nn.Module) -> None:
        super().__init__()
        dim, length = config.dims[index], config.lengths[index]
        self.dim, self.stride = dim, config.strides[index]
        self.length = length if index else None
        self.embed = embed
        self.start = nn.Parameter(torch.randn(dim))
        self.positions = nn.Embedding(length, dim) if config.learned_positions else None
        self.stack = ShiftedStack(config.layer(index), config.depths[index])
        self.norm = RMSNorm(dim, NORM_EPS)

    def enter(self, ids: Tensor, places: Tensor, context: Tensor | None) -> Tensor:
        """Ids `[B, stride * n]`, places `[B or 1, n]` of the patches in their sequence, context `[B, n, D]` -> `[B, n, D]`.

        Places beyond either end of the table get the position at that end: those are of rows that nobody reads.
        """
        x: Tensor = self.embed(ids)
        if self.positions is not None:
            x = x + self.positions(places.clamp(min=0, max=self.positions.num_embeddings - 1))
        return x if context is None else x + context

    def sequences(self, ids: Tensor, context: Tensor | None) -> Tensor:
        """Whole sequences without their start, `[B * sequences, rows, D]`; ids `[B, L]` are whole patches."""
        rows = self.length or ids.shape[1] // self.stride
        sequences = (ids.reshape(-1, rows * self.stride), None if context is None else context.reshape(-1, rows, self.dim))
        return self.enter(sequences[0], torch.arange(rows, device=ids.device)[None], sequences[1])

    def begun(self, x: Tensor) -> Tensor:
        """The start token in front of sequences `[B, n, D]`."""
        return torch.cat((self.start.expand(x.shape[0], 1, -1), x), dim=1)


class CoarseScale(Scale):
    """A scale that hands `factor` rows down for each of its own (`to_next_transformer_projections`)."""

    def __init__(self, config: MegabyteConfig, index: int) -> None:
        dim, stride = config.dims[index], config.strides[index]
        super().__init__(config, index, PatchEmbed(config.vocab_size, stride, config.dims[-1], dim))
        self.factor, self.finer_dim = config.lengths[index + 1], config.dims[index + 1]
        self.down = nn.Linear(dim, self.factor * self.finer_dim)

    def exit(self, x: Tensor) -> Tensor:
        """`[B, n, D]` -> rows of the finer scale `[B, factor * n, D']`."""
        y: Tensor = self.down(self.norm(x))  # [B, n, factor * D']
        return y.view(x.shape[0], x.shape[1] * self.factor, self.finer_dim)

    def forward(self, ids: Tensor, context: Tensor | None) -> Tensor:
        """Ids `[B, L]`, whole patches, and what the coarser scale hands down -> one row per patch of the finer scale.

        The last row of every sequence serves none of its patches, so that it is not computed.
        """
        x = self.begun(self.sequences(ids, context))[:, :-1]
        return self.exit(self.stack(x)).reshape(ids.shape[0], -1, self.finer_dim)


class FineScale(Scale):
    """The scale of tokens, which gives logits."""

    def __init__(self, config: MegabyteConfig) -> None:
        dim = config.dims[-1]
        super().__init__(config, len(config.dims) - 1, nn.Embedding(config.vocab_size, dim))
        self.logits = nn.Linear(dim, config.vocab_size)

    def exit(self, x: Tensor) -> Tensor:
        """`[B, n, D]` -> logits `[B, n, V]`."""
        y: Tensor = self.logits(self.norm(x))
        return y

    def forward(self, ids: Tensor, context: Tensor | None) -> Tensor:
        """As `CoarseScale`, to logits `[B, L, V]`."""
        x = self.stack(self.begun(self.sequences(ids, context)))
        return self.exit(x[:, 1:]).reshape(*ids.shape, -1)
