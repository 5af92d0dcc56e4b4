"""Stages on ONNX Runtime, through IOBinding on memory that never moves.

Caches are bound once, input and output to the same memory: the engine appends to them in place. Rows are bound per call by
address, which costs about a microsecond each and copies nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...bundle import EngineSidecar
from ...contract import StageSpec
from ...errors import BackendUnavailable, ConfigError, EngineMismatchError
from ..rows import Array, Block

PROVIDERS = {"cpu": "CPUExecutionProvider"}
# Every stage has its own pool of threads, which by default spin for about a second after a run and so take the cores from the
# next stage. This long is enough to bridge two operators and short enough to be gone (docs/adr/0004 has the measurements).
_SPIN_US = 100
_FLOAT32, _INT64 = np.dtype(np.float32), np.dtype(np.int64)


# Before, ONNX Runtime refuses int8 caches (to 1.24), fails at the first run (1.25, 1.26) or is wrong for batches (1.27).
INT8_CACHES_SINCE = "1.28"


def has_int8_caches() -> bool:
    """Whether the installed onnxruntime attends over int8 caches, and rightly."""
    installed = import_onnxruntime().__version__.split(".")
    return tuple(map(int, installed[:2])) >= tuple(map(int, INT8_CACHES_SINCE.split(".")))


def import_onnxruntime() -> Any:
    """The onnxruntime module; raises BackendUnavailable with the line that installs it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendUnavailable(
            f"onnxruntime can't be imported ({error}); target cpu runs on it: pip install 'foveal[cpu]'"
        ) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise BackendUnavailable(
            "onnxruntime is an empty package: onnxruntime and onnxruntime-gpu overwrote each other; "
            "uninstall both and install one: pip install 'foveal[cpu]'"
        )
    return onnxruntime


class _ProcessPool:
    """The one pool of threads that all sessions of this process use, if it was asked for."""

    threads: int | None = None


def share_threads(threads: int) -> None:
    """Let all engines of this process, from now on, run on one pool of `threads` threads instead of one pool each.

    Pools of their own get into each other's way when stages take turns: on two cores a shared one decodes up to a fifth faster
    (docs/adr/0004). But it belongs to the process: ONNX Runtime then refuses sessions, of other code too, that do not set
    `use_per_session_threads = False`. So it is for programs that run no other ONNX models, as the `foveal` command.

    Raises:
        ConfigError: fewer than one thread, or there is a shared pool of another size already.
        BackendUnavailable: onnxruntime is not installed.
    """
    if threads < 1:
        raise ConfigError(f"threads must be at least 1, got {threads}; leave it out to have the number measured")
    if _ProcessPool.threads not in (None, threads):
        raise ConfigError(
            f"this process shares {_ProcessPool.threads} threads already, got {threads}; the number is fixed once it is set"
        )
    if _ProcessPool.threads is None:
        import_onnxruntime().set_global_thread_pool_sizes(threads, 1)
        _ProcessPool.threads = threads


def shared_threads() -> int | None:
    """The size of the pool that `share_threads` made; None: engines have pools of their own."""
    return _ProcessPool.threads


def session_options(threads: int = 1) -> Any:
    """Options that every session of foveal starts from: its threads, and only errors in the log."""
    options = import_onnxruntime().SessionOptions()
    options.log_severity_level = 3
    if _ProcessPool.threads is not None:
        options.use_per_session_threads = False
    else:
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(_SPIN_US))
    return options


class OnnxRuntimeEngine:
    """One stage graph in an `InferenceSession`.

    Raises:
        BackendUnavailable: onnxruntime is not installed.
        EngineMismatchError: this onnxruntime can't load the engine, or loaded it on another provider than asked.
    """

    def __init__(self, spec: StageSpec, path: Path, sidecar: EngineSidecar, threads: int, target: str = "cpu") -> None:
        ort = import_onnxruntime()
        if sidecar.cache_dtype == "int8" and not has_int8_caches():
            raise EngineMismatchError(
                f'the engine of stage "{spec.name}" keeps int8 caches, which need onnxruntime {INT8_CACHES_SINCE} or later, '
                f"got {ort.__version__}; upgrade it, or build the bundle with --cache fp32"
            )
        provider = PROVIDERS[target]
        try:
            self.session = ort.InferenceSession(str(path), session_options(threads), providers=[provider])
        except Exception as error:  # onnxruntime's exceptions share no base class
            reason = str(error).splitlines()[0]
            raise EngineMismatchError(
                f'onnxruntime {ort.__version__} can\'t load the engine of stage "{spec.name}", '
                f"built by {sidecar.builder}: {reason}"
            ) from error
        if self.session.get_providers()[0] != provider:
            raise EngineMismatchError(f"asked for {provider}, onnxruntime gave {self.session.get_providers()}")
        self.spec, self.sidecar, self.path = spec, sidecar, path
        self.input_names = {given.name for given in self.session.get_inputs()}

    def bind(self, batch: int, rows: int) -> OnnxRuntimeStage:
        """Allocate zeroed caches `[batch, H, rows, Dh]` and bind them."""
        return OnnxRuntimeStage(self, self.new_caches(batch, rows), batch, rows)

    def new_caches(self, batch: int, rows: int) -> list[Array]:
        """Zeroed keys and values of every layer, as this engine keeps them."""
        shape = (batch, self.spec.heads, rows, self.sidecar.cache_head_dim)
        return [np.zeros(shape, self.sidecar.cache_dtype) for _ in range(2 * self.spec.layers)]


