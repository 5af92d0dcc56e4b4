"""A patch of token ids to one vector, as MEGABYTE-pytorch's `token_embs`."""

from __future__ import annotations

from torch import Tensor, nn


class PatchEmbed(nn.Module):
    """`norm(W norm(e_1 ... e_n))`: the embeddings of a patch side by side, projected to width D."""

    def __init__(self, vocab_size: int, size: int, token_dim: int, dim: int) -> None:
        super().__init__()
        self.size, self.width = size, size * token_dim
        self.tokens = nn.Embedding(vocab_size, token_dim)
        self.norm = nn.LayerNorm(self.width)
        self.project = nn.Linear(self.width, dim)
        self.norm_out = nn.LayerNorm(dim)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids `[B, size * n]` -> `[B, n, D]`."""
        side_by_side = self.tokens(ids).view(ids.shape[0], -1, self.width)
        y: Tensor = self.norm_out(self.project(self.norm(side_by_side)))
        return y
