"""The constant row in front of a sequence: what a layer with token shift remembers of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..cache import State
from ..layers.attention import Attention, Rope
from ..layers.rotary import rotate


class FirstRow(nn.Module):
    """One layer's key, value and shifted halves of a row that is the same in every sequence.

    A scale that begins anew with every group would have to run its start token every time; these are all that later rows see
    of it.
    """

    key: Tensor
    value: Tensor
    attention_half: Tensor
    feed_forward_half: Tensor

    def __init__(self, key: Tensor, value: Tensor, attention_half: Tensor, feed_forward_half: Tensor) -> None:
        """Key and value `[1, H, 1, Dh]`, halves `[1, 1, D // 2]`."""
        super().__init__()
        self.register_buffer("key", key, persistent=False)
        self.register_buffer("value", value, persistent=False)
        self.register_buffer("attention_half", attention_half, persistent=False)
        self.register_buffer("feed_forward_half", feed_forward_half, persistent=False)

    def attend(self, attention: Attention, x: Tensor, state: State, layer: int, rope: Rope) -> Tensor:
        """The next rows `[B, L, D]`, normed, attend to this one, to those since the last reset, and to themselves.

        Keys and values go to the stage's caches `<layer>.key` and `<layer>.value`, each to the row of its firing.
        """
        query, key, value = heads_of(attention, x, rope)
        positions = state.positions(x.shape[1])
        keys = self._behind(self.key, state.write(f"{layer}.key", key, positions[:, 0]))
        values = self._behind(self.value, state.write(f"{layer}.value", value, positions[:, 0]))
        columns = torch.arange(keys.shape[2], device=x.device)  # column 0 is this row, column 1 that of firing 0
        may_look = columns <= positions[:, None, :, None] + 1  # [B or 1, 1, L, 1 + S]
        scores = query @ keys.transpose(2, 3) * attention.head_dim**-0.5
        weights = scores.masked_fill(~may_look, float("-inf")).softmax(dim=-1)
        found = (weights @ values).transpose(1, 2)  # [B, L, H, Dh]
        y: Tensor = attention.out(found.reshape(*x.shape[:2], attention.heads * attention.head_dim))
        return y

    def _behind(self, first: Tensor, cache: Tensor) -> Tensor:
        return torch.cat((first.expand(cache.shape[0], -1, -1, -1), cache), dim=2)


def heads_of(attention: Attention, x: Tensor, rope: Rope) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values `[B, H, L, Dh]` of normed rows `[B, L, D]`."""
    parts = attention.qkv(x).view(*x.shape[:2], 3, attention.heads, attention.head_dim)  # [B, L, 3, H, Dh]
    query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
    return rotate(query, rope), rotate(key, rope), value