class _Counters:
    """Where a stage stands, as its engine wants to know it; an engine has some of these as inputs.

    `position` int64 `[B]` first of the firings, `last_row` int32 `[B]` last of them, `total` int32 `[1]` rows in the caches
    after them, `is_chunk` bool `[]` whether there are several, `rows` int64 `[1, L]` the index of each.
    """

    def __init__(self, batch: int, capacity: int) -> None:
        self.batch, self.capacity = batch, capacity
        self._position, self._last_row = np.zeros(batch, np.int64), np.zeros(batch, np.int32)
        self._total, self._is_chunk = np.zeros(1, np.int32), np.zeros((), np.bool_)
        self.fixed: dict[str, Array] = {
            "position": self._position,
            "last_row": self._last_row,
            "total": self._total,
            "is_chunk": self._is_chunk,
        }
        self._rows = np.arange(capacity)
        self.rows_address = self._rows.ctypes.data

    def set(self, first: int, firings: int) -> None:
        """Firings `[first, first + firings)` come next."""
        self._position[...], self._last_row[...] = first, first + firings - 1
        self._total[0], self._is_chunk[...] = first + firings, firings > 1


class OnnxRuntimeStage:
    """An engine with its caches bound in place.

    Rows are bound through the object inside `IOBinding`: the public wrapper builds a device description at every call, which
    makes a bind cost 4.7 us instead of 1.3.
    """

    def __init__(self, engine: OnnxRuntimeEngine, caches: list[Array], batch: int, rows: int) -> None:
        self.caches: Sequence[Array] = caches
        self.copied_bytes = 0
        self._engine, self._spec = engine, engine.spec
        self._binding = engine.session.io_binding()
        self._bind_input, self._bind_output = self._binding._iobinding.bind_input, self._binding._iobinding.bind_output
        self._device = _cpu_device()
        self._inputs = [(given.name, _INT64 if given.kind == "tokens" else _FLOAT32) for given in self._spec.inputs]
        self._counters = _Counters(batch, rows)
        self._in_place = batch == 1 or not engine.sidecar.batch_one_chunks or not caches
        self._counts_rows = "rows" in engine.input_names
        self._one_by_one: list[OnnxRuntimeStage] | None = None
        self._bind_fixed()

    def _bind_fixed(self) -> None:
        for name, array in self._counters.fixed.items():
            if name in self._engine.input_names:
                self._bind_input(name, self._device, array.dtype, array.shape, array.ctypes.data)
        for index, cache in enumerate(self.caches):
            name = f"{index // 2}.{('key', 'value')[index % 2]}"
            self._bind_input(f"past_key_values.{name}", self._device, cache.dtype, cache.shape, cache.ctypes.data)
            self._bind_output(f"present.{name}", self._device, cache.dtype, cache.shape, cache.ctypes.data)

    def run(self, first: int, firings: int, inputs: Sequence[Block], output: Block, logit_rows: Block | None) -> None:
        """As `BoundStage.run`."""
        if firings > 1 and not self._in_place:
            self._run_one_by_one(first, firings, inputs, output, logit_rows)
            return
        device = self._device
        self._counters.set(first, firings)
        if self._counts_rows:
            address = self._counters.rows_address + first * _INT64.itemsize
            self._bind_input("rows", device, _INT64, (1, firings), address)
        for (name, dtype), (address, array) in zip(self._inputs, inputs, strict=True):
            self._bind_input(name, device, dtype, array.shape, address)
        if logit_rows is not None:
            self._bind_input("logit_rows", device, _INT64, logit_rows.array.shape, logit_rows.address)
        self._bind_output(self._spec.output, device, _FLOAT32, output.array.shape, output.address)
        self._engine.session.run_with_iobinding(self._binding)

    def _run_one_by_one(
        self, first: int, firings: int, inputs: Sequence[Block], output: Block, logit_rows: Block | None
    ) -> None:
        """Run a chunk sequence by sequence, on views of the caches; rows are staged, and counted as copied."""
        if self._one_by_one is None:
            views = ([cache[b : b + 1] for cache in self.caches] for b in range(self._counters.batch))
            self._one_by_one = [OnnxRuntimeStage(self._engine, caches, 1, self._counters.capacity) for caches in views]
        for b, stage in enumerate(self._one_by_one):
            staged = [_one(block.array, b, block.array.dtype == _INT64) for block in inputs]
            result = np.empty_like(_one(output.array, b, logit_rows is not None))
            stage.run(first, firings, [Block.of(array) for array in staged], Block.of(result), logit_rows)
            if logit_rows is not None:
                output.array[b] = result[0]
            else:
                output.array[:, b] = result[:, 0]
            self.copied_bytes += sum(array.nbytes for array in staged) + result.nbytes


def _one(rows: Array, b: int, is_batch_first: bool) -> Array:
    """Sequence b alone, contiguous."""
    return np.ascontiguousarray(rows[b : b + 1] if is_batch_first else rows[:, b : b + 1])


def _cpu_device() -> Any:
    from onnxruntime.capi._pybind_state import OrtDevice

    return OrtDevice(OrtDevice.cpu(), OrtDevice.default_memory(), 0)
