"""Stages on ONNX Runtime, through IOBinding on memory that never moves.

Caches are bound once, input and output to the same memory: the engine appends to them in place. Rows are bound per call by
address, which costs about a microsecond each and copies nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec
import numpy as np

from ...bundle import chunks_name
from ...contract import StageSpec, read_tensors
from ...errors import EngineMismatchError, reason_of
from ...sidecar import EngineSidecar
from ..rows import Array, Block, Ids
from .counters import Counters
from .onnxruntime_library import (
    INT8_CACHES_SINCE,
    has_int8_caches,
    import_onnxruntime,
    memory_of,
    open_session,
    session_options,
)

PROVIDER = "CPUExecutionProvider"
_FLOAT32, _INT64 = np.dtype(np.float32), np.dtype(np.int64)


class OnnxRuntimeEngine:
    """One stage graph in an `InferenceSession`; unless `optimised`, it runs node by node as it is written.

    A stage may have a second graph, for many rows: it is loaded when there are many for the first time. With `later` so is
    the first one, when it is first asked for anything; `open` has all done at once. Threads that ask meanwhile wait.

    With `trace` ONNX Runtime times every operator, and writes them to a file of a name that begins so when the session's
    `end_profiling` is called.

    Raises:
        BackendUnavailable: onnxruntime is not installed.
        EngineMismatchError: this onnxruntime can't load the engine, or loaded it on another provider than asked.
    """

    def __init__(
        self,
        spec: StageSpec,
        path: Path,
        sidecar: EngineSidecar,
        threads: int,
        optimised: bool = True,
        trace: Path | None = None,
        later: bool = False,
    ) -> None:
        ort = import_onnxruntime()
        if sidecar.cache_dtype == "int8" and not has_int8_caches():
            raise EngineMismatchError(
                f'the engine of stage "{spec.name}" keeps int8 caches, which need onnxruntime {INT8_CACHES_SINCE} or later, '
                f"got {ort.__version__}; upgrade it, or build the bundle with --cache fp32"
            )
        if len(sidecar.cache_widths) != len(spec.caches):
            raise EngineMismatchError(
                f'the engine of stage "{spec.name}" has {len(sidecar.cache_widths)} caches by its sidecar, expected '
                f"{len(spec.caches)}; build the engines again"
            )
        self.spec, self.sidecar, self.path = spec, sidecar, path
        self._chunks: OnnxRuntimeEngine | None = None
        self._loading, self._settings = Lock(), (threads, optimised, trace)
        self._session: Any = None if later else self._open()

    def _open(self) -> Any:
        threads, optimised, trace = self._settings
        options = session_options(threads)
        if not optimised:
            options.graph_optimization_level = import_onnxruntime().GraphOptimizationLevel.ORT_DISABLE_ALL
        if trace is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(trace)
        return open_session(self.path, self.spec.name, self.sidecar.builder, options, PROVIDER)

    @property
    def session(self) -> Any:
        """The `InferenceSession`.

        Raises:
            EngineMismatchError: it is opened only now, and that fails.
        """
        if self._session is None:
            with self._loading:
                if self._session is None:
                    self._session = self._open()
        return self._session

    @property
    def is_open(self) -> bool:
        """Whether ONNX Runtime has loaded the stage's graph, or the one for many rows."""
        return self._session is not None or self._chunks is not None

    def open(self) -> None:
        """Load now what is left to be loaded when it is needed.

        Raises:
            EngineMismatchError: as of an engine.
        """
        if self.session is not None and self.sidecar.chunks is not None:
            self.for_rows(self.sidecar.chunks.least_rows)

    @property
    def input_names(self) -> set[str]:
        """Of the graph."""
        return set(self._shapes)

    @property
    def takes_each(self) -> bool:
        """As `SlotsEngine.takes_each`; false of engines built before there were batches of phases."""
        return bool(self._shapes.get("rows", ["B"])[0] != 1)

    @property
    def _shapes(self) -> dict[str, Sequence[Any]]:
        return {given.name: given.shape for given in self.session.get_inputs()}

    def for_rows(self, firings: int) -> OnnxRuntimeEngine:
        """The engine that runs so many firings at once: itself, or the one for many.

        Raises:
            EngineMismatchError: as of an engine.
        """
        chunks = self.sidecar.chunks
        if chunks is None or firings < chunks.least_rows:
            return self
        with self._loading:
            if self._chunks is None:
                threads, optimised, trace = self._settings
                sidecar = msgspec.structs.replace(self.sidecar, chunks=None)
                trace = trace and trace.with_name(f"{trace.name}.chunks")
                path = Path(chunks_name(str(self.path)))
                self._chunks = OnnxRuntimeEngine(self.spec, path, sidecar, threads, optimised, trace)
        return self._chunks

    def bind(self, batch: int, firings: int) -> OnnxRuntimeStage:
        """Allocate zeroed caches and bind them."""
        return OnnxRuntimeStage(self, self.new_caches(batch, firings), batch, firings)

    def new_caches(self, batch: int, firings: int) -> list[Array]:
        """Zeroed caches `[batch, H, rows, W]`, as this engine keeps them."""
        caches = zip(self.spec.caches, self.sidecar.cache_widths, strict=True)
        dtype = self.sidecar.cache_dtype
        return [np.zeros((batch, cache.heads, cache.length(firings), width), dtype) for cache, width in caches]

    def attach(self, caches: Sequence[Array], batch: int, firings: int) -> OnnxRuntimeStage:
        """As `SlotsEngine.attach`."""
        return OnnxRuntimeStage(self, caches, batch, firings)


