"""A tower of Transformer-XL layers whose norms come last (`RelPartialLearnableDecoderLayer` of the original's hourglass.py)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...contract import CacheSpec
from ..config import require_depth
from ..layers.relative_attention import Distances, KeyValue, Memory, RelativeAttention, SharedBiases, key_value_caches
from .config import Activation, DynamicPoolingConfig

NORM_EPS = 1e-5
_ACTIVATIONS: dict[Activation, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


def activation_of(config: DynamicPoolingConfig) -> nn.Module:
    """The activation, exact (erf) where it is GELU; the predictor of boundaries has the same."""
    return _ACTIVATIONS[config.activation]()


class PostNormBlock(nn.Module):
    """`norm(x + attention(x))`, then `norm(x + W2 act(W1 x))`."""

    def __init__(self, config: DynamicPoolingConfig, biases: SharedBiases, frequencies: Tensor) -> None:
        super().__init__()
        layer = config.layer
        self.key_value = KeyValue(layer)
        self.attention = RelativeAttention(layer, biases, Distances(backward=True), frequencies)
        self.norm = nn.LayerNorm(config.dim, eps=NORM_EPS)
        self.up = nn.Linear(config.dim, config.ff_dim)
        self.activation = activation_of(config)
        self.down = nn.Linear(config.ff_dim, config.dim)
        self.norm_out = nn.LayerNorm(config.dim, eps=NORM_EPS)

    def forward(self, x: Tensor, positions: Tensor, memory: Memory, name: str) -> Tensor:
        """The next rows `[B, L, D]`, which are those of indices `positions` `[B or 1, L]`."""
        keys, values = self.key_value(x, memory, name, positions[:, 0])
        x = self.norm(x + self.attention(x, positions, keys, values))
        y: Tensor = self.norm_out(x + self.down(self.activation(self.up(x))))
        return y


class Tower(nn.Module):
    """Layers one after the other, possibly none at all: then the identity. Distances are counted in the tower's own rows."""

    def __init__(self, config: DynamicPoolingConfig, layers: int, biases: SharedBiases, frequencies: Tensor) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(PostNormBlock(config, biases, frequencies) for _ in range(require_depth(layers)))

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """The next rows `[B, L, D]`."""
        positions = memory.positions(x.shape[1])
        for index, layer in enumerate(self.layers):
            x = layer(x, positions, memory, _name(index))
        return x

    def caches(self) -> tuple[CacheSpec, ...]:
        """Keys and values of the layers."""
        layer = self.config.layer
        return tuple(cache for index in range(len(self.layers)) for cache in key_value_caches(_name(index), layer))


class CoarseTower(nn.Module):
    """The tower of groups, whose row 0, `null`, is of none: it is learned, `[1, 1, D]`."""

    def __init__(self, config: DynamicPoolingConfig, layers: int, biases: SharedBiases, frequencies: Tensor) -> None:
        super().__init__()
        self.null = nn.Parameter(torch.randn(1, 1, config.dim))
        self.norm = nn.LayerNorm(config.dim, eps=NORM_EPS)
        self.tower = Tower(config, layers, biases, frequencies)

    def forward(self, groups: Tensor, memory: Memory) -> Tensor:
        """All groups of whole sequences `[B, F, D]` -> `[B, 1 + F, D]`."""
        y: Tensor = self.tower(self.norm(torch.cat((self.null.expand(len(groups), -1, -1), groups), 1)), memory)
        return y


def _name(layer: int) -> str:
    """Not `0`, as `Stack` has it: caches of that name are those of kernels for attention without relative positions."""
    return f"relative.{layer}"


class FirstRow(nn.Module):
    """Keys and values of a row in front of a tower's others that is the same in every sequence: constants of the weights.

    Args:
        tower: whose layers they are.
        row: `[1, 1, D]`.
    """

    def __init__(self, tower: Tower, row: Tensor) -> None:
        super().__init__()
        kept = _Kept()
        with torch.no_grad():
            tower(row, kept)
        for name, rows in kept.rows.items():
            self.register_buffer(_buffer(name), rows, persistent=False)

    def before(self, memory: Memory) -> Memory:
        """A memory whose row 0 is this one, and whose row i is row i - 1 of the one given."""
        return _Behind(self, memory)

    def rows(self, name: str) -> Tensor:
        """Keys or values `[1, H, 1, Dh]`."""
        return self.get_buffer(_buffer(name))


class _Kept:
    """A memory of one row."""

    def __init__(self) -> None:
        self.rows: dict[str, Tensor] = {}

    def positions(self, rows: int) -> Tensor:
        return torch.arange(rows)[None]

    def write(self, name: str, rows: Tensor, first: Tensor) -> Tensor:
        self.rows[name] = rows
        return rows


class _Behind:
    """A memory behind a constant row."""

    def __init__(self, first_row: FirstRow, memory: Memory) -> None:
        self._first_row, self._memory = first_row, memory

    def positions(self, rows: int) -> Tensor:
        return self._memory.positions(rows) + 1

    def write(self, name: str, rows: Tensor, first: Tensor) -> Tensor:
        cache = self._memory.write(name, rows, first - 1)
        return torch.cat((self._first_row.rows(name).expand(cache.shape[0], -1, -1, -1), cache), dim=2)


def _buffer(name: str) -> str:
    """Buffers have no dots in their names."""
    return name.replace(".", "_")
