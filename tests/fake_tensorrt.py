"""TensorRT that is not there: three generations of it, running the graphs that engines are built of in ONNX Runtime.

    library = FakeTensorRT("tensorrt-rtx", gpu)          # or "tensorrt", or "tensorrt 10.3"
    engine = plan(lower(graph, spec, family), family)    # what a build would serialise
    runtime = TensorRTRuntime(library.library, device)

An engine's runs are queued on the stream of a `FakeGpu` and read and write the addresses that were bound, so a decoder on it
gives exact numbers. It refuses what TensorRT refuses: a run without every address, shape, profile and activation memory; shapes
outside the profile; addresses that are not aligned, not the device's or too short; state at two addresses where it is updated
in place, and at one where it is not. All classes are strict: they have the members of the real library and no others.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from fake_cuda import ALIGNMENT, Call, CudaFailure, FakeGpu
from tensorrt_surface import Function, Surface, real, strict, surface

from foveal.export.graphs.gpu import LoweredStage
from foveal.export.tensorrt.family import Family
from foveal.export.tensorrt.profiles import profiles_of, shapes
from foveal.runtime.engines.tensorrt_library import Library, library_of

Generation = Literal["tensorrt-rtx", "tensorrt", "tensorrt 10.3"]
GENERATIONS: tuple[Generation, ...] = ("tensorrt-rtx", "tensorrt", "tensorrt 10.3")
DIALECTS: dict[Generation, str] = {"tensorrt-rtx": "modern", "tensorrt": "modern", "tensorrt 10.3": "classic"}
"""What each is given to build: engines of `modern` graphs update their state in place, those of `classic` ones can't."""

_DATA_TYPES = {onnx.TensorProto.FLOAT: "FLOAT", onnx.TensorProto.FLOAT16: "HALF", onnx.TensorProto.INT64: "INT64"}
_NUMPY = {"FLOAT": np.dtype(np.float32), "HALF": np.dtype(np.float16), "INT64": np.dtype(np.int64)}
# What came after 10.3, of the members that foveal asks for.
_SINCE_10_3 = {
    "ICudaEngine": ("create_runtime_config", "get_aliased_input_tensor"),
    "IExecutionContext": ("get_runtime_config",),
}


def plan(stage: LoweredStage, family: Family, activation_bytes: int = 1000) -> bytes:
    """What a build would serialise of a stage: its graph, its profiles and the activation memory that it takes."""
    bounds = [shapes(stage.contract, stage.sizes, profile) for profile in profiles_of(stage.spec, family.limits, stage.sizes)]
    header = {
        "name": stage.spec.name,
        "weights": str(stage.graph.parent),
        "profiles": bounds,
        "activation_bytes": activation_bytes,
    }
    return json.dumps(header).encode() + b"\n" + stage.model


class FakeTensorRT:
    """A library, and what tests want to know of it or have it do.

    Attributes:
        module: the strict fake.
        engines, contexts: all that were made.
        edit: called with every engine that is deserialised, to make another of it.
        refusing: calls that fail, as `"set_tensor_address position"` or `"execute_async_v3"`.
        compiled: kernels that TensorRT-RTX compiled because no cache had them.
        accepts_caches: whether TensorRT-RTX takes the runtime caches it is given.
    """

    def __init__(self, generation: Generation, gpu: FakeGpu) -> None:
        self.generation, self.gpu = generation, gpu
        self.is_rtx = generation == "tensorrt-rtx"
        self.real = real("tensorrt_rtx" if self.is_rtx else "tensorrt")
        self.engines: list[FakeEngine] = []
        self.contexts: list[FakeContext] = []
        self.edit: Callable[[FakeEngine], None] = lambda engine: None
        self.refusing: set[str] = set()
        self.compiled: list[str] = []
        self.accepts_caches = True
        self._marks = itertools.cycle(range(1, 251))
        self.module = strict(self._module_surface(), SimpleNamespace(Runtime=lambda logger: FakeRuntime(self, logger)))

    @functools.cached_property
    def library(self) -> Library:
        """What `library_of` makes of it."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "tensorrt_rtx" if self.is_rtx else "tensorrt", self.module)
            return library_of.__wrapped__("tensorrt-rtx" if self.is_rtx else "tensorrt")

    def strict(self, name: str, fake: Any) -> Any:
        """A fake of one of the library's classes."""
        described = surface(getattr(self.real, name))
        if self.generation == "tensorrt 10.3":
            gone = _SINCE_10_3.get(name, ())
            functions = {key: function for key, function in described.functions.items() if key not in gone}
            if name == "ICudaEngine":
                functions["create_execution_context"] = Function(functions["create_execution_context"].overloads[:1])
            described = replace(described, functions=functions)
        return strict(described, fake)

    def next_mark(self) -> int:
        """A byte that no other run of late wrote."""
        return next(self._marks)

    def does(self, call: str) -> bool:
        """Whether a call succeeds."""
        return call not in self.refusing

    def _module_surface(self) -> Surface:
        described = surface(self.real)
        if self.generation != "tensorrt 10.3":
            return described
        constants = {key: constant for key, constant in described.constants.items() if key != "IRuntimeConfig"}
        return replace(described, constants={**constants, "__version__": "10.3.0"})


