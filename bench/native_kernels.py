"""What the native library's kernels reach: products by format and rows, attention by length, each against memory's speed.

Products are of as many matrices as together are far larger than any cache, one behind the other, as in a decode step; beside
them the same products by ONNX Runtime's operators, if asked. Figures are GB/s of weights, or of keys and values, and times one
row.

python -m foveal.bench.native_kernels [--library FILE] [--threads N] [--onnxruntime]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from ctypes import byref, c_int32, c_void_p
from itertools import cycle
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from ..export.cpu.native.packing import pack_floats, pack_integers
from ..runtime.engines.native_library import (
    FvCache,
    FvCall,
    FvInput,
    FvProgram,
    FvRows,
    FvStep,
    NativeLibrary,
    Pool,
    native_library,
)
from .bandwidth import MemoryReader
from .product_graphs import ProductGraph, product_bytes
from .script import run_script

ROWS = (1, 2, 4, 8, 16)
LENGTHS = (16, 128, 512, 2048, 8192)
SHAPE = (512, 2048)
HEADS, HEAD_DIM = 8, 64
_BYTES = 96 << 20  # of weights, or of keys and values: three times the last-level cache
_ROUNDS = 5
PRODUCT, ATTEND = 5, 6
FORMATS = {"fp32": (0, 0), "int8": (1, 0), "w8": (2, 256), "w4": (3, 32)}
"""Each format's number in `native/src/api.h`, and the rows of its blocks."""


class Found(NamedTuple):
    """Microseconds of one product or one attention, and the bytes that it reads."""

    us: float
    bytes: int

    @property
    def gb_s(self) -> float:
        return self.bytes / self.us / 1e3


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", type=Path, help="libfoveal_native.so; the installed one if not given")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--onnxruntime", action="store_true", help="its kernels too")
    given = parser.parse_args()
    library = NativeLibrary(given.library) if given.library else native_library()
    with MemoryReader() as memory:
        roof = memory.gb_s()
    console = Console(width=120)
    console.print(f"{library.isa}, {given.threads} threads; memory {roof:.1f} GB/s")
    pool = Pool(library, given.threads)
    products = {name: products_of(library, pool, name) for name in FORMATS}
    if given.onnxruntime:
        products |= {f"{name}, ONNX Runtime": onnxruntime_products(name, given.threads) for name in FORMATS}
    console.print(table(f"products of {SHAPE[0]} x {SHAPE[1]}: GB/s of one row, then times its time", ROWS, products))
    for name, dtype in (("fp32", np.float32), ("int8", np.int8)):
        found = {f"{rows} rows": attentions(library, pool, np.dtype(dtype), rows) for rows in (1, 8)}
        console.print(table(f"attention to {name} caches: GB/s by length", LENGTHS, found, in_gb_s=True))


def table(title: str, columns: tuple[int, ...], found: dict[str, list[Found]], in_gb_s: bool = False) -> Table:
    """A line for each case."""
    made = Table("", *map(str, columns), box=None, title=title)
    for name, cells in found.items():
        first = cells[0]
        texts = [f"{first.gb_s:.1f} GB/s", *(f"{cell.us / first.us:.2f}x" for cell in cells[1:])]
        made.add_row(name, *([f"{cell.gb_s:.1f}" for cell in cells] if in_gb_s else texts))
    return made


class _Stage:
    """A program of one step, opened."""

    def __init__(
        self, library: NativeLibrary, pool: Pool, step: FvStep, widths: tuple[int, int], kept: Any, caches: int = 0
    ) -> None:
        self._library, self._kept, self._pool = library, kept, pool
        program = FvProgram(
            steps=(FvStep * 1)(step),
            n_steps=1,
            n_buffers=2,
            widths=(c_int32 * 2)(*widths),
            inputs=(FvInput * 1)(FvInput(0, 0, 1)),
            n_inputs=1,
            n_caches=caches,
            output=1,
            output_parts=1,
            most_rows=max(ROWS),
        )
        handle = library.open(pool.handle, byref(program))
        if not handle:
            raise RuntimeError(library.error())
        self.handle = c_void_p(handle)
        self._x = np.random.default_rng(0).standard_normal((max(ROWS), widths[0])).astype(np.float32)
        self._y = np.empty((max(ROWS), widths[1]), np.float32)
        self._inputs = (FvRows * 1)(FvRows(self._x.ctypes.data, self._x.strides[0], 0))

    def call(self, rows: int, first: int = 0, caches: Any = None) -> Callable[[], None]:
        """Runs it for so many rows from that index on."""
        index = np.arange(first, first + rows)
        output = FvRows(self._y.ctypes.data, self._y.strides[0], 0)
        call = FvCall(rows=rows, row_index=index.ctypes.data, inputs=self._inputs, caches=caches, output=output)
        given, run, handle = byref(call), self._library.run, self.handle

        def once() -> None:
            if run(handle, given):
                raise RuntimeError(self._library.error())

        once.kept = index, call  # type: ignore[attr-defined]
        return once

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self._library.close(self.handle)


