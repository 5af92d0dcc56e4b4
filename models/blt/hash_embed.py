"""A byte to a vector: that of its id, and those of the groups of bytes that it ends, by their hashes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import PRIMES, BltConfig

_WORD = 2**64


def powers_of(config: BltConfig) -> Tensor:
    """What each id of a window counts in each hash: int64 `[window, hashes]`.

    The hash of a group is the sum of its ids times powers of a prime, the oldest id times 1, in signed integers of 64 bits that
    wrap around. Ids of a window that are before a group count 0.
    """
    rows = []
    for function in range(config.hash_functions):
        prime = PRIMES[function % len(PRIMES)]
        for size in config.hash_sizes:
            group = [_signed(pow(prime, place, _WORD)) for place in range(size)]
            rows.append([0] * (config.window - size) + group)
    return torch.tensor(rows, dtype=torch.int64).reshape(config.hashes, config.window).T.contiguous()


def _signed(number: int) -> int:
    """A number below 2^64 as the signed integer with the same 64 bits."""
    return number - _WORD if number >= _WORD // 2 else number


class HashEmbed(nn.Module):
    """`E[id] + sum over functions and sizes of T[hash of the size's newest ids]`; ids before the first are 0.

    Sums of hashes are chains of additions: ONNX Runtime 1.32 adds up int64 by ReduceSum in another type, which rounds and
    saturates; TensorRT has no product of int64 matrices.
    """

    powers: Tensor
    first_rows: Tensor

    def __init__(self, config: BltConfig) -> None:
        super().__init__()
        self.window, self.rows, self.hashes = config.window, config.hash_rows, config.hashes
        self.tokens = nn.Embedding(config.vocab_size, config.encoder.dim)
        self.groups = nn.Embedding(config.hashes * config.hash_rows, config.encoder.dim) if config.hashes else None
        self.register_buffer("powers", powers_of(config), persistent=False)
        self.register_buffer("first_rows", torch.arange(config.hashes) * config.hash_rows, persistent=False)

    def whole(self, ids: Tensor) -> Tensor:
        """All of a text at once: ids `[B, L]` -> `[B, L, D]`."""
        x: Tensor = self(F.pad(ids, (self.window - 1, 0)).unfold(1, self.window, 1))
        return x

    def forward(self, ids: Tensor) -> Tensor:
        """The newest ids at each of L bytes, `[B, L, window]` or `[B, L * window]` -> `[B, L, D]`."""
        windows = ids.reshape(ids.shape[0], -1, self.window)
        x: Tensor = self.tokens(windows[:, :, -1])
        if self.groups is None:
            return x
        groups: Tensor = self.groups(self.places(windows))
        return x + groups.sum(2)

    def places(self, windows: Tensor) -> Tensor:
        """Rows of the table, int64 `[B, L, hashes]`."""
        sums = windows[:, :, :, None] * self.powers  # [B, L, window, hashes]
        while sums.shape[2] > 1:
            older, newer = sums.chunk(2, dim=2)
            sums = older + newer
        return torch.remainder(sums[:, :, 0], self.rows) + self.first_rows
