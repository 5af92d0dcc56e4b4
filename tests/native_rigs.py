"""Small programs of native steps, run by the library and by numpy: the steps are given as the C interface has them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import byref, c_int32, c_void_p
from typing import Any

import numpy as np
from native_reference import ReferenceLibrary

from foveal.export.cpu.native.packing import pack_floats, pack_integers
from foveal.runtime.engines.native_library import FvCache, FvCall, FvInput, FvProgram, FvRows, FvStep, NativeLibrary

MOST_ROWS = 16
Library = NativeLibrary | ReferenceLibrary


class Caches:
    """Caches `[slots, heads, rows, width]`, as given to a call; each library gets its own."""

    def __init__(self, *arrays: np.ndarray) -> None:
        self.arrays = arrays

    def copy(self) -> Caches:
        """The same numbers elsewhere."""
        return Caches(*(array.copy() for array in self.arrays))

    def structs(self) -> Any:
        """For a call."""
        found = (FvCache * max(len(self.arrays), 1))()
        for place, array in zip(found, self.arrays, strict=False):
            place.data, place.slot_bytes, place.head_bytes = array.ctypes.data, array.strides[0], array.strides[1]
            place.rows = array.shape[2]
        return found


class Rig:
    """A program in the making: buffers, inputs, steps; then opened in a library and run.

    Args:
        widths: of the buffers.
        inputs: buffers that a call gives, int64 ids or float32 rows; `parts` of a row lie apart.
        output: the buffer that a call gets.
    """

    def __init__(
        self,
        widths: Sequence[int],
        inputs: Sequence[int],
        output: int,
        *,
        ids: Sequence[int] = (),
        parts: int = 1,
        output_parts: int = 1,
        caches: int = 0,
        most_rows: int = MOST_ROWS,
    ) -> None:
        self.widths, self.inputs, self.output, self.ids = widths, inputs, output, ids
        self.parts, self.output_parts, self.n_caches, self.most_rows = parts, output_parts, caches, most_rows
        self.steps: list[FvStep] = []
        self._kept: list[np.ndarray] = []

    def step(
        self,
        kind: int,
        inputs: Sequence[int] = (),
        outputs: Sequence[int] = (),
        n: Sequence[int] = (),
        f: Sequence[float] = (),
        data: Sequence[np.ndarray | None] = (),
    ) -> Rig:
        """Add a step."""
        step = FvStep(kind=kind)
        step.inputs[:] = [*inputs, *[-1] * (4 - len(inputs))]
        step.outputs[:] = [*outputs, *[-1] * (2 - len(outputs))]
        step.n[: len(n)] = n
        step.f[: len(f)] = f
        for place, array in enumerate(data):
            if array is not None:
                kept = aligned(array)
                self._kept.append(kept)
                step.data[place] = kept.ctypes.data
        self.steps.append(step)
        return self

    def open(self, library: Library, threads: int = 1, spin_us: int = 50) -> Opened:
        """Ready to run; raises ValueError with the library's text if it refuses."""
        return Opened(self, library, threads, spin_us)


class Opened:
    """A program in a library, with a pool of its own."""

    def __init__(self, rig: Rig, library: Library, threads: int, spin_us: int) -> None:
        self.rig, self.library = rig, library
        steps = (FvStep * max(len(rig.steps), 1))(*rig.steps)
        inputs = (FvInput * max(len(rig.inputs), 1))(
            *((buffer, buffer in rig.ids, 1 if buffer in rig.ids else rig.parts) for buffer in rig.inputs)
        )
        program = FvProgram(
            steps=steps,
            n_steps=len(rig.steps),
            n_buffers=len(rig.widths),
            widths=(c_int32 * len(rig.widths))(*rig.widths),
            inputs=inputs,
            n_inputs=len(rig.inputs),
            n_caches=rig.n_caches,
            output=rig.output,
            output_parts=rig.output_parts,
            most_rows=rig.most_rows,
        )
        self._pool = c_void_p(library.pool_open(threads, spin_us))
        handle = library.open(self._pool, byref(program))
        self._handle = c_void_p(handle) if handle else None
        if not handle:
            raise ValueError(library.error())

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self.library.close(self._handle)
        if getattr(self, "_pool", None):
            self.library.pool_close(self._pool)

    def run(
        self,
        *inputs: np.ndarray,
        index: Sequence[int] | None = None,
        slots: Sequence[int] | None = None,
        logit_rows: Sequence[int] | None = None,
        caches: Caches | None = None,
    ) -> np.ndarray:
        """Rows of the output; raises IndexError with the library's text if the call fails."""
        rig = self.rig
        rows = len(inputs[0]) if inputs else len(index or ())
        places = np.array(range(rows) if index is None else index, np.int64)
        taken = np.array([] if logit_rows is None else logit_rows, np.int64)
        count = rows if logit_rows is None else len(taken)
        width = rig.widths[rig.output]
        # Parts of rows apart from each other: [parts, rows, width / parts].
        result = np.full((rig.output_parts, max(count, 1), width // rig.output_parts), np.nan, np.float32)
        given = (FvRows * max(len(inputs), 1))()
        kept = []
        for place, array, buffer in zip(given, inputs, rig.inputs, strict=False):
            if buffer in rig.ids:
                array = np.ascontiguousarray(array, np.int64)
                place.row_bytes, place.part_bytes = array.strides
            else:
                array = np.ascontiguousarray(array.astype(np.float32).reshape(rows, rig.parts, -1).transpose(1, 0, 2))
                place.part_bytes, place.row_bytes = array.strides[:2]
            kept.append(array)
            place.data = array.ctypes.data
        slot_array = None if slots is None else np.array(slots, np.int32)
        call = FvCall(
            rows=rows,
            logit_count=len(taken),
            row_index=places.ctypes.data,
            slot=None if slot_array is None else slot_array.ctypes.data,
            logit_rows=taken.ctypes.data,
            inputs=given,
            caches=(caches or Caches()).structs(),
            output=FvRows(result.ctypes.data, result.strides[1], result.strides[0]),
        )
        if self.library.run(self._handle, byref(call)):
            raise IndexError(self.library.error())
        return result.transpose(1, 0, 2).reshape(max(count, 1), width)[:count]


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy whose memory begins at a multiple of 64 bytes, as in a file of weights."""
    memory = np.zeros(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    found = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    found[...] = array
    return found


FORMATS = {"fp32": 0, "int8": 1, "w8": 2, "w4": 3}


def packed(rng: np.random.Generator, form: str, k: int, n: int, block: int) -> np.ndarray:
    """Weights `[K, N]` of a format, as the library reads them; about of unit variance times 1 / sqrt(K)."""
    if form == "fp32":
        return pack_floats((rng.standard_normal((k, n)) / np.sqrt(k)).astype(np.float32))
    most = 7 if form == "w4" else 127
    values = rng.integers(-most - 1, most + 1, (k, n)).astype(np.int8)
    blocks = 1 if form == "int8" or block == 0 else -(-k // block)
    scales = (rng.uniform(0.5, 1.5, (blocks, n)) / most / np.sqrt(k)).astype(np.float32)
    return pack_integers(form, values, scales, 0 if form == "int8" else block)  # type: ignore[arg-type]


def bytes_of(structure: ctypes.Structure) -> bytes:
    """For comparisons."""
    return bytes(structure)
