"""The tests' fakes of TensorRT and CUDA are held to the real libraries: tests/tensorrt_surface.py."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pytest
from tensorrt_surface import TENSORRTS, Property, Surface, enumeration, mismatches, real, strict, surface

CUDA = "cuda.bindings.runtime"


@pytest.fixture(params=TENSORRTS)
def trt(request: pytest.FixtureRequest) -> Any:
    """Each of the TensorRT libraries: all are loaded in this one process."""
    return real(request.param)


@pytest.fixture
def cuda() -> Any:
    return real(CUDA)


def calls(of: Any, name: str) -> list[str]:
    """The arguments of each overload of a function; those that may be left out in brackets."""
    overloads = [overload.parameters.values() for overload in surface(of).functions[name].overloads]
    return [" ".join(each.name if each.default is each.empty else f"[{each.name}]" for each in one) for one in overloads]


class TestSurface:
    def test_is_that_of_the_versions_we_support(self) -> None:
        assert real("tensorrt").__version__.startswith("11.")
        assert real("tensorrt_rtx").__version__.startswith("1.")

    def test_misses_no_member_of_any_class(self, trt: Any) -> None:
        missing = []
        for name, cls in inspect.getmembers(trt, inspect.isclass):
            found = surface(cls)
            known = found.functions.keys() | found.properties.keys() | found.constants.keys()
            missing += [f"{name}.{member}" for member in dir(cls) if not member.startswith("_") and member not in known]
        assert missing == []

    @pytest.mark.parametrize(
        ("cls", "name", "expected"),
        [
            ("IExecutionContext", "set_tensor_address", ["name memory"]),
            ("IExecutionContext", "execute_async_v3", ["stream_handle"]),
            ("IExecutionContext", "infer_shapes", [""]),
            ("IExecutionContext", "set_input_shape", ["name shape"] * 3),
            ("ICudaEngine", "create_execution_context", ["[strategy]", "[runtime_config]"]),
            ("Runtime", "__init__", ["logger"]),
            ("Logger", "__init__", ["[min_severity]"]),
            ("IProgressMonitor", "phase_start", ["phase_name parent_phase num_steps"]),
            # power: Weights = None, channel_axis: int
            ("INetworkDefinition", "add_scale_nd", ["input mode shift scale power channel_axis"]),
        ],
    )
    def test_tells_the_arguments_of_every_overload(self, trt: Any, cls: str, name: str, expected: list[str]) -> None:
        assert calls(getattr(trt, cls), name) == expected

    def test_knows_the_arguments_that_have_no_name(self, trt: Any) -> None:
        serialize = surface(trt.ICudaEngine).functions["serialize_with_config"]
        assert serialize.refusal("config") is None
        assert "positional" in (serialize.refusal(arg0="config") or "")

    def test_tells_how_a_property_may_be_used(self, trt: Any) -> None:
        context = surface(trt.IExecutionContext).properties
        assert context["engine"] == Property(readable=True, settable=False)
        assert context["nvtx_verbosity"] == Property(readable=True, settable=True)
        assert context["device_memory"] == Property(readable=False, settable=True)

    def test_tells_which_classes_can_be_constructed(self, trt: Any) -> None:
        assert "__init__" in surface(trt.Runtime).functions
        assert "__init__" not in surface(trt.ICudaEngine).functions

    def test_has_the_real_enums(self, trt: Any) -> None:
        assert enumeration(trt.TensorIOMode) == {"NONE": 0, "INPUT": 1, "OUTPUT": 2}
        assert enumeration(trt.ExecutionContextAllocationStrategy) == {"STATIC": 0, "ON_PROFILE_CHANGE": 1, "USER_MANAGED": 2}
        assert surface(trt).constants["DataType"] is trt.DataType
        assert surface(trt.Logger).constants["WARNING"] == trt.ILogger.Severity.WARNING

    def test_tells_the_libraries_apart(self) -> None:
        rtx, full = surface(real("tensorrt_rtx")), surface(real("tensorrt"))
        assert "ComputeCapability" in rtx.constants.keys() - full.constants.keys()
        engines = [surface(library.constants["ICudaEngine"]).properties.keys() for library in (rtx, full)]
        assert engines[0] - engines[1] == {"weights_loaded"}

    def test_of_bindings_without_their_libraries_they_create_nothing(self) -> None:
        trt = real("tensorrt")
        with pytest.raises(TypeError, match="factory function returned nullptr"):
            trt.Runtime(trt.Logger())


class FakeContext:
    """Writes down what it is asked."""

    def __init__(self) -> None:
        self.addresses: dict[str, int] = {}
        self.nvtx_verbosity = "default"
        self.name = "decode"

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return True

    def _help(self) -> None: ...


class TestStrict:
    @pytest.fixture
    def fake(self) -> FakeContext:
        return FakeContext()

    @pytest.fixture
    def context(self, trt: Any, fake: FakeContext) -> Any:
        return strict(surface(trt.IExecutionContext), fake)

    def test_does_what_the_fake_does(self, context: Any, fake: FakeContext) -> None:
        assert context.set_tensor_address("ids", memory=16) is True
        assert fake.addresses == {"ids": 16}
        assert context.name == "decode"

    def test_sets_the_properties_of_the_fake(self, context: Any, fake: FakeContext) -> None:
        context.nvtx_verbosity = "none"
        context.device_memory = 256
        assert (fake.nvtx_verbosity, vars(fake)["device_memory"]) == ("none", 256)

    @pytest.mark.parametrize(
        ("args", "kwargs", "reason"),
        [
            (("ids",), {}, "missing a required argument: 'memory'"),
            (("ids", 16, 4), {}, "too many positional arguments"),
            (("ids",), {"address": 16}, "missing a required argument: 'memory'|got an unexpected keyword argument 'address'"),
        ],
    )
    def test_refuses_other_arguments(self, context: Any, args: tuple[Any, ...], kwargs: dict[str, Any], reason: str) -> None:
        with pytest.raises(TypeError, match=rf"IExecutionContext.set_tensor_address: ({reason}) for \(name, memory\)$"):
            context.set_tensor_address(*args, **kwargs)

    def test_refuses_members_the_real_class_lacks_even_if_the_fake_has_them(self, context: Any) -> None:
        with pytest.raises(AttributeError, match="IExecutionContext has no member addresses$"):
            _ = context.addresses
        assert not hasattr(context, "execute_async_v2")

    def test_refuses_to_set_what_cannot_be_set(self, context: Any) -> None:
        with pytest.raises(AttributeError, match="IExecutionContext has no property addresses$"):
            context.addresses = {}
        with pytest.raises(AttributeError, match="IExecutionContext has no property infer_shapes$"):
            context.infer_shapes = list
        with pytest.raises(AttributeError, match="IExecutionContext.active_optimization_profile is read-only$"):
            context.active_optimization_profile = 1

    def test_refuses_to_read_what_can_only_be_set(self, context: Any) -> None:
        with pytest.raises(AttributeError, match="IExecutionContext.device_memory can only be set$"):
            _ = context.device_memory

    def test_says_what_the_fake_does_not_fake(self, context: Any) -> None:
        with pytest.raises(NotImplementedError, match="FakeContext does not fake .*IExecutionContext.infer_shapes$"):
            hasattr(context, "infer_shapes")

    def test_has_the_constants_of_the_real_class(self, trt: Any) -> None:
        assert strict(surface(trt.Logger), object()).ERROR is trt.Logger.ERROR

    def test_takes_any_of_the_overloads(self, trt: Any) -> None:
        fake = SimpleNamespace(create_execution_context=lambda *args, **kwargs: (args, kwargs))
        engine = strict(surface(trt.ICudaEngine), fake)
        assert engine.create_execution_context() == ((), {})
        assert engine.create_execution_context(runtime_config=1) == ((), {"runtime_config": 1})
        with pytest.raises(TypeError, match="'config' for .*strategy=.*; .*'config' for .*runtime_config="):
            engine.create_execution_context(config=1)


class TestMismatches:
    """A fake whose methods are not the real ones is refused at once."""

    @pytest.fixture
    def context(self, trt: Any) -> Surface:
        return surface(trt.IExecutionContext)

    def test_are_none_in_a_faithful_fake(self, context: Surface) -> None:
        assert mismatches(context, FakeContext()) == []

    def test_are_methods_the_real_class_lacks(self, context: Surface) -> None:
        with pytest.raises(TypeError, match=r"is not like tensorrt\w*.IExecutionContext: it has no function execute_async_v2$"):
            strict(context, SimpleNamespace(execute_async_v2=lambda bindings: None))

    @pytest.mark.parametrize(
        ("fake", "written"),
        [
            (lambda name: None, "(name)"),
            (lambda name, address: None, "(name, address)"),
            (lambda name, memory=0: None, "(name, memory=...)"),
        ],
    )
    def test_are_other_arguments(self, context: Surface, fake: Any, written: str) -> None:
        assert mismatches(context, SimpleNamespace(set_tensor_address=fake)) == [
            f"set_tensor_address{written} should be set_tensor_address(name, memory)"
        ]

    def test_are_not_the_names_of_arguments_that_have_none(self, trt: Any) -> None:
        assert mismatches(surface(trt.ICudaEngine), SimpleNamespace(serialize_with_config=lambda config: b"")) == []


class FakeRuntime:
    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> None: ...


class TestLibrary:
    """A fake of a whole module: its classes are the real ones, except for those that are given."""

    @pytest.fixture
    def fake(self, trt: Any) -> Any:
        return strict(surface(trt), SimpleNamespace(Runtime=FakeRuntime))

    def test_constructs_fakes_that_are_strict(self, fake: Any) -> None:
        runtime = fake.Runtime("a logger")
        assert runtime.logger == "a logger"
        with pytest.raises(AttributeError, match="Runtime has no member deserialize_engine$"):
            _ = runtime.deserialize_engine
        with pytest.raises(TypeError, match="Runtime: missing a required argument: 'logger'"):
            fake.Runtime()

    def test_keeps_the_rest(self, trt: Any, fake: Any) -> None:
        assert fake.__version__ == trt.__version__
        assert fake.TensorIOMode.INPUT is trt.TensorIOMode.INPUT
        assert issubclass(type("Logger", (fake.ILogger,), {}), trt.ILogger)
        assert fake.nptype(fake.float32) == trt.nptype(trt.float32)

    def test_runs_no_compiled_function(self, fake: Any) -> None:
        with pytest.raises(NotImplementedError, match="does not fake .*init_libnvinfer_plugins$"):
            fake.init_libnvinfer_plugins(None, "")

    def test_refuses_classes_the_real_one_does_not_let_construct(self, trt: Any) -> None:
        with pytest.raises(TypeError, match="it has no function ICudaEngine"):
            strict(surface(trt), SimpleNamespace(ICudaEngine=FakeContext))


class FakeDriver:
    """Remembers what was allocated."""

    def __init__(self, runtime: Any) -> None:
        self.sizes: list[int] = []
        self._success = runtime.cudaError_t.cudaSuccess

    def cudaMalloc(self, size: int) -> Any:
        self.sizes.append(size)
        return self._success, 4096

    def cudaFree(self, devPtr: int) -> Any:
        return self._success


class TestCuda:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("cudaMalloc", "size"),
            ("cudaMemcpyAsync", "dst src count kind stream"),
            ("cudaStreamCreateWithFlags", "flags"),
            ("cudaGraphInstantiate", "graph flags"),
        ],
    )
    def test_tells_the_arguments(self, cuda: Any, name: str, expected: str) -> None:
        assert calls(cuda, name) == [expected]

    def test_has_the_real_enums(self, cuda: Any) -> None:
        assert enumeration(cuda.cudaMemcpyKind)["cudaMemcpyHostToDevice"] == 1

    @pytest.mark.parametrize(
        "name", ["cudaRuntimeGetVersion", "cudaDriverGetVersion", "cudaGetDeviceCount", "cudaPeekAtLastError"]
    )
    def test_tells_how_many_results_there_are(self, cuda: Any, name: str) -> None:
        assert surface(cuda).functions[name].results == len(getattr(cuda, name)())

    def test_tells_the_results_of_nearly_all_functions(self, cuda: Any) -> None:
        unknown = [name for name, function in surface(cuda).functions.items() if function.results is None]
        assert set(unknown) <= {"cudaGetExportTable"}

    def test_a_strict_driver_takes_the_real_arguments(self, cuda: Any) -> None:
        fake = FakeDriver(cuda)
        driver = strict(surface(cuda), fake)
        assert driver.cudaMalloc(size=8) == (driver.cudaError_t.cudaSuccess, 4096)
        assert fake.sizes == [8]
        assert driver.cudaMemcpyKind is cuda.cudaMemcpyKind
        with pytest.raises(TypeError, match=r"cudaMalloc: .* for \(size\)$"):
            driver.cudaMalloc(bytes=8)

    def test_a_strict_driver_returns_as_many_results(self, cuda: Any) -> None:
        with pytest.raises(TypeError, match="cudaFree returns a tuple of 1, the fake <cudaError_t.cudaSuccess: 0>$"):
            strict(surface(cuda), FakeDriver(cuda)).cudaFree(4096)

    def test_a_strict_driver_reaches_no_device(self, cuda: Any) -> None:
        with pytest.raises(NotImplementedError, match="FakeDriver does not fake cuda.bindings.runtime.cudaGetDeviceCount$"):
            strict(surface(cuda), FakeDriver(cuda)).cudaGetDeviceCount()