class FakeRuntime:
    """As `Runtime`."""

    def __init__(self, library: FakeTensorRT, logger: Any) -> None:
        self._library, self.logger = library, logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        """None, after an error in the log, for what no fake build wrote."""
        header, _, model = serialized_engine.partition(b"\n")
        try:
            described = json.loads(header)
        except ValueError:
            self._complain("Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed")
            return None
        kind = FakeEngine if self._library.generation == "tensorrt 10.3" else FakeEngineSince11
        engine = kind(self._library, described, model, self._complain)
        self._library.edit(engine)
        self._library.engines.append(engine)
        return self._library.strict("ICudaEngine", engine)

    def _complain(self, text: str) -> None:
        self.logger.log(self._library.real.ILogger.ERROR, text)


@dataclass
class Tensor:
    """An input or output of an engine: `letters` has the names of its dimensions, as the graph has them."""

    name: str
    type: str
    letters: tuple[int | str, ...]
    is_input: bool
    location: str = "DEVICE"
    alias: str | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """With -1 for what a call may choose."""
        return tuple(size if isinstance(size, int) else -1 for size in self.letters)

    def shape_of(self, sizes: dict[str, int]) -> tuple[int, ...]:
        """Where the letters stand for `sizes`."""
        return tuple(size if isinstance(size, int) else sizes[size] for size in self.letters)


class FakeEngine:
    """As `ICudaEngine`; what it says of its tensors is what the graph says."""

    def __init__(self, library: FakeTensorRT, header: Any, model: bytes, complain: Callable[[str], None]) -> None:
        self._library, self.stage, self.profiles = library, header["name"], header["profiles"]
        self.session = _session(model, header["weights"])
        self.tensors = {tensor.name: tensor for tensor in _tensors(model)}
        self.num_optimization_profiles = len(self.profiles)
        self.device_memory_size_v2 = header["activation_bytes"]
        self._complain, self._reals = complain, library.real

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_shape(self, name: str) -> Any:
        return self._reals.Dims(self.tensors[name].shape)

    def get_tensor_dtype(self, name: str) -> Any:
        return getattr(self._reals.DataType, self.tensors[name].type)

    def get_tensor_location(self, name: str) -> Any:
        return getattr(self._reals.TensorLocation, self.tensors[name].location)

    def create_execution_context(self, *args: Any, **kwargs: Any) -> Any:
        """With a strategy, or since 11 with a configuration."""
        (how,) = (*args, *kwargs.values())
        if not self._library.does("create_execution_context"):
            return None
        is_strategy = isinstance(how, self._reals.ExecutionContextAllocationStrategy)
        config = FakeConfig(strategy=how) if is_strategy else fake_of(how)
        context = (FakeRtxContext if self._library.is_rtx else FakeContext)(self._library, self, config, self._complain)
        self._library.contexts.append(context)
        return self._library.strict("IExecutionContext", context)


class FakeEngineSince11(FakeEngine):
    """As `ICudaEngine` since 11, and of TensorRT-RTX."""

    def get_aliased_input_tensor(self, name: str) -> str | None:
        return self.tensors[name].alias

    def create_runtime_config(self) -> Any:
        config = FakeRtxConfig(self._library) if self._library.is_rtx else FakeConfig()
        return self._library.strict("IRuntimeConfig", config)


class FakeConfig:
    """As `IRuntimeConfig`: what an execution context is made with."""

    cache: FakeCache | None = None

    def __init__(self, strategy: Any = None) -> None:
        self.strategy = strategy

    def set_execution_context_allocation_strategy(self, strategy: Any = None) -> bool:
        self.strategy = strategy
        return True


class FakeRtxConfig(FakeConfig):
    """As TensorRT-RTX's, which compiles kernels late and can keep them."""

    def __init__(self, library: FakeTensorRT) -> None:
        super().__init__()
        self._library = library
        self.dynamic_shapes_kernel_specialization_strategy: Any = None

    def create_runtime_cache(self) -> Any:
        return self._library.strict("IRuntimeCache", FakeCache(self._library))

    def set_runtime_cache(self, cache: Any = None) -> bool:
        self.cache = fake_of(cache)
        return True


