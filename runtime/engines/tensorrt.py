"""Resident stages on TensorRT, `tensorrt_lean` and TensorRT-RTX: one backend, for the three speak the same API.

NOT RUN on any GPU so far (docs/support.md). What is tested is that it calls the real libraries' methods with the right
arguments, on fakes that are held to the real modules, and that the addresses it binds are those of the ONNX Runtime backend.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import msgspec

from ...contract import Contract, Limits, StageSpec, TensorSpec, late_stages, resident_contract_of, size_of, sizes_of
from ...errors import DeviceError, EngineMismatchError
from ...sidecar import EngineSidecar
from ..cuda import CudaDevice
from ..device import Buffer
from . import nvtx
from .resident import Phase
from .runtime_cache import RuntimeCache
from .tensorrt_library import Library

PROFILES: Mapping[Phase, int] = {"decode": 0, "prefill": 1}
"""The optimisation profile of each phase: every engine is built with these two."""
LayerTimes = dict[str, float]
"""Milliseconds by layer."""
_DTYPES = {"float32": "FLOAT", "float16": "HALF", "int8": "INT8", "int64": "INT64"}


class TensorRTRuntime:
    """What the engines of one bundle share: the library's runtime, the device, and the memory they compute in.

    Engines run one after the other on one stream, so the largest of them decides how much activation memory there is. Those
    that run beside them, one after the other too, have a second block, as large as the largest of those needs.
    """

    def __init__(self, library: Library, device: CudaDevice) -> None:
        self.library, self.device = library, device
        self.runtime = library.module.Runtime(library.logger)
        self._activation_bytes = {False: 0, True: 0}  # by whether it is for what runs beside
        self._activation: dict[bool, Buffer] = {}

    def deserialize(self, serialized: bytes, stage: str, sidecar: EngineSidecar) -> Any:
        """Raises EngineMismatchError, with the library's words, if it can't."""
        with self.library.listening() as messages:
            engine = self.runtime.deserialize_cuda_engine(serialized)
        if engine is None:
            reason = next((message.text for message in messages if message.is_error), "it gave no reason")
            raise EngineMismatchError(
                f'{self.library} can\'t load the engine of stage "{stage}", built by {sidecar.builder}: {reason}; '
                f"build it again on this machine: foveal build BUNDLE --target {sidecar.target}"
            )
        return engine

    def reserve(self, nbytes: int, beside: bool = False) -> None:
        """Let a block of shared memory be at least so large; before any engine is bound."""
        self._activation_bytes[beside] = max(self._activation_bytes[beside], nbytes)

    def activation(self, beside: bool) -> Buffer:
        """A block of shared memory, aligned to 256 bytes as all of the device's is; there is none that nobody asked for."""
        if beside not in self._activation:
            self._activation[beside] = self.device.allocate(self._activation_bytes[beside])
        return self._activation[beside]


