"""The TensorRT backend on three generations of TensorRT that are not there, held to the members of the real ones."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from engine_bundles import build_record
from fake_cuda import FakeGpu
from fake_tensorrt import DIALECTS, GENERATIONS, FakeContext, FakeEngine, FakeTensorRT, Generation, plan
from resident_engines import LIMITS, family_of, lowered, session_of, sidecar_of, specs_of, tensorrt_engines
from specimens import Zoo, random_ids
from tensorrt_surface import TENSORRTS, real, surface

from foveal.contract import StageSpec
from foveal.errors import BackendUnavailable, DeviceError, EngineMismatchError
from foveal.runtime.cuda import CudaDevice
from foveal.runtime.engines import nvtx
from foveal.runtime.engines.tensorrt import TensorRTEngine, TensorRTRuntime
from foveal.runtime.engines.tensorrt_library import library_of
from foveal.runtime.sampling import SamplingParams
from foveal.runtime.session import Session

NAME = "linear"
"""The specimen: three stages, `1.pre`, `5` and `1.post`."""


@pytest.fixture(params=GENERATIONS)
def library(request: pytest.FixtureRequest, gpu: FakeGpu) -> FakeTensorRT:
    """Each generation of TensorRT."""
    return FakeTensorRT(request.param, gpu)


def open_session(zoo: Zoo, library: FakeTensorRT) -> Session:
    """Of the specimen, on a library."""
    return session_of(tensorrt_engines(zoo[NAME], library.generation, library.gpu, library=library), zoo[NAME])


def open_engine(zoo: Zoo, library: FakeTensorRT, serialized: bytes | None = None, **sidecar: Any) -> TensorRTEngine:
    """The first stage's engine."""
    specs, dialect = specs_of(zoo[NAME]), DIALECTS[library.generation]
    stage = lowered(zoo[NAME], dialect)[0]
    return TensorRTEngine(
        stage.spec,
        plan(stage, family_of(zoo[NAME], dialect)) if serialized is None else serialized,
        sidecar_of(stage.spec, library.library.target, dialect, sidecar.pop("limits", LIMITS), **sidecar),
        specs,
        TensorRTRuntime(library.library, CudaDevice(cudart=library.gpu.cudart)),
    )


class TestAContext:
    """There is one for each stage and phase, for a recording holds the shapes and addresses of the one it was made on."""

    def test_has_the_profile_of_its_phase(self, zoo: Zoo, library: FakeTensorRT) -> None:
        """The first for decode, the second for prefill."""
        session = open_session(zoo, library)
        found = [(context.engine.stage, context.profile) for context in library.contexts]
        stages = [(spec.name, profile) for profile in (0, 1) for spec in specs_of(zoo[NAME])]
        assert found == [*stages, ("sampler", 0), ("sampler", 0)]  # for each of two firing sets
        assert session.position == 0

    def test_computes_in_memory_that_it_is_given(self, zoo: Zoo, library: FakeTensorRT) -> None:
        """It has none of its own."""
        open_session(zoo, library)
        strategy = library.module.ExecutionContextAllocationStrategy.USER_MANAGED
        assert {context.config.strategy for context in library.contexts} == {strategy}

    def test_of_rtx_compiles_at_once_for_decode_and_late_for_prefill(self, zoo: Zoo, gpu: FakeGpu) -> None:
        """A recording keeps the kernels that were there; prompts seldom have the same length twice."""
        library = FakeTensorRT("tensorrt-rtx", gpu)
        open_session(zoo, library)
        kinds = [config_of(context).dynamic_shapes_kernel_specialization_strategy.name for context in library.contexts]
        assert kinds == ["EAGER"] * 3 + ["LAZY"] * 3 + ["EAGER"] * 2

    def test_of_rtx_shares_the_cache_of_its_engine(self, zoo: Zoo, gpu: FakeGpu) -> None:
        """One for both phases."""
        library = FakeTensorRT("tensorrt-rtx", gpu)
        open_session(zoo, library)
        caches = [context.config.cache for context in library.contexts]
        assert caches[:3] == caches[3:6]
        assert len({id(cache) for cache in caches}) == 3 + 1

    def test_is_told_an_address_or_a_shape_only_when_it_changes(self, zoo: Zoo, library: FakeTensorRT) -> None:
        """A recording that was made once needs none of this; a prefill only what is new."""
        session, told = open_session(zoo, library), []
        session.advance(random_ids(1, 4))
        session.rewind(4)
        for context in library.contexts:
            record(context, "set_tensor_address", told)
            record(context, "set_input_shape", told)
        session.advance(random_ids(1, 4))
        states = [name for name in told if name.startswith(("past_", "present", "rows."))]
        assert told == states
        assert bool(states) == (library.generation == "tensorrt 10.3")


