"""What the tensors of a graph are, firing by firing: which columns of which buffer.

Steps know rows of firings only; a graph reshapes, transposes, splits and joins them. So each tensor is followed element by
element, without its axes B and L: after a split into heads, a transposition and a concatenation it still is known which column
of a buffer each element is, whatever way the graph took.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Unsupported(Exception):
    """Of something in a graph that no step does; the text names it."""


@dataclass(frozen=True)
class Size:
    """A dimension that depends on the call: `factor` times the letter `B` (sequences), `L` (firings) or `N` (wanted rows)."""

    letter: str
    factor: int = 1

    @property
    def atoms(self) -> tuple[Dimension, ...]:
        """The letter, and an axis of its own for the factor."""
        return (Size(self.letter),) if self.factor == 1 else (Size(self.letter), self.factor)


Dimension = int | Size
ROWS = (Size("B"), Size("L"))


def atoms_of(dims: Sequence[Dimension]) -> list[Dimension]:
    """The dimensions with factors apart."""
    return [atom for dim in dims for atom in ((dim,) if isinstance(dim, int) else dim.atoms)]


def fixed(dims: Sequence[Dimension]) -> tuple[int, ...]:
    """Those that are numbers: the shape of a tensor's elements."""
    return tuple(atom for atom in atoms_of(dims) if isinstance(atom, int))


PLAIN, COSINE, SINE, FIRST, SECOND = range(5)
ELEMENT = np.dtype([("column", np.int32), ("partner", np.int32), ("angle", np.int32), ("kind", np.int8)])
"""`kind`: a column as it is; times the cosine, or the sine, of an angle; or a turned one, `column * cos - partner * sin` or
`column * cos + partner * sin`."""


@dataclass(frozen=True)
class Tensor:
    """Float rows `[B, L, ...]` in any order of axes: `elements`, of dtype `ELEMENT` and the fixed dimensions, are of `buffer`.

    `angles` names the frequencies that turned elements are turned by.
    """

    buffer: int
    dims: tuple[Dimension, ...]
    elements: Array
    angles: int | None = None

    @classmethod
    def of(cls, buffer: int, dims: Sequence[Dimension]) -> Tensor:
        """All columns of a buffer in their order."""
        shape = fixed(dims)
        elements = np.zeros(shape, ELEMENT)
        elements["column"] = np.arange(elements.size).reshape(shape)
        return cls(buffer, tuple(dims), elements)

    def axis(self, axis: int) -> int:
        """Which axis of the elements a dimension of a fixed size is."""
        axis = axis % len(self.dims)
        if not isinstance(self.dims[axis], int):
            raise Unsupported("an axis of firings")
        return len(fixed(self.dims[:axis]))

    def with_elements(self, elements: Array, dims: Sequence[Dimension]) -> Tensor:
        """Other elements of the same buffer."""
        return Tensor(self.buffer, tuple(dims), elements, self.angles)

    def transposed(self, perm: Sequence[int]) -> Tensor:
        """As ONNX's `Transpose`; dimensions with a factor stay in one piece."""
        axes: list[list[int]] = []
        at = 0
        for dim in self.dims:
            count = len(fixed([dim]))
            axes.append(list(range(at, at + count)))
            at += count
        order = [axis for index in perm for axis in axes[index]]
        return self.with_elements(self.elements.transpose(order), [self.dims[index] for index in perm])

    def reshaped(self, dims: Sequence[Dimension]) -> Tensor:
        """As ONNX's `Reshape`, to known dimensions; firings are not mixed with their elements."""
        if _products(self.dims) != _products(dims):
            raise Unsupported(f"a reshape from {_shown(self.dims)} to {_shown(dims)}")
        return self.with_elements(self.elements.reshape(fixed(dims)), dims)

    @property
    def is_plain(self) -> bool:
        """Whether all elements are columns as they are."""
        return bool((self.elements["kind"] == PLAIN).all())

    @property
    def columns(self) -> Array:
        """Which column each element is, in their order, wherever the axes of firings are."""
        if not self.is_plain:
            raise Unsupported("turned rows that no attention reads")
        columns: Array = self.elements["column"].reshape(-1)
        return columns


def _products(dims: Sequence[Dimension]) -> list[tuple[str, int]]:
    """What lies between the letters: each letter, and how many elements follow it before the next."""
    found: list[tuple[str, int]] = [("", 1)]
    for atom in atoms_of(dims):
        if isinstance(atom, Size):
            found.append((atom.letter, 1))
        else:
            found[-1] = (found[-1][0], found[-1][1] * atom)
    return found


def _shown(dims: Sequence[Dimension]) -> str:
    return "[" + ", ".join(str(dim) if isinstance(dim, int) else f"{dim.factor}*{dim.letter}" for dim in dims) + "]"


def broadcast(a: Sequence[Dimension], b: Sequence[Dimension]) -> tuple[Dimension, ...]:
    """The dimensions of an element-wise result."""
    length = max(len(a), len(b))
    wide = [(1,) * (length - len(dims)) + tuple(dims) for dims in (a, b)]
    for one, other in zip(*wide, strict=True):
        if one != other and 1 not in (one, other):
            raise Unsupported(f"{_shown(a)} with {_shown(b)}")
    return tuple(other if one == 1 else one for one, other in zip(*wide, strict=True))
