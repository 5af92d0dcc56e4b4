"""Stages that run their program of native steps (`contract/program.py`) for a few rows, and their graph for more.

Both work on the same caches, in place, so that a sequence may be appended to by either. A row of the program's result depends
on its own firing and on the caches alone, bit for bit: a text is the same however it is cut into calls of up to `most_rows`
rows, and so is a sequence in whatever batch it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import byref, c_int32, c_void_p
from typing import NamedTuple

import numpy as np

from ...contract import InputSpec
from ...contract.program import Program
from ...errors import EngineMismatchError
from ..rows import Array, Block, Ids
from .native_library import FvCache, FvCall, FvInput, FvProgram, FvRows, NativeLibrary, Pool
from .native_steps import steps_of
from .onnxruntime import OnnxRuntimeEngine, OnnxRuntimeStage


class _Read(NamedTuple):
    """How a stage reads one of its inputs: bytes of an item, items of a part, and parts of a firing."""

    given: InputSpec
    item: int
    width: int

    @property
    def part_bytes(self) -> int:
        """Of one row, or of one id."""
        return self.item * self.width


class NativeEngine:
    """One stage's program, opened by the library, and its graph.

    Args:
        graph: what runs longer calls; it may be one that is opened later.
        program: a program that was checked.
        weights: its file of weights, bytes `[n]`.
        library, pool: what runs it.

    Raises:
        EngineMismatchError: the library refuses the program.
    """

    def __init__(self, graph: OnnxRuntimeEngine, program: Program, weights: Array, library: NativeLibrary, pool: Pool) -> None:
        self.spec, self.graph, self.program, self.library = graph.spec, graph, program, library
        self._kept = (weights, pool)  # what the opened program points to
        self.most_rows = program.most_rows
        self.handle: c_void_p | None = self._open(weights, pool)

    def _open(self, weights: Array, pool: Pool) -> c_void_p:
        program = self.program
        ids = [given.buffer for given in program.inputs]
        widths = [buffer.width for buffer in program.buffers]
        for index, given in enumerate(program.inputs):
            if given.buffer is None:  # ids have a buffer too, there
                ids[index] = len(widths)
                widths.append(given.count)
        buffers = [-1 if buffer is None else buffer for buffer in ids]
        steps = steps_of(program, buffers, weights.ctypes.data)
        inputs = (FvInput * len(buffers))(
            *(FvInput(buffer, given.buffer is None, given.count) for buffer, given in zip(buffers, program.inputs, strict=True))
        )
        described = FvProgram(
            steps=steps,
            n_steps=len(steps),
            n_buffers=len(widths),
            widths=(c_int32 * len(widths))(*widths),
            inputs=inputs,
            n_inputs=len(inputs),
            n_caches=len(program.caches),
            output=program.output,
            output_parts=self.spec.output_rows,
            most_rows=program.most_rows,
        )
        handle = self.library.open(pool.handle, byref(described))
        if not handle:
            reason = f'foveal-native refuses the program of stage "{self.spec.name}": {self.library.error()}'
            raise EngineMismatchError(f"{reason}; build the engines again")
        return c_void_p(handle)

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self.library.close(self.handle)

    @property
    def takes_each(self) -> bool:
        """As `SlotsEngine.takes_each`: so do all programs, and the graphs that they are made from."""
        return True

    def bind(self, batch: int, firings: int) -> NativeStage:
        """Allocate zeroed caches and bind them."""
        return NativeStage(self, self.new_caches(batch, firings), batch, firings)

    def new_caches(self, batch: int, firings: int) -> list[Array]:
        """Zeroed caches `[batch, H, rows, W]`, as the graph keeps them."""
        return self.graph.new_caches(batch, firings)

    def attach(self, caches: Sequence[Array], batch: int, firings: int) -> NativeStage:
        """As `SlotsEngine.attach`."""
        return NativeStage(self, caches, batch, firings)


class NativeStage:
    """An engine with its caches: a call that stays where it is, of which a run sets a few addresses."""

    def __init__(self, engine: NativeEngine, caches: Sequence[Array], batch: int, firings: int) -> None:
        self.caches = caches
        self._engine, self._firings = engine, firings
        self._graphs: dict[OnnxRuntimeEngine, OnnxRuntimeStage] = {}  # those that were needed, over the same caches
        self._borrowed: Sequence[Array] = ()
        self._batch, self._most_rows, self._copied = batch, engine.most_rows, 0
        self._library, self._handle, self._run_library = engine.library, engine.handle, engine.library.run
        self._index: Ids = np.arange(firings) if batch == 1 else np.zeros(batch, np.int64)
        self._index_address = self._index.ctypes.data
        self._slots = np.arange(batch, dtype=np.int32)
        spec = engine.spec
        self._reads = [_Read(one, 8, 1) if one.kind == "tokens" else _Read(one, 4, one.width) for one in spec.inputs]
        self._by_stride = all(one.reads == "stride" for one in spec.inputs)
        self._call = call = FvCall()
        inputs, own = (FvRows * len(self._reads))(), (FvCache * len(caches))()
        for place, cache in zip(own, caches, strict=True):
            place.data, place.slot_bytes, place.head_bytes = cache.ctypes.data, cache.strides[0], cache.strides[1]
            place.rows = cache.shape[2]
        for place, read in zip(inputs, self._reads, strict=True):
            place.row_bytes, place.part_bytes = read.given.count * read.part_bytes, read.part_bytes
        call.inputs, call.caches = inputs, own
        call.row_index = self._index_address
        call.slot = None if batch == 1 else self._slots.ctypes.data
        self._inputs, self._output = list(inputs), call.output
        self._output.part_bytes = spec.width * 4
        self._output.row_bytes = spec.width * 4 * (spec.output_rows if spec.output == "hidden" else 1)
        self._given = byref(call)
        self._kept = (inputs, own)

    @property
    def copied_bytes(self) -> int:
        """As `BoundStage.copied_bytes`."""
        return sum(graph.copied_bytes for graph in self._graphs.values()) + self._copied

    def borrow(self, caches: Sequence[Array]) -> None:
        """As `BoundStage.borrow`."""
        self._borrowed = caches
        for graph in self._graphs.values():
            graph.borrow(caches)

    def _graph(self, firings: int) -> OnnxRuntimeStage:
        """What runs calls of so many firings on ONNX Runtime, opened when there is one for the first time."""
        engine = self._engine.graph.for_rows(firings)
        if engine not in self._graphs:
            self._graphs[engine] = engine.attach(self.caches, self._batch, self._firings)
            self._graphs[engine].borrow(self._borrowed)
        return self._graphs[engine]

    def run(self, first: int, firings: int, inputs: Sequence[Block], output: Block, logit_rows: Block | None) -> None:
        """As `BoundStage.run`."""
        if firings > self._most_rows or self._batch > self._most_rows:
            self._graph(firings).run(first, firings, inputs, output, logit_rows)
        elif self._batch == 1:
            call = self._call
            call.rows, call.row_index = firings, self._index_address + 8 * first
            if not self._by_stride:
                inputs = self._brought(inputs)
            for place, block in zip(self._inputs, inputs, strict=True):
                place.data = block.address
            self._output.data = output.address
            if logit_rows is not None:
                call.logit_rows, call.logit_count = logit_rows.address, len(logit_rows.array)
            if self._run_library(self._handle, self._given):
                self._fail()
        else:
            self._index[...] = first
            self._run_batch(firings, self._brought(inputs), output, logit_rows)

    def run_each(self, firsts: Ids, inputs: Sequence[Block], output: Block, logit_rows: Block | None) -> None:
        """As `SlotsStage.run_each`."""
        if self._batch > self._most_rows:
            self._graph(1).run_each(firsts, inputs, output, logit_rows)
        elif self._batch == 1:
            self.run(int(firsts[0]), 1, inputs, output, logit_rows)
        else:
            self._index[...] = firsts
            self._run_batch(1, self._brought(inputs), output, logit_rows)

    def _run_batch(self, firings: int, inputs: Sequence[Block], output: Block, logit_rows: Block | None) -> None:
        """Firing by firing, a row of each sequence in a call; from `_index` on."""
        batch, call, spec = self._batch, self._call, self._engine.spec
        call.rows = batch
        wanted = [] if logit_rows is None else logit_rows.array.tolist()
        for firing in range(firings):
            for place, block, read in zip(self._inputs, inputs, self._reads, strict=True):
                of_firing = read.given.count * read.part_bytes
                if read.given.kind == "tokens":  # [B, firings * count]
                    place.data, place.row_bytes = block.address + firing * of_firing, firings * of_firing
                else:  # [firings * count, B, D]
                    place.data, place.row_bytes = block.address + firing * of_firing * batch, read.part_bytes
                    place.part_bytes = read.part_bytes * batch
            if logit_rows is None:  # [firings * output_rows, B, D]
                row_bytes = spec.width * 4
                self._output.data = output.address + firing * spec.output_rows * batch * row_bytes
                self._output.row_bytes, self._output.part_bytes = row_bytes, row_bytes * batch
                call.logit_count = 0
            else:  # [B, wanted, V]
                is_wanted = firing in wanted
                call.logit_count, call.logit_rows = batch if is_wanted else 0, self._all_rows.ctypes.data
                row_bytes = spec.width * 4
                self._output.data = output.address + (wanted.index(firing) if is_wanted else 0) * row_bytes
                self._output.row_bytes = len(wanted) * row_bytes
            if self._run_library(self._handle, self._given):
                self._fail()
            self._index += 1

    @property
    def _all_rows(self) -> Ids:
        """0, 1, ... of every sequence."""
        if not hasattr(self, "_every"):
            self._every = np.arange(self._batch)
        return self._every

    def _brought(self, inputs: Sequence[Block]) -> Sequence[Block]:
        """One block of each input: rows that are read by place are brought together."""
        given, found = iter(inputs), []
        for read in self._reads:
            block = next(given)
            if read.given.reads == "newest":
                block = self._picked(block, next(given).array)
            found.append(block)
        return found

    def _picked(self, block: Block, places: Ids) -> Block:
        if len(places) == 1:
            return Block(block.address + int(places[0]) * block.array.strides[0], block.array)
        picked = Block.of(np.ascontiguousarray(block.array[places]))
        self._copied += picked.array.nbytes
        return picked

    def _fail(self) -> None:
        raise EngineMismatchError(
            f'the program of stage "{self._engine.spec.name}" does not run: {self._library.error()}; build the engines again'
        )
