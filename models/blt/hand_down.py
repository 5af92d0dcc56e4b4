"""What the layers over patches hand to bytes: for each cross attention of the decoder, a patch's keys and values."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import BltConfig
from .cross_attention import Offer


class HandDown(nn.Module):
    """`P' g`, k rows of decoder width, and of these what each of the decoder's cross attentions reads, in one row per patch.

    A byte's step then reads them as they lie: it has no use for the rows themselves.
    """

    def __init__(self, config: BltConfig) -> None:
        super().__init__()
        self.rows, self.dim = config.patch_rows, config.decoder.dim
        self.heads, self.head_dim = config.decoder.key_value_heads, config.decoder.head_dim
        self.project = nn.Linear(config.middle.dim, self.rows * self.dim, bias=False)
        self.offers = nn.ModuleList(Offer(config.decoder) for _ in range(config.reads))
        self.scale = self.head_dim**-0.5

    def forward(self, x: Tensor) -> Tensor:
        """`[B, L, D]` -> `[B, L, reads * 2 * KV * Dh * k]`."""
        batch, patches, _ = x.shape
        rows = self.project(x).reshape(batch, patches, self.rows, self.dim)
        parts: list[Tensor] = []
        for offer in self.offers:
            keys, values = offer(rows).reshape(batch, patches, self.rows, 2, self.heads, self.head_dim).unbind(3)
            parts += [(keys * self.scale).permute(0, 1, 3, 4, 2), values.transpose(2, 3)]  # as `Read` has them
        return torch.cat([part.reshape(batch, patches, -1) for part in parts], dim=-1)


class Taken(nn.Module):
    """The keys and values of each cross attention, as a patch's row has them; it has no weights."""

    def __init__(self, config: BltConfig) -> None:
        super().__init__()
        self.reads, self.rows = config.reads, config.patch_rows
        self.heads, self.head_dim = config.decoder.key_value_heads, config.decoder.head_dim

    def forward(self, row: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The rows that L bytes read, `[B, L, reads * 2 * KV * Dh * k]`, to what each `Read` is given."""
        batch, count, _ = row.shape
        parts = row.chunk(2 * self.reads, dim=-1)
        keys = [part.reshape(batch, count, self.heads, self.head_dim, self.rows) for part in parts[::2]]
        values = [part.reshape(batch, count, self.heads, self.rows, self.head_dim) for part in parts[1::2]]
        return list(zip(keys, values, strict=True))