class FakeCache:
    """As `IRuntimeCache`: names of kernels."""

    def __init__(self, library: FakeTensorRT) -> None:
        self._library, self.kernels = library, []  # type: FakeTensorRT, list[str]

    def deserialize(self, blob: bytes) -> bool:
        if self._library.accepts_caches:
            self.kernels = json.loads(blob)
        return self._library.accepts_caches

    def serialize(self) -> bytes:
        return json.dumps(self.kernels).encode()


LAYER_MS = {"product": 3.0, "norm": 1.0}
"""What a profiler is told of every run: layers, and how long they took."""


class FakeContext:
    """As `IExecutionContext`.

    Attributes:
        addresses, shapes: of tensors, as they were set last.
        runs: how often it was queued.
        streams: that it was queued on, and that it was asked about, in order.
    """

    def __init__(self, library: FakeTensorRT, engine: FakeEngine, config: FakeConfig, complain: Callable[[str], None]) -> None:
        self._library, self.engine, self.config, self._complain = library, engine, config, complain
        self.addresses: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.profile: int | None = None
        self.memory, self.memory_bytes, self.runs = 0, 0, 0
        self.streams: list[int] = []
        self.profiler: Any = None

    def set_device_memory(self, memory: int, size: int) -> None:
        self.memory, self.memory_bytes = memory, size

    def set_optimization_profile_async(self, profile_index: int, stream_handle: Any) -> bool:
        self._library.gpu.stream(stream_handle)
        self.profile = profile_index
        return self._library.does("set_optimization_profile_async")

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return name in self.engine.tensors and self._library.does(f"set_tensor_address {name}")

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        smallest, _, largest = self.engine.profiles[self.profile][name]
        fits = all(low <= size <= high for low, size, high in zip(smallest, shape, largest, strict=True))
        if fits:
            self.shapes[name] = tuple(shape)
        else:
            self._complain(f"IExecutionContext::setInputShape: {name} is {list(shape)}, not in {smallest} to {largest}")
        return fits and self._library.does(f"set_input_shape {name}")

    def execute_async_v3(self, stream_handle: Any) -> bool:
        """Queue a run on the addresses and shapes as they are now; False, after an error in the log, if something is amiss."""
        gpu = self._library.gpu
        gpu.calls.append(Call("execute_async_v3", (self.engine.stage, self.profile)))
        problem = next(self._problems(), None)
        if problem is None and not self._library.does("execute_async_v3"):
            problem = "it was told to fail"
        if problem is None:
            try:
                gpu.enqueue(stream_handle, self._run())
                self.streams.append(int(stream_handle))
            except CudaFailure as failure:
                problem = str(failure)
        if problem is not None:
            self._complain(f"IExecutionContext::enqueueV3: {self.engine.stage}: {problem}")
            return False
        self._compile()
        self.runs += 1
        if self.profiler is not None:
            for layer, ms in LAYER_MS.items():
                self.profiler.report_layer_time(layer, ms)
        return True

    def _problems(self) -> Iterator[str]:
        if self.profile is None:
            yield "no optimisation profile"
        needed = self.engine.device_memory_size_v2
        if self.memory_bytes < needed or not self._library.gpu.is_on_device(self.memory, needed):
            yield "too little device memory"
        if self.config.strategy != self.engine._reals.ExecutionContextAllocationStrategy.USER_MANAGED:
            yield "device memory was set, but the context has its own"
        dynamic = [tensor for tensor in self.engine.tensors.values() if tensor.is_input and -1 in tensor.shape]
        if missing := [tensor.name for tensor in dynamic if tensor.name not in self.shapes]:
            yield f"no shape for {missing}"
        if missing := [name for name in self.engine.tensors if name not in self.addresses]:
            yield f"no address for {missing}"
        for tensor in self.engine.tensors.values():
            yield from self._misplaced(tensor)

    def _sizes(self) -> dict[str, int]:
        """What every letter stands for in the shapes that were set, which must agree."""
        sizes: dict[str, int] = {}
        for name, shape in self.shapes.items():
            for letter, size in zip(self.engine.tensors[name].letters, shape, strict=True):
                factor, _, plain = str(letter).rpartition("*")
                if sizes.setdefault(plain, size // int(factor or 1)) * int(factor or 1) != size:
                    raise ValueError(f"{plain} is both {sizes[plain]} and {size // int(factor or 1)}")
        return sizes

    def _shape(self, tensor: Tensor) -> tuple[int, ...]:
        return self.shapes.get(tensor.name) or tensor.shape_of(self._sizes())

    def _nbytes(self, tensor: Tensor) -> int:
        return int(np.prod(self._shape(tensor))) * _NUMPY[tensor.type].itemsize

    def _misplaced(self, tensor: Tensor) -> Iterator[str]:
        address, nbytes = self.addresses[tensor.name], self._nbytes(tensor)
        if address % ALIGNMENT:
            yield f"the address of {tensor.name} is not aligned to {ALIGNMENT} bytes"
        if not self._library.gpu.is_on_device(address, nbytes):
            yield f"{tensor.name} is not {nbytes} bytes of the device's memory"
        if tensor.alias is not None and self.addresses[tensor.alias] != address:
            yield f"{tensor.name} is updated in place, but at another address than {tensor.alias}"
        if not tensor.is_input:
            for other in self.engine.tensors.values():
                begin = self.addresses[other.name]
                overlaps = begin < address + nbytes and address < begin + self._nbytes(other)
                if overlaps and other.name not in (tensor.name, tensor.alias):
                    yield f"{tensor.name} is written to where {other.name} is"

    def _run(self) -> Callable[[], Iterator[None]]:
        """The run, as it is bound now; meanwhile the activation memory is written to, and must not be by another."""
        engine, memory, memory_bytes, gpu = self.engine, self.memory, self.memory_bytes, self._library.gpu
        places = [(tensor, self.addresses[tensor.name], self._shape(tensor)) for tensor in engine.tensors.values()]
        spans = [(self.addresses[tensor.name], self._nbytes(tensor)) for tensor in engine.tensors.values()]
        binding = engine.session.io_binding()
        for tensor, address, shape in places:
            bind = binding.bind_input if tensor.is_input else binding.bind_output
            bind(tensor.name, "cpu", 0, _NUMPY[tensor.type], shape, address)

        def work() -> Iterator[None]:
            if not all(gpu.is_on_device(*span) for span in [(memory, memory_bytes), *spans]):
                raise CudaFailure("cudaErrorIllegalAddress")
            mark = self._library.next_mark()
            ctypes.memset(memory, mark, memory_bytes)
            yield
            if ctypes.string_at(memory, memory_bytes) != bytes([mark]) * memory_bytes:
                raise AssertionError(f"{engine.stage} computed in memory that another run wrote to meanwhile")
            engine.session.run_with_iobinding(binding)

        return work

    def _compile(self) -> None:
        """TensorRT-RTX compiles an engine's kernels when it first runs, unless its cache has them."""
        cache, kernel = self.config.cache, f"{self.engine.stage} {self.profile}"
        if cache is not None and kernel not in cache.kernels:
            cache.kernels.append(kernel)
            self._library.compiled.append(kernel)


class FakeRtxContext(FakeContext):
    """As TensorRT-RTX's, which says whether it can be captured: once its kernels are compiled."""

    def is_stream_capturable(self, stream: Any) -> bool:
        self._library.gpu.stream(stream)
        self.streams.append(int(stream))
        return self.runs > 0 and self._library.does("is_stream_capturable")


def fake_of(wrapped: Any) -> Any:
    """What is inside a strict fake."""
    return object.__getattribute__(wrapped, "_fake")


@functools.lru_cache(maxsize=256)
def _session(model: bytes, weights: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", weights)
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@functools.lru_cache(maxsize=256)
def _described(model: bytes) -> tuple[tuple[str, str, tuple[int | str, ...], bool, str | None], ...]:
    loaded = onnx.load_model_from_string(model)
    writing = {function.name for function in loaded.functions if any(node.op_type == "TensorScatter" for node in function.node)}
    written = {name for node in loaded.graph.node if node.op_type in writing for name in node.output}
    inputs = {value.name for value in loaded.graph.input}

    def alias(name: str) -> str | None:
        past = name.replace("present_", "past_").replace("present.", "past_key_values.")
        return past if name in written and past in inputs and past != name else None

    return tuple(
        (
            value.name,
            _DATA_TYPES[value.type.tensor_type.elem_type],
            tuple(dimension.dim_param or dimension.dim_value for dimension in value.type.tensor_type.shape.dim),
            value.name in inputs,
            alias(value.name),
        )
        for value in (*loaded.graph.input, *loaded.graph.output)
    )


def _tensors(model: bytes) -> list[Tensor]:
    return [Tensor(name, kind, letters, is_input, alias=alias) for name, kind, letters, is_input, alias in _described(model)]