def config_of(context: FakeContext) -> Any:
    """The configuration it was made with."""
    return context.config


def record(context: FakeContext, name: str, told: list[str]) -> None:
    """Write down which tensors a context's method is called for."""
    method = getattr(context, name)

    def call(tensor: str, value: Any) -> bool:
        told.append(tensor)
        return bool(method(tensor, value))

    setattr(context, name, call)


class TestInPlace:
    """Whether state is read and written at one address is what the engine says."""

    @pytest.mark.parametrize(
        ("generation", "dialect", "expected"),
        [
            ("tensorrt-rtx", "modern", True),
            ("tensorrt-rtx", "classic", False),
            ("tensorrt", "modern", True),
            ("tensorrt", "classic", False),
            ("tensorrt 10.3", "classic", False),
        ],
    )
    def test_is_asked_of_the_engine(self, generation: Generation, dialect: str, expected: bool, zoo: Zoo, gpu: FakeGpu) -> None:
        """TensorRT 10.3 can't be asked, and copies."""
        engines = tensorrt_engines(zoo[NAME], generation, gpu, dialect=dialect).engines
        assert [engine.in_place for engine in engines] == [expected] * 3

    def test_of_a_stage_without_state_is_trivial(self, zoo: Zoo, gpu: FakeGpu) -> None:
        """A last stage without layers keeps neither caches nor rows: it has no turns, and no recordings for them."""
        engines = tensorrt_engines(zoo["empty stacks"], "tensorrt 10.3", gpu).engines
        assert [engine.in_place for engine in engines] == [False, False, False, False, True]

    @pytest.mark.parametrize("generation", ["tensorrt-rtx", "tensorrt"])
    def test_of_some_tensors_only_is_refused(self, generation: Generation, zoo: Zoo, gpu: FakeGpu) -> None:
        """The decoder can't have a stage take turns and not."""
        library = FakeTensorRT(generation, gpu)

        def edit(engine: FakeEngine) -> None:
            engine.tensors["present_rows"].alias = None

        library.edit = edit
        with pytest.raises(EngineMismatchError, match="state updated in place: got 2 of 3 tensors, expected all or none"):
            open_engine(zoo, library)


def rename(engine: FakeEngine) -> None:
    """Make another engine of one: an input has another name."""
    engine.tensors["ids"] = replace(engine.tensors.pop("input_ids"), name="ids")


def change(tensor: str, **changes: Any) -> Callable[[FakeEngine], None]:
    """Make another engine of one: a tensor differs."""

    def edit(engine: FakeEngine) -> None:
        engine.tensors[tensor] = replace(engine.tensors[tensor], **changes)

    return edit


def drop_profile(engine: FakeEngine) -> None:
    """Make another engine of one: it was built for one phase."""
    engine.num_optimization_profiles = 1


