"""Chains of native products whose weights lie in a mapped file, as the runtime's do: pages of a file cost more than those of
the heap."""

from __future__ import annotations

from ctypes import byref, c_int32, c_void_p
from pathlib import Path

import numpy as np

from ...contract.program import Weight
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
    """One program of so many products; calling it runs them all."""

    def __init__(self, file: MappedFile, name: str, shape: tuple[int, int], count: int, threads: int) -> None:
        library = native_library()
        (number, block), (k, n) = FORMATS[name], shape
        self.bytes_each = Weight(format=name, rows=k, columns=n, block=block, place=0).bytes  # type: ignore[arg-type]
        stride = -(-self.bytes_each // 64) * 64
        assert stride * count <= file.size, "the file is as large as the largest chain"
        steps = (FvStep * count)()
        for index, step in enumerate(steps):
            step.kind = PRODUCT
            step.inputs[:], step.outputs[:] = [0, -1, -1, -1], [1, -1]
            step.n[:5], step.f[0] = [number, k, n, block, 0], 0.03
            step.data[0] = file.memory.ctypes.data + index * stride
        pool = pool_of(library, threads)
        program = FvProgram(
            steps=steps,
            n_steps=count,
            n_buffers=2,
            widths=(c_int32 * 2)(k, n),
            inputs=(FvInput * 1)(FvInput(0, 0, 1)),
            n_inputs=1,
            n_caches=0,
            output=1,
            output_parts=1,
            most_rows=1,
        )
        handle = library.open(pool.handle, byref(program))
        if not handle:
            raise RuntimeError(library.error())
        self._library, self._handle = library, c_void_p(handle)
        x, y, index = np.ones((1, k), np.float32), np.empty((1, n), np.float32), np.arange(1)
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
