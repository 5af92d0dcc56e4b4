"""Chains of native products whose weights lie in a mapped file, as the runtime's do: pages of a file cost more than those of
the heap."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import byref, c_int32, c_void_p
from pathlib import Path

import numpy as np

from ...contract.program import ALIGNMENT, Weight
from ...runtime.engines.native_library import (
    FvCall,
    FvInput,
    FvProgram,
    FvRows,
    FvStep,
    native_library,
    pool_of,
)
from ...runtime.engines.native_programs import map_weights
from ..native_kernels import FORMATS, PRODUCT

_FILL = 0x3F
"""Of every byte of the file: as fp32 0.75, a number that is quick to multiply by, as integers 63 and 3."""


class MappedFile:
    """A file of weights of any format, mapped."""

    def __init__(self, path: Path, size: int) -> None:
        path.write_bytes(bytes([_FILL]) * size)
        self.size, self.memory = size, map_weights(path, size)


class NativeProducts:
    """One program of `count` times the products of some shapes `[K, N]`; calling it runs them all for one row.

    Args:
        file: in which their matrices follow one another.
        name: of the weights' format.
        shapes: the first's rows are the program's input; others read that, or what one of as many columns gave last.
    """

    def __init__(self, file: MappedFile, name: str, shapes: Sequence[tuple[int, int]], count: int, threads: int) -> None:
        library = native_library()
        number, block = FORMATS[name]
        x_width, y_width = shapes[0][0], shapes[-1][1]
        widths = list(dict.fromkeys(n for _, n in shapes))
        written = {width: index + 1 for index, width in enumerate(widths)}  # buffers; the first is the program's input
        steps, place = (FvStep * (count * len(shapes)))(), 0
        for step, (k, n) in zip(steps, [shape for _ in range(count) for shape in shapes], strict=True):
            step.kind = PRODUCT
            step.inputs[:] = [0 if k == x_width else written[k], -1, -1, -1]
            step.outputs[:] = [written[n], -1]
            step.n[:5], step.f[0] = [number, k, n, block, 0], 0.03
            step.data[0] = file.memory.ctypes.data + place
            place += -(-weight_bytes(name, (k, n)) // ALIGNMENT) * ALIGNMENT
        assert place <= file.size, "the file is as large as the largest chain"
        self.bytes = count * sum(weight_bytes(name, shape) for shape in shapes)
        pool = pool_of(library, threads)
        program = FvProgram(
            steps=steps,
            n_steps=len(steps),
            n_buffers=1 + len(widths),
            widths=(c_int32 * (1 + len(widths)))(x_width, *widths),
            inputs=(FvInput * 1)(FvInput(0, 0, 1)),
            n_inputs=1,
            n_caches=0,
            output=written[y_width],
            output_parts=1,
            most_rows=1,
        )
        handle = library.open(pool.handle, byref(program))
        if not handle:
            raise RuntimeError(library.error())
        self._library, self._handle = library, c_void_p(handle)
        x, y, index = np.ones((1, x_width), np.float32), np.empty((1, y_width), np.float32), np.arange(1)
        inputs = (FvRows * 1)(FvRows(x.ctypes.data, x.strides[0], 0))
        output = FvRows(y.ctypes.data, y.strides[0], 0)
        call = FvCall(rows=1, row_index=index.ctypes.data, inputs=inputs, caches=None, output=output)
        self._given, self._kept = byref(call), (file, steps, pool, x, y, index, inputs, call)

    def __call__(self) -> None:
        if self._library.run(self._handle, self._given):
            raise RuntimeError(self._library.error())

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._library.close(self._handle)


def weight_bytes(name: str, shape: tuple[int, int]) -> int:
    """Of a matrix as the library reads it."""
    rows, columns = shape
    return Weight(format=name, rows=rows, columns=columns, block=FORMATS[name][1], place=0).bytes  # type: ignore[arg-type]
