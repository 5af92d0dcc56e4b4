"""Attention by relative position, in the manner of Transformer-XL (arXiv 1901.02860).

A query q and a key k at distance d score `(q + context) · k + (q + location) · R(d)`: R is a projection of sinusoids, and the
two biases are shared by all layers of a model. google/trax (trax/layers/research/rel_attention.py) counts a key in the past
as a negative distance, Transformer-XL itself and dynamic pooling (`RelPartialLearnableMultiHeadAttn` of its hourglass.py) as a
positive one. Distances between queries and keys of different rates are counted in rows of the finer of the two.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ...contract import CacheSpec
from ..config import LayerConfig


def usual_frequencies(dim: int) -> Tensor:
    """Of sinusoids of so many columns, sines and cosines together: fp64 `[dim / 2]`."""
    return 10_000.0 ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)


@dataclass(frozen=True)
class Distances:
    """How far a key lies from a query: key j from query i by `key_step * j - query_step * i`.

    Attributes:
        ahead: the largest distance at which a query sees a key; all smaller ones are seen too.
        pooling: tokens that the sinusoids count for a distance of 1.
        backward: the sinusoids are those of how far back a key is, not of how far ahead.
    """

    query_step: int = 1
    key_step: int = 1
    ahead: int = 0
    pooling: int = 1
    backward: bool = False

    def between(self, queries: Tensor, keys: int) -> Tensor:
        """Of the first so many keys from queries `[B or 1, L]` -> `[B or 1, L, keys]`, int64."""
        return self.key_step * torch.arange(keys, device=queries.device) - self.query_step * queries[..., None]

    def count(self, queries: int) -> int:
        """Different distances that the first so many queries see."""
        return self.query_step * (queries - 1) + self.ahead + 1

    def sinusoids(self, count: int, frequencies: Tensor) -> Tensor:
        """Sines, then cosines, of the last so many distances up to `ahead`, fp64 `[count, 2 * frequencies]`."""
        positions = torch.arange(self.ahead + 1 - count, self.ahead + 1, dtype=torch.float64) * self.pooling
        angles = (-positions if self.backward else positions)[:, None] * frequencies
        return torch.cat((angles.sin(), angles.cos()), dim=-1)


class Memory(Protocol):
    """The part of `State` that these layers use."""

    def positions(self, rows: int) -> Tensor:
        """As `State.positions`."""
        ...

    def write(self, name: str, rows: Tensor, first: Tensor) -> Tensor:
        """As `State.write`."""
        ...


class WholeSequence:
    """A `Memory` for whole sequences: nothing was seen before, so what is written is all there is."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def positions(self, rows: int) -> Tensor:
        """As `State.positions`."""
        return torch.arange(rows, device=self._device)[None]

    def write(self, name: str, rows: Tensor, first: Tensor) -> Tensor:
        """As `State.write`."""
        return rows


class SharedBiases(nn.Module):
    """What all layers add to their queries, `[H, 1, Dh]`: `context` to score keys, `location` to score distances."""

    def __init__(self, config: LayerConfig) -> None:
        super().__init__()
        self.context = nn.Parameter(torch.zeros(config.heads, 1, config.head_dim))
        self.location = nn.Parameter(torch.zeros(config.heads, 1, config.head_dim))


class KeyValue(nn.Module):
    """Keys and values of rows, which a memory keeps."""

    def __init__(self, config: LayerConfig) -> None:
        super().__init__()
        self.heads, self.head_dim = config.heads, config.head_dim
        self.projection = nn.Linear(config.dim, 2 * config.heads * config.head_dim)

    def forward(self, x: Tensor, memory: Memory, name: str, first: Tensor) -> tuple[Tensor, Tensor]:
        """Write those of `[B, n, D]` from row `first` `[B or 1]` on; all keys and all values `[B, H, S, Dh]`."""
        batch, rows, _ = x.shape
        heads = self.projection(x).view(batch, rows, 2, self.heads, self.head_dim)
        key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)  # 2 x [B, H, n, Dh]
        return memory.write(f"{name}.key", key, first), memory.write(f"{name}.value", value, first)


