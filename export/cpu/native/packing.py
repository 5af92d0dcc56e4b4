"""Weights as the native library reads them (`native/src/layouts.md`), and the file that they are written to."""

from __future__ import annotations

import hashlib
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ....contract.program import ALIGNMENT, PANEL, ROW_STEP, Format, Weight, padded

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int8]
Number = TypeVar("Number", bound=np.generic)
_MIDDLE = {"int8": 128, "w8": 128, "w4": 8}


class DataFile:
    """Arrays that follow one another in a file, each at a multiple of `ALIGNMENT`; what is there already is not repeated."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0
        self._places: dict[bytes, int] = {}

    def place(self, array: npt.NDArray[np.generic]) -> int:
        """Add an array; where it is."""
        data = np.ascontiguousarray(array).tobytes()
        key = hashlib.sha256(data).digest()
        if key not in self._places:
            self._places[key] = self.size
            filled = -(-len(data) // ALIGNMENT) * ALIGNMENT
            self.parts += [data, bytes(filled - len(data))]
            self.size += filled
        return self._places[key]

    def floats(self, weight: Floats) -> Weight:
        """A matrix `[K, N]`."""
        return self._weight("fp32", weight.shape, pack_floats(weight))

    def integers(self, format: Format, values: Integers, scales: Floats, block: int = 0) -> Weight:
        """Integers `[K, N]` and their scales `[blocks, N]`."""
        return self._weight(format, values.shape, pack_integers(format, values, scales, block), block)

    def bias(self, bias: Floats) -> int:
        """A vector `[N]`, filled up to whole panels."""
        return self.place(_filled(bias.astype(np.float32)[None], 0.0)[0])

    def _weight(self, format: Format, shape: tuple[int, ...], packed: npt.NDArray[np.generic], block: int = 0) -> Weight:
        weight = Weight(format=format, rows=shape[0], columns=shape[1], block=block, place=self.place(packed))
        assert packed.nbytes == weight.bytes, "the layout is not as contract/program.py counts it"
        return weight


def pack_floats(weight: Floats) -> Floats:
    """`[K, N]` -> `[panels, K, 16]`."""
    rows = len(weight)
    return np.ascontiguousarray(_filled(weight.astype(np.float32), 0.0).reshape(rows, -1, PANEL).transpose(1, 0, 2))


def pack_integers(format: Format, values: Integers, scales: Floats, block: int = 0) -> npt.NDArray[np.uint8]:
    """Integers `[K, N]` with scales `[blocks, N]` -> bytes `[panels, ...]`: of each block its scales, then its values."""
    middle, step = _MIDDLE[format], 8 if format == "w4" else 4
    unsigned = (values.astype(np.int16) + middle).astype(np.uint8)
    rows = -(-len(values) // ROW_STEP) * ROW_STEP
    unsigned = np.concatenate([unsigned, np.full((rows - len(values), values.shape[1]), middle, np.uint8)])
    unsigned, scales = _filled(unsigned, middle), _filled(scales.astype(np.float32), 0.0)
    panels, parts = unsigned.shape[1] // PANEL, []
    for index, first in enumerate(range(0, rows, block or rows)):
        of_block = unsigned[first : first + (block or rows)]
        groups: npt.NDArray[Any] = of_block.reshape(-1, step, panels, PANEL).transpose(2, 0, 3, 1)  # [panels, groups, 16, step]
        if format == "w4":
            groups = groups[..., :4] | groups[..., 4:] << 4
        its_scales = np.ascontiguousarray(scales[index].reshape(panels, PANEL)).view(np.uint8)
        parts += [its_scales, groups.reshape(panels, -1)]
    return np.concatenate(parts, axis=1)


def _filled(array: npt.NDArray[Number], value: float) -> npt.NDArray[Number]:
    """`[rows, N]`, N filled up to whole panels."""
    missing = padded(array.shape[1]) - array.shape[1]
    return np.pad(array, [(0, 0), (0, missing)], constant_values=value) if missing else array