class TestAnEngineThatDoesNotFit:
    """It is refused when it is loaded, with what differs."""

    @pytest.mark.parametrize(
        ("edit", "reason"),
        [
            (rename, r"tensors: got \['ids', .*\], expected \['input_ids', "),
            (change("position", type="INT32"), r"type of position: got DataType.INT32, expected DataType.INT64"),
            (
                change("past_rows", letters=("B", 1, 50, 24)),
                r"shape of past_rows: got \(-1, 1, 50, 24\), expected \(-1, 1, 100, 24\)",
            ),
            (change("position", location="HOST"), r"place of position: got the host, expected the device"),
            (drop_profile, r"number of optimisation profiles: got 1, expected 2"),
        ],
        ids=["names", "type", "shape", "place", "profiles"],
    )  # fmt: skip
    def test_in_its_tensors(self, zoo: Zoo, library: FakeTensorRT, edit: Callable[[FakeEngine], None], reason: str) -> None:
        """And how it is built again."""
        library.edit = edit
        remedy = f"build it again: foveal build BUNDLE --target {library.library.target}"
        with pytest.raises(EngineMismatchError, match=rf'the engine of stage "1\.pre" is another one\'s: {reason}.*; {remedy}'):
            open_engine(zoo, library)

    def test_in_the_precision_of_its_caches(self, zoo: Zoo, library: FakeTensorRT) -> None:
        """Which its sidecar says."""
        with pytest.raises(
            EngineMismatchError, match=r"type of past_key_values.0.key: got DataType.FLOAT, expected DataType.HALF"
        ):
            open_engine(zoo, library, cache_dtype="float16")

    def test_in_the_library(self, zoo: Zoo, library: FakeTensorRT, caplog: pytest.LogCaptureFixture) -> None:
        """With the library's own words, which are logged too."""
        with caplog.at_level(logging.ERROR), pytest.raises(EngineMismatchError) as raised:
            open_engine(zoo, library, b"ftrt of another version")
        reason = "Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed"
        assert str(raised.value) == (
            f'{library.library} can\'t load the engine of stage "1.pre", built by foveal 0.1.0: {reason}; '
            f"build it again on this machine: foveal build BUNDLE --target {library.library.target}"
        )
        assert reason in caplog.text

    def test_without_limits(self, zoo: Zoo, library: FakeTensorRT) -> None:
        """Its sidecar must say what it was built for."""
        with pytest.raises(EngineMismatchError, match="limits in its sidecar: got none, expected those it was built for"):
            open_engine(zoo, library, limits=None)

    def test_without_weights(self, zoo: Zoo, library: FakeTensorRT) -> None:
        """Nobody puts them back: it would run, on nothing."""
        record = build_record(library.library.target, weights_stripped=True)
        with pytest.raises(EngineMismatchError, match="weights: got none, expected its own, .*leave out --strip-weights"):
            open_engine(zoo, library, build=record)


class TestWhatTheLibraryRefuses:
    """A call that returns false is an error with the stage, the phase and the tensor."""

    @pytest.mark.parametrize(
        ("call", "reason"),
        [
            ("create_execution_context", r'no execution context for stage "1\.pre": the GPU may be out of memory'),
            ("set_optimization_profile_async", r'stage "1\.pre" refuses optimisation profile 0 \(decode\)'),
            ("set_tensor_address position", r"stage 1\.pre decode refuses the address of position"),
            ("set_input_shape input_ids", r"stage 1\.pre decode refuses shape \[1, 1\] of input_ids"),
            ("execute_async_v3", r"stage 1\.pre decode could not be queued; the log of foveal.tensorrt says why"),
        ],
    )
    def test_when_a_session_is_opened(self, zoo: Zoo, library: FakeTensorRT, call: str, reason: str) -> None:
        """It warms up, so it meets them all."""
        library.refusing.add(call)
        with pytest.raises(DeviceError, match=reason):
            open_session(zoo, library)

    def test_a_context_that_can_not_be_recorded(self, zoo: Zoo, gpu: FakeGpu) -> None:
        """TensorRT-RTX is asked before; the step is not decoded some other way."""
        library = FakeTensorRT("tensorrt-rtx", gpu)
        library.refusing.add("is_stream_capturable")
        with pytest.raises(DeviceError, match=r"stage 1\.pre decode can't be recorded in a CUDA graph, says TensorRT-RTX 1\."):
            open_session(zoo, library)
        assert gpu.count("cudaStreamBeginCapture") == 0

    def test_a_run_that_fails_while_it_is_recorded(self, zoo: Zoo, library: FakeTensorRT) -> None:
        """The error is the stage's, and the stream is usable again."""
        stages, begin = len(specs_of(zoo[NAME])), library.gpu.enqueue

        def enqueue(stream: Any, work: Any) -> None:
            if library.gpu.count("execute_async_v3") > stages:
                library.refusing.add("execute_async_v3")
            begin(stream, work)

        library.gpu.enqueue = enqueue  # type: ignore[method-assign]
        with pytest.raises(DeviceError, match=r"stage .* decode could not be queued"):
            open_session(zoo, library)
        library.gpu.enqueue = begin  # type: ignore[method-assign]
        library.refusing.clear()
        assert all(stream.captured is None for stream in library.gpu.streams.values())
        open_session(zoo, library).advance(random_ids(1, 3))