class TensorRTProgram:
    """A deserialised engine whose tensors stay at one address, as `ResidentProgram`.

    Args:
        name: of its stage, or of the sampler.
        serialized: the engine.
        sidecar: what lies beside it.
        contract: its tensors.
        sizes: what the letters of fixed dimensions stand for.
        shared: what it shares with the others.

    Raises:
        EngineMismatchError: the library can't load it, its weights were left out, or its tensors are not those of the contract.
    """

    def __init__(
        self,
        name: str,
        serialized: bytes,
        sidecar: EngineSidecar,
        contract: Contract,
        sizes: Mapping[str, int],
        shared: TensorRTRuntime,
    ) -> None:
        self.name, self.sidecar, self.contract, self.sizes, self.shared = name, sidecar, contract, sizes, shared
        if sidecar.build is not None and sidecar.build.weights_stripped:
            self._refuse("weights", "none", "its own, which this version can't put back (leave out --strip-weights)")
        self.engine = shared.deserialize(serialized, name, sidecar)
        self._check_tensors()
        self.runtime_cache = RuntimeCache.of(sidecar.engine_sha256)
        shared.reserve(self.engine.device_memory_size_v2)  # the most that a profile takes, which `set_device_memory` asks for

    def bind(self, phase: Phase, batch: int, beside: bool = False) -> TensorRTStage:
        """As `ResidentProgram.bind`: each phase has an execution context of its own, as recorded graphs hold its shapes."""
        return TensorRTStage(self, phase, batch, beside)

    def keep_compiled(self) -> None:
        """As `ResidentProgram.keep_compiled`: kernels that TensorRT-RTX compiled for this GPU."""
        self.runtime_cache.save()

    def new_context(self, phase: Phase, beside: bool) -> Any:
        """An execution context on the shared memory, with the profile of a phase."""
        shared = self.shared
        strategy = shared.library.module.ExecutionContextAllocationStrategy.USER_MANAGED
        how = self._rtx_config(phase, strategy) if shared.library.is_rtx else strategy
        context = self.engine.create_execution_context(how)
        if context is None:
            raise DeviceError(f'no execution context for stage "{self.name}": the GPU may be out of memory')
        activation = shared.activation(beside)
        context.set_device_memory(activation.address, activation.nbytes)
        if not context.set_optimization_profile_async(PROFILES[phase], shared.device.stream):
            raise DeviceError(f'stage "{self.name}" refuses optimisation profile {PROFILES[phase]} ({phase})')
        return context

    def _rtx_config(self, phase: Phase, strategy: Any) -> Any:
        """When TensorRT-RTX compiles kernels for the shapes it meets, and where it keeps them.

        A recording keeps its kernels, so decode's must be the final ones; prompts seldom have the same length twice.
        """
        specialization = self.shared.library.module.DynamicShapesKernelSpecializationStrategy
        config = self.engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        config.dynamic_shapes_kernel_specialization_strategy = (
            specialization.EAGER if phase == "decode" else specialization.LAZY
        )
        self.runtime_cache.attach(config)
        return config

    def _check_tensors(self) -> None:
        """Compare names, types, fixed dimensions and places of the engine's tensors with the stage's."""
        found = {self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)}
        expected = {tensor.name: tensor for tensor in _tensors(self.contract)}
        if found != expected.keys():
            self._refuse("tensors", sorted(found), sorted(expected))
        trt = self.shared.library.module
        for name, tensor in expected.items():
            shape, dtype = tuple(self.engine.get_tensor_shape(name)), getattr(trt.DataType, _DTYPES[tensor.dtype])
            fixed = tuple(size_of(dimension, self.sizes) for dimension in tensor.shape)
            if shape != fixed:
                self._refuse(f"shape of {name}", shape, fixed)
            if self.engine.get_tensor_dtype(name) != dtype:
                self._refuse(f"type of {name}", self.engine.get_tensor_dtype(name), dtype)
            if self.engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
                self._refuse(f"place of {name}", "the host", "the device")
        if self.engine.num_optimization_profiles != len(PROFILES):
            self._refuse("number of optimisation profiles", self.engine.num_optimization_profiles, len(PROFILES))

    def _refuse(self, what: str, got: object, expected: object) -> NoReturn:
        raise EngineMismatchError(
            f'the engine of stage "{self.name}" is another one\'s: {what}: got {got}, expected {expected}; '
            f"build it again: foveal build BUNDLE --target {self.sidecar.target}"
        )