def key_value_caches(name: str, config: LayerConfig, rows: int = 1) -> tuple[CacheSpec, ...]:
    """The two caches that a `KeyValue` writes, so many rows at each firing."""
    parts = ("key", "value")
    return tuple(CacheSpec(name=f"{name}.{part}", heads=config.heads, width=config.head_dim, rows=rows) for part in parts)


class RelativeQuery(nn.Module):
    """The queries' half of attention: scores, softmax over all keys that are near enough, and the way out."""

    def __init__(self, config: LayerConfig, biases: SharedBiases, distances: Distances) -> None:
        super().__init__()
        self.heads, self.head_dim, self.distances = config.heads, config.head_dim, distances
        inner = config.heads * config.head_dim
        self.query, self.out, self.biases = nn.Linear(config.dim, inner), nn.Linear(inner, config.dim), biases

    def forward(self, x: Tensor, queries: Tensor, keys: Tensor, values: Tensor, table: Tensor) -> Tensor:
        """Attend from rows `[B, L, D]`, the queries of these indices `[B or 1, L]`.

        Args:
            keys: with `values` `[B, H, S, Dh]`, of which those too far ahead may hold anything.
            table: of R, `[H, Dh, n]`: the last n distances up to the largest that is seen.
        """
        batch, rows, _ = x.shape
        query = self.query(x).view(batch, rows, self.heads, self.head_dim).transpose(1, 2)  # [B, H, L, Dh]
        distance = self.distances.between(queries, keys.shape[2])[:, None]  # [B or 1, 1, L, S]
        place = (distance + (table.shape[-1] - 1 - self.distances.ahead)).clamp(0, table.shape[-1] - 1)
        by_distance = torch.matmul(query + self.biases.location, table)  # [B, H, L, n]
        by_distance = by_distance.gather(-1, place.expand(batch, self.heads, -1, -1))
        scores = (torch.matmul(query + self.biases.context, keys.transpose(2, 3)) + by_distance) * self.head_dim**-0.5
        weights = scores.masked_fill(distance > self.distances.ahead, float("-inf")).softmax(-1)
        found = torch.matmul(weights, values).transpose(1, 2).reshape(batch, rows, self.heads * self.head_dim)
        y: Tensor = self.out(found)
        return y


class RelativeAttention(nn.Module):
    """`RelativeQuery` with the projection that its table is made of.

    Args:
        frequencies: of the sinusoids, fp64 `[dim / 2]`; None: the usual ones.
    """

    def __init__(
        self, config: LayerConfig, biases: SharedBiases, distances: Distances, frequencies: Tensor | None = None
    ) -> None:
        super().__init__()
        self.attend = RelativeQuery(config, biases, distances)
        self.position = nn.Linear(config.dim, config.heads * config.head_dim)
        # No buffer, which would follow the weights to a precision that is too low for angles of far distances.
        self.frequencies = usual_frequencies(config.dim) if frequencies is None else frequencies

    def forward(self, x: Tensor, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attend from the first L rows `[B, L, D]` there are, as `RelativeQuery`."""
        y: Tensor = self.attend(x, queries, keys, values, self.table(x.shape[1]))
        return y

    def table(self, queries: int) -> Tensor:
        """R at all distances that the first so many queries see, `[H, Dh, n]`."""
        distances = self.attend.distances
        sinusoids = distances.sinusoids(distances.count(queries), self.frequencies)
        projected: Tensor = self.position(sinusoids.to(self.position.weight))
        return projected.view(-1, self.attend.heads, self.attend.head_dim).permute(1, 2, 0).contiguous()


class TabledAttention(nn.Module):
    """`RelativeAttention` with its table worked out, for so many queries: what a stage contains."""

    table: Tensor

    def __init__(self, attention: RelativeAttention, queries: int) -> None:
        super().__init__()
        self.attend = attention.attend
        self.register_buffer("table", attention.table(queries).detach(), persistent=False)

    def forward(self, x: Tensor, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """As `RelativeQuery`."""
        y: Tensor = self.attend(x, queries, keys, values, self.table)
        return y


def with_tables(module: nn.Module, queries: int) -> nn.Module:
    """A copy of a module that shares its weights, its attention tabled for so many queries."""
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    copied = copy.deepcopy(module, shared)
    for parent in list(copied.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, RelativeAttention):
                setattr(parent, name, TabledAttention(child, queries))
    return copied
