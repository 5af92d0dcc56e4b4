"""What the values of a graph are while it is followed, beside rows (`tensors.py`) and arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .tensors import PLAIN, Array, Dimension, Size, Tensor

B, L = Size("B"), Size("L")


@dataclass(frozen=True)
class Ids:
    """An input of token ids."""

    index: int
    dims: tuple[Dimension, ...]


@dataclass(frozen=True)
class RowIndex:
    """The index of each firing."""

    dims: tuple[Dimension, ...]


@dataclass(frozen=True)
class FirstRow:
    """The index of the first firing of each sequence; of no use but for its shape."""

    dims: tuple[Dimension, ...] = (B,)


@dataclass(frozen=True)
class Positions:
    """Rows `[L, D]` of a table by the index of each firing."""

    table: Array


@dataclass(frozen=True)
class Turns:
    """Angles of each firing, `row * frequencies`, `count` of them, or their cosines or sines.

    `frequencies` is their place among the weights.
    """

    frequencies: int
    dims: tuple[Dimension, ...]
    count: int
    kind: int = PLAIN


@dataclass(frozen=True)
class Wanted:
    """Which rows' logits are wanted."""


@dataclass(frozen=True)
class Places:
    """Which rows of an input each firing reads, that the host brings together."""

    of: str
    dims: tuple[Dimension, ...] = (L,)


@dataclass(frozen=True)
class Sizes:
    """Integers that are known but for what depends on the call: a shape, or a part of one."""

    values: tuple[Dimension, ...]


@dataclass(frozen=True)
class Rounded:
    """Rows that are rounded to int8 by one scale."""

    x: Tensor
    scale: float


@dataclass(frozen=True)
class Looked:
    """Rows of a table of narrow numbers, on their way to be float32."""

    ids: Ids
    table: Array
    is_centred: bool = False


@dataclass(frozen=True)
class Scale:
    """The scales of the rows of such a table."""

    ids: Ids
    scales: Array


@dataclass(frozen=True)
class Activated:
    """An activation of rows that a product may come after: of `x * sigmoid(x)`, the second factor."""

    x: Tensor
    kind: Literal["sigmoid", "silu"]


@dataclass(frozen=True)
class Squares:
    """On the way to a norm: the squares of rows, their mean, the root of that, or rows divided by it."""

    x: Tensor
    kind: Literal["squares", "mean", "root", "normed"]
    eps: float = 0.0
    is_clamped: bool = False


@dataclass(frozen=True)
class Scores:
    """On the way to attention within a group: queries times keys, or their shares after the softmax."""

    query: Tensor
    key: Tensor
    scale: float
    are_shares: bool = False


@dataclass(frozen=True)
class Scaled:
    """Rows times a number."""

    x: Tensor
    factor: float