class TestRuntimeCache:
    """What TensorRT-RTX compiled for this GPU is there when the next process loads the engines."""

    def test_is_kept_for_the_next_process(self, zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Once a session is warm: then nothing that decodes is compiled again."""
        monkeypatch.setenv("FOVEAL_CACHE", str(tmp_path))
        compiled = []
        for _ in range(2):
            library = FakeTensorRT("tensorrt-rtx", FakeGpu())
            open_session(zoo, library)
            compiled.append(library.compiled)
        assert compiled == [["1.pre 0", "5 0", "1.post 0"], []]
        assert len(list((tmp_path / "rtx-kernels").iterdir())) == 3

    def test_of_the_sampler_is_kept_once_it_has_drawn(self, zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Not before: a session that draws on the host never compiles it."""
        monkeypatch.setenv("FOVEAL_CACHE", str(tmp_path))
        compiled = []
        for _ in range(2):
            library = FakeTensorRT("tensorrt-rtx", FakeGpu())
            open_session(zoo, library).draw([[1]], 5, SamplingParams(temperature=0), np.zeros((5, 1)))
            compiled.append(library.compiled)
        assert compiled == [["1.pre 0", "5 0", "1.post 0", "sampler 0"], []]
        assert len(list((tmp_path / "rtx-kernels").iterdir())) == 3 + 1

    def test_of_another_gpu_is_made_anew(
        self, zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The library says so; the log does too."""
        monkeypatch.setenv("FOVEAL_CACHE", str(tmp_path))
        open_session(zoo, FakeTensorRT("tensorrt-rtx", FakeGpu()))
        library = FakeTensorRT("tensorrt-rtx", FakeGpu())
        library.accepts_caches = False
        with caplog.at_level(logging.INFO):
            open_session(zoo, library)
        assert library.compiled == ["1.pre 0", "5 0", "1.post 0"]
        assert "of another GPU, driver or version; its kernels are compiled anew" in caplog.text

    @pytest.mark.parametrize("generation", ["tensorrt", "tensorrt 10.3"])
    def test_is_rtxs_alone(self, generation: Generation, zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The others compile nothing late."""
        monkeypatch.setenv("FOVEAL_CACHE", str(tmp_path))
        open_session(zoo, FakeTensorRT(generation, FakeGpu()))
        assert list(tmp_path.iterdir()) == []


class TestRanges:
    """What a profiler shows of a call."""

    def test_name_the_stage_and_the_phase(self, zoo: Zoo, library: FakeTensorRT, monkeypatch: pytest.MonkeyPatch) -> None:
        """Around every stage that is queued by itself, in a domain of foveal's own."""
        session, marks = open_session(zoo, library), []
        fake = SimpleNamespace(
            push_range=lambda label, domain: marks.append((label, domain)),
            pop_range=lambda domain: marks.append(("end", domain)),
        )
        monkeypatch.setattr(nvtx, "nvtx", fake)
        session.advance(random_ids(1, 3))
        labels = [mark for spec in specs_of(zoo[NAME]) for mark in (f"foveal {spec.name} prefill", "end")]
        assert marks == [(label, "foveal") for label in labels]

    def test_are_closed_when_a_stage_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Or all that follows would be inside."""
        marks: list[str] = []
        fake = SimpleNamespace(
            push_range=lambda label, domain: marks.append(label), pop_range=lambda domain: marks.append("end")
        )
        monkeypatch.setattr(nvtx, "nvtx", fake)
        with pytest.raises(DeviceError), nvtx.range("1.pre decode"):
            raise DeviceError("refused")
        assert marks == ["foveal 1.pre decode", "end"]

    def test_are_none_without_the_package(self, zoo: Zoo, library: FakeTensorRT, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is a convenience."""
        monkeypatch.setattr(nvtx, "nvtx", None)
        assert open_session(zoo, library).advance(random_ids(1, 3)).shape == (1, 3, 41)

    def test_are_what_the_real_package_takes(self) -> None:
        """It needs no GPU, and does nothing where no profiler listens."""
        pytest.importorskip("nvtx")
        with nvtx.range("1.pre decode"):
            pass


CALLS = {
    "Runtime": {"deserialize_cuda_engine"},
    "ICudaEngine": {
        "create_execution_context",
        "get_tensor_dtype",
        "get_tensor_location",
        "get_tensor_name",
        "get_tensor_shape",
    },
    "IExecutionContext": {
        "execute_async_v3",
        "set_device_memory",
        "set_input_shape",
        "set_optimization_profile_async",
        "set_tensor_address",
    },
}
RTX_CALLS = {
    "ICudaEngine": {"create_runtime_config"},
    "IExecutionContext": {"is_stream_capturable"},
    "IRuntimeConfig": {"set_execution_context_allocation_strategy", "create_runtime_cache", "set_runtime_cache"},
    "IRuntimeCache": {"deserialize", "serialize"},
}
"""What the backend calls, by class: of all libraries, and of TensorRT-RTX."""


class TestTheRealLibraries:
    """No version that is installed here may lack what the backend calls."""

    @pytest.mark.parametrize("name", TENSORRTS)
    def test_have_every_call(self, name: str) -> None:
        """Of both; the strict fakes hold the arguments to them too."""
        wanted = [CALLS] + [RTX_CALLS] * (name == "tensorrt_rtx")
        for by_class in wanted:
            for cls, calls in by_class.items():
                assert calls <= surface(getattr(real(name), cls)).functions.keys()
        properties = surface(real(name).ICudaEngine).properties.keys()
        assert properties >= {"device_memory_size_v2", "num_io_tensors", "num_optimization_profiles"}

    @pytest.mark.parametrize("generation", GENERATIONS)
    def test_are_asked_for_nothing_else(self, generation: Generation, zoo: Zoo, gpu: FakeGpu) -> None:
        """The fakes fake no more than this list, and a whole session runs on them."""
        library = FakeTensorRT(generation, gpu)
        open_session(zoo, library).advance(random_ids(1, 7))
        context = library.contexts[0]
        faked = {name for name in dir(context) if not name.startswith("_") and callable(getattr(context, name))}
        assert faked <= CALLS["IExecutionContext"] | RTX_CALLS["IExecutionContext"]

    def test_refuse_what_is_no_engine(self, gpu: FakeGpu) -> None:
        """TensorRT-RTX itself, which needs no GPU to see that."""
        spec = StageSpec(name="1", stride=1, inputs=(), output="logits", width=8, layers=1, parameters=0)
        shared = TensorRTRuntime(library_of("tensorrt-rtx"), CudaDevice(cudart=gpu.cudart))
        with pytest.raises(
            EngineMismatchError, match=r'TensorRT-RTX 1\..* can\'t load the engine of stage "1", .*: IRuntime::'
        ):
            shared.deserialize(b"junk" * 100, "1", sidecar_of(spec, "tensorrt-rtx", "modern", LIMITS))

    def test_of_10_3_lacks_what_came_later(self, gpu: FakeGpu, zoo: Zoo) -> None:
        """So the backend must not need it there."""
        library = FakeTensorRT("tensorrt 10.3", gpu)
        engine = open_engine(zoo, library).engine
        assert not hasattr(engine, "get_aliased_input_tensor")
        assert not hasattr(engine, "create_runtime_config")
        assert not hasattr(library.module, "IRuntimeConfig")
        assert str(library.library) == "TensorRT 10.3.0"

    def test_of_the_library_there_may_be_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With what to do about it."""
        monkeypatch.setitem(sys.modules, "tensorrt", None)
        with pytest.raises(BackendUnavailable, match=r"tensorrt can't be imported .*pip install '\.\[tensorrt\]'"):
            library_of.__wrapped__("tensorrt")


class TestTheFake:
    """It refuses what TensorRT refuses, or the tests above would show nothing."""

    @pytest.fixture
    def context(self, zoo: Zoo, library: FakeTensorRT) -> tuple[Any, FakeContext, Any]:
        """A decode context with everything set, as the code under test sees it and as it is; and its stream."""
        session = open_session(zoo, library)
        stage: Any = session.decoder._stages["decode"][0]  # type: ignore[attr-defined]
        stage.session = session  # keeps its memory
        return stage._context, library.contexts[0], stage

    def why(self, caplog: pytest.LogCaptureFixture, wrapped: Any, stage: Any) -> str:
        """The reason for which a run is refused."""
        assert not wrapped.execute_async_v3(stage._stream)
        return caplog.records[-1].getMessage()

    def test_a_run_without_an_address(self, context: Any, caplog: pytest.LogCaptureFixture) -> None:
        """Of any tensor."""
        wrapped, fake, stage = context
        del fake.addresses["position"]
        assert self.why(caplog, wrapped, stage).endswith("no address for ['position']")

    def test_a_run_without_a_shape(self, context: Any, caplog: pytest.LogCaptureFixture) -> None:
        """Of any input that has none of its own."""
        wrapped, fake, stage = context
        del fake.shapes["position"]
        assert self.why(caplog, wrapped, stage).endswith("no shape for ['position']")

    def test_a_run_without_memory(self, context: Any, caplog: pytest.LogCaptureFixture) -> None:
        """Or with less than the engine takes."""
        wrapped, fake, stage = context
        wrapped.set_device_memory(fake.memory, 10)
        assert self.why(caplog, wrapped, stage).endswith("too little device memory")

    def test_a_run_without_a_profile(self, context: Any, caplog: pytest.LogCaptureFixture) -> None:
        """It has none until one is set."""
        wrapped, fake, stage = context
        fake.profile = None
        assert self.why(caplog, wrapped, stage).endswith("no optimisation profile")

    def test_an_address_that_is_not_aligned(self, context: Any, caplog: pytest.LogCaptureFixture) -> None:
        """To 256 bytes."""
        wrapped, fake, stage = context
        wrapped.set_tensor_address("position", fake.addresses["position"] + 8)
        assert self.why(caplog, wrapped, stage).endswith("the address of position is not aligned to 256 bytes")

    def test_an_address_on_the_host(self, context: Any, caplog: pytest.LogCaptureFixture) -> None:
        """Or beyond the end of a buffer."""
        wrapped, _, stage = context
        wrapped.set_tensor_address("position", 4096)
        assert self.why(caplog, wrapped, stage).endswith("position is not 8 bytes of the device's memory")

    def test_a_shape_outside_its_profile(self, context: Any, caplog: pytest.LogCaptureFixture) -> None:
        """A decode step has one row."""
        wrapped, _, _ = context
        assert not wrapped.set_input_shape("input_ids", (1, 2))
        assert "input_ids is [1, 2], not in [1, 1] to [2, 1]" in caplog.text

    def test_state_at_the_wrong_number_of_addresses(
        self, context: Any, library: FakeTensorRT, caplog: pytest.LogCaptureFixture
    ) -> None:
        """At two where it is updated in place, at one where it is not."""
        wrapped, fake, stage = context
        if library.generation == "tensorrt 10.3":
            wrapped.set_tensor_address("present_rows", fake.addresses["past_rows"])
            assert self.why(caplog, wrapped, stage).endswith("present_rows is written to where past_rows is")
        else:
            wrapped.set_tensor_address("present_rows", fake.addresses["past_key_values.0.key"])
            assert "present_rows is" in self.why(caplog, wrapped, stage)

    def test_a_run_that_is_not_done_until_it_is_waited_for(self, context: Any, library: FakeTensorRT) -> None:
        """As anything on a stream."""
        wrapped, _, stage = context
        library.gpu.streams[stage._stream].queue.clear()
        assert wrapped.execute_async_v3(stage._stream)
        assert len(library.gpu.streams[stage._stream].queue) == 1