def products_of(library: NativeLibrary, pool: Pool, name: str) -> list[Found]:
    """By rows."""
    number, block = FORMATS[name]
    rng, (k, n) = np.random.default_rng(0), SHAPE
    if name == "fp32":
        weights: Any = pack_floats(rng.standard_normal((k, n)).astype(np.float32))
    else:
        values = rng.integers(-8 if name == "w4" else -128, 8 if name == "w4" else 128, (k, n)).astype(np.int8)
        scales = np.full((-(-k // block) if block else 1, n), 0.01, np.float32)
        weights = pack_integers(name, values, scales, block)  # type: ignore[arg-type]
    stages = []
    for _ in range(_BYTES // weights.nbytes):
        memory = _aligned(weights)
        step = FvStep(kind=PRODUCT)
        step.inputs[:], step.outputs[:] = [0, -1, -1, -1], [1, -1]
        step.n[:5], step.f[0], step.data[0] = [number, k, n, block, 0], 0.03, memory.ctypes.data
        stages.append(_Stage(library, pool, step, SHAPE, memory))
    return [Found(_us([stage.call(rows) for stage in stages]), weights.nbytes) for rows in ROWS]


def attentions(library: NativeLibrary, pool: Pool, dtype: np.dtype[Any], rows: int) -> list[Found]:
    """By length."""
    step = FvStep(kind=ATTEND)
    step.inputs[:], step.outputs[:] = [0, -1, -1, -1], [1, -1]
    step.n[:7] = [0, 1, HEADS, HEADS, HEAD_DIM, HEAD_DIM, int(dtype == np.int8)]
    step.f[:3] = [HEAD_DIM**-0.5, 0.03, 0.03]
    stage = _Stage(library, pool, step, (3 * HEADS * HEAD_DIM, HEADS * HEAD_DIM), None, caches=2)
    found = []
    for length in LENGTHS:
        used = 2 * HEADS * length * HEAD_DIM * dtype.itemsize
        kept = [[np.ones((1, HEADS, length, HEAD_DIM), dtype) for _ in range(2)] for _ in range(max(_BYTES // used, 1))]
        calls = [stage.call(rows, length - rows, _structs(pair)) for pair in kept]
        found.append(Found(_us(calls), used))
    return found


def _structs(caches: list[np.ndarray]) -> Any:
    made = (FvCache * len(caches))()
    for place, cache in zip(made, caches, strict=True):
        place.data, place.slot_bytes, place.head_bytes = cache.ctypes.data, cache.strides[0], cache.strides[1]
        place.rows = cache.shape[2]
    return made


def onnxruntime_products(name: str, threads: int) -> list[Found]:
    """The same by the operators that a CPU engine has; all are in one graph, so that its threads need not be woken for each."""
    count = _BYTES // product_bytes(name, SHAPE)
    graph = ProductGraph(name, [SHAPE], count, threads)
    return [Found(_us([graph.call(rows)], 1) / count, graph.bytes // count) for rows in ROWS]


def _us(calls: list[Callable[[], None]], least: int = 64) -> float:
    """Median over rounds of the mean of all calls, at least so many; one more round warms up."""
    times, count = [], max(len(calls), least)
    for _ in range(_ROUNDS + 1):
        began = perf_counter_ns()
        for _, call in zip(range(count), cycle(calls), strict=False):
            call()
        times.append((perf_counter_ns() - began) / count / 1e3)
    return median(times[1:])


def _aligned(array: np.ndarray) -> np.ndarray:
    memory = np.empty(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    found = memory[start : start + array.nbytes]
    found[...] = array.reshape(-1).view(np.uint8)
    return found


if __name__ == "__main__":
    run_script(main)