class OnnxRuntimeStage:
    """An engine with its caches bound in place.

    Rows are bound through the object inside `IOBinding`: the public wrapper builds a device description at every call, which
    makes a bind cost 4.7 us instead of 1.3.
    """

    def __init__(self, engine: OnnxRuntimeEngine, caches: Sequence[Array], batch: int, firings: int) -> None:
        self.caches = caches
        self.copied_bytes = 0
        self._engine, self._spec = engine, engine.spec
        self._binding = engine.session.io_binding()
        self._bind_input, self._bind_output = self._binding._iobinding.bind_input, self._binding._iobinding.bind_output
        self._device = memory_of("cpu")
        self._inputs = [(tensor.name, np.dtype(tensor.dtype)) for tensor in read_tensors(self._spec)]
        self._given = engine.input_names
        self._counters = Counters(batch, firings, engine.takes_each)
        self._in_place = batch == 1 or not engine.sidecar.batch_one_chunks or not caches
        self._counts_rows = "rows" in self._given
        self._one_by_one: list[OnnxRuntimeStage] | None = None
        self._chunks: OnnxRuntimeStage | None = None
        self._borrowed: Sequence[Array] = ()
        try:
            self._bind_fixed()
        except Exception as error:
            raise _mismatch(self._spec, error) from error

    def _bind_fixed(self) -> None:
        for name, array in self._counters.fixed.items():
            if name in self._given:
                self._bind_input(name, self._device, array.dtype, array.shape, array.ctypes.data)
        for spec, cache in zip(self._spec.caches, self.caches, strict=True):
            self._bind_input(f"past_key_values.{spec.name}", self._device, cache.dtype, cache.shape, cache.ctypes.data)
            self._bind_output(f"present.{spec.name}", self._device, cache.dtype, cache.shape, cache.ctypes.data)

    def borrow(self, caches: Sequence[Array]) -> None:
        """As `BoundStage.borrow`."""
        self._borrowed = caches  # keeps them alive
        if self._chunks is not None:
            self._chunks.borrow(caches)
        try:
            for given, cache in zip(self._spec.borrows, caches, strict=True):
                self._bind_input(given.name, self._device, cache.dtype, cache.shape, cache.ctypes.data)
        except Exception as error:
            raise _mismatch(self._spec, error) from error

    def run(self, first: int, firings: int, inputs: Sequence[Block], output: Block, logit_rows: Block | None) -> None:
        """As `BoundStage.run`."""
        if firings > 1 and not self._in_place:
            self._run_one_by_one(first, firings, inputs, output, logit_rows)
        else:
            self._for_rows(firings)._run(first, firings, inputs, output, logit_rows)

    def _for_rows(self, firings: int) -> OnnxRuntimeStage:
        """Itself, or the stage of the engine for many rows, over the same caches."""
        engine = self._engine.for_rows(firings)
        if engine is self._engine:
            return self
        if self._chunks is None:
            self._chunks = OnnxRuntimeStage(engine, self.caches, self._counters.batch, self._counters.capacity)
            self._chunks.borrow(self._borrowed)
        return self._chunks

    def run_each(self, firsts: Ids, inputs: Sequence[Block], output: Block, logit_rows: Block | None) -> None:
        """As `SlotsStage.run_each`."""
        self._run(firsts if len(firsts) > 1 else int(firsts[0]), 1, inputs, output, logit_rows)

    def _run(self, first: int | Ids, firings: int, inputs: Sequence[Block], output: Block, logit_rows: Block | None) -> None:
        device = self._device
        self._counters.set(first, firings)
        try:
            if self._counts_rows:
                address, shape = self._counters.rows(first, firings)
                self._bind_input("rows", device, _INT64, shape, address)
            for (name, dtype), (address, array) in zip(self._inputs, inputs, strict=True):
                self._bind_input(name, device, dtype, array.shape, address)
            if logit_rows is not None:
                self._bind_input("logit_rows", device, _INT64, logit_rows.array.shape, logit_rows.address)
            self._bind_output(self._spec.output, device, _FLOAT32, output.array.shape, output.address)
            self._engine.session.run_with_iobinding(self._binding)
        except Exception as error:
            raise _mismatch(self._spec, error) from error

    def _run_one_by_one(
        self, first: int, firings: int, inputs: Sequence[Block], output: Block, logit_rows: Block | None
    ) -> None:
        """Run a chunk sequence by sequence, on views of the caches; rows are staged, and counted as copied."""
        if self._one_by_one is None:
            views = ([cache[b : b + 1] for cache in self.caches] for b in range(self._counters.batch))
            self._one_by_one = [OnnxRuntimeStage(self._engine, caches, 1, self._counters.capacity) for caches in views]
            for b, stage in enumerate(self._one_by_one):
                stage.borrow([cache[b : b + 1] for cache in self._borrowed])
        for b, stage in enumerate(self._one_by_one):
            staged = [
                block.array if block.array.ndim == 1 else _one(block.array, b, block.array.dtype == _INT64) for block in inputs
            ]
            result = np.empty_like(_one(output.array, b, logit_rows is not None))
            stage.run(first, firings, [Block.of(array) for array in staged], Block.of(result), logit_rows)
            if logit_rows is not None:
                output.array[b] = result[0]
            else:
                output.array[:, b] = result[:, 0]
            self.copied_bytes += sum(array.nbytes for array in staged) + result.nbytes


def _mismatch(spec: StageSpec, error: Exception) -> EngineMismatchError:
    """Of whatever onnxruntime raised: its exceptions share no base class."""
    return EngineMismatchError(
        f'the engine of stage "{spec.name}" does not run as the manifest describes it: {reason_of(error)}; '
        "convert the checkpoint again"
    )


def _one(rows: Array, b: int, is_batch_first: bool) -> Array:
    """Sequence b alone, contiguous."""
    return np.ascontiguousarray(rows[b : b + 1] if is_batch_first else rows[:, b : b + 1])