class TensorRTEngine(TensorRTProgram):
    """One stage's engine, as `ResidentEngine`; raises as `TensorRTProgram`."""

    replaces_in_place = False

    def __init__(
        self,
        spec: StageSpec,
        serialized: bytes,
        sidecar: EngineSidecar,
        stages: Sequence[StageSpec],
        shared: TensorRTRuntime,
    ) -> None:
        self.spec, self.name, self.sidecar = spec, spec.name, sidecar
        if sidecar.limits is None:
            self._refuse("limits in its sidecar", "none", "those it was built for")
        self.limits: Limits = sidecar.limits
        self.cache_widths, self.cache_dtype = sidecar.cache_widths, str(sidecar.cache_dtype)
        self.own_positions, self.target = sidecar.own_positions, sidecar.target
        contract = resident_contract_of(msgspec.structs.replace(spec, cache_dtype=sidecar.cache_dtype))
        super().__init__(spec.name, serialized, sidecar, contract, sizes_of(self.limits, stages, spec.name), shared)
        if spec.name in late_stages(stages):
            shared.reserve(self.engine.device_memory_size_v2, beside=True)
        self.in_place = self._updates_in_place()

    def _updates_in_place(self) -> bool:
        """Whether all caches and logs must be, and so may be, read and written at one address; a stage without any never turns.

        TensorRT 10.3 knows no such tensors. A recurrent state is none: it is replaced, by any operation.
        """
        replaced = {f"present.{cache.name}" for cache in self.spec.caches if cache.recurrent}
        pairs = [
            (tensor.name, tensor.aliased_with)
            for tensor in self.contract.outputs
            if tensor.aliased_with is not None and tensor.name not in replaced
        ]
        query = getattr(self.engine, "get_aliased_input_tensor", None)
        aliased = [query is not None and query(present) == past for present, past in pairs]
        if any(aliased) and not all(aliased):
            self._refuse("state updated in place", f"{sum(aliased)} of {len(pairs)} tensors", "all or none")
        return all(aliased)


class TensorRTStage:
    """An execution context with bound addresses, as `ResidentStage`. It runs on the stream that the device queues on then."""

    def __init__(self, program: TensorRTProgram, phase: Phase, batch: int, beside: bool = False) -> None:
        self._program, self._batch, self._label = program, batch, f"{program.name} {phase}"
        self._context = program.new_context(phase, beside)
        self._stream = program.shared.device.stream  # that it ran on last
        self._addresses: dict[str, int] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._dynamic = {
            tensor.name: tensor.shape
            for tensor in program.contract.inputs
            if any(size_of(dimension, program.sizes) == -1 for dimension in tensor.shape)
        }

    def bind(self, tensor: str, buffer: Buffer) -> None:
        """As `ResidentStage.bind`."""
        if self._addresses.get(tensor) == buffer.address:
            return
        if not self._context.set_tensor_address(tensor, buffer.address):
            raise DeviceError(f"stage {self._label} refuses the address of {tensor}")
        self._addresses[tensor] = buffer.address

    def run(self, firings: int, wanted: int, spans: Mapping[str, int] | None = None) -> None:
        """As `ResidentStage.run`."""
        letters = {**self._program.sizes, "B": self._batch, "L": firings, "N": wanted, **(spans or {})}
        for name, dimensions in self._dynamic.items():
            self._set_shape(name, tuple(size_of(dimension, letters) for dimension in dimensions))
        self._stream = self._program.shared.device.stream
        with nvtx.range(self._label):
            if not self._context.execute_async_v3(self._stream):
                raise DeviceError(f"stage {self._label} could not be queued; the log of foveal.tensorrt says why")

    def check_recordable(self) -> None:
        """As `ResidentStage.check_recordable`; only TensorRT-RTX can be asked."""
        if self._program.shared.library.is_rtx and not self._context.is_stream_capturable(self._stream):
            raise DeviceError(f"stage {self._label} can't be recorded in a CUDA graph, says {self._program.shared.library}")

    def profile(self) -> LayerTimes:
        """Have the library time every layer of the runs that follow; the result grows with them. Not for recorded runs."""
        times: LayerTimes = {}
        self._profiler = _profiler(self._program.shared.library.module, times)  # the context does not keep it alive
        self._context.profiler = self._profiler
        return times

    def _set_shape(self, name: str, shape: tuple[int, ...]) -> None:
        if self._shapes.get(name) == shape:
            return
        if not self._context.set_input_shape(name, shape):
            raise DeviceError(f"stage {self._label} refuses shape {list(shape)} of {name}")
        self._shapes[name] = shape


def _profiler(trt: Any, times: LayerTimes) -> Any:
    class Profiler(trt.IProfiler):  # type: ignore[misc]
        """Adds up what each layer took."""

        def __init__(self) -> None:
            trt.IProfiler.__init__(self)  # the binding's own; it warns of super()

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            times[layer_name] = times.get(layer_name, 0.0) + ms

    return Profiler()


def _tensors(contract: Contract) -> Iterator[TensorSpec]:
    yield from contract.inputs
    yield from contract.outputs
