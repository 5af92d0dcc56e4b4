"""Stages that a decode step does not wait for, on a second stream: the same numbers in whatever order a GPU does the work.

The fake GPU (tests/fake_cuda.py) does the work of two streams, and of the branches of a graph, as late as it may, as early, or
at random; where something did not wait for what it needs, one of these gives other numbers, or finds memory that two share.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from combinations import covering
from exactness import EXACT, Walk, check_what_is_not_written_does_not_matter, check_writes_new_rows_only, decoder_of, paths
from fake_cuda import CudaFailure, FakeGpu, Schedule, at_random, early, late
from fake_tensorrt import GENERATIONS, FakeTensorRT, Generation
from hypothesis import given
from hypothesis import strategies as st
from programs import (
    LIMITS,
    FakeResidentEngine,
    FakeResidentStage,
    Program,
    ahead,
    forgetful,
    info,
    meaning,
    paged,
    resident_engines,
    top_down,
)
from resident_engines import QueuedSession, session_of, tensorrt_engines
from specimens import Zoo, full_forward, random_ids
from tensorrt_surface import real

from foveal import ConfigError, SamplingParams
from foveal.errors import DeviceError
from foveal.runtime import backends, device_backends
from foveal.runtime.cuda import CudaDevice
from foveal.runtime.device import Region
from foveal.runtime.engines.onnxruntime_resident import ResidentOrtProgram
from foveal.runtime.engines.resident import Phase
from foveal.runtime.resident import ResidentEngines
from foveal.runtime.rows import Array
from foveal.runtime.session import Session

NAME = "top-down"
"""The specimen: stages `embed`, `8`, `4` and `1`, of which nobody waits for `8` and `4`."""
SCHEDULES: dict[str, Schedule] = {"late": late, "early": early, "at random": at_random(0)}
ONE_BY_ONE = [("advance", 1)] * 17
PATH = [*ONE_BY_ONE, ("rewind", 6), *ONE_BY_ONE, ("advance", 7), *ONE_BY_ONE[:9], ("fork", 0), *ONE_BY_ONE[:9]]
"""Steps of all phases, and of all turns that caches may take: those that only a prefill leads to as well."""


def overlapping(zoo: Zoo, generation: Generation, gpu: FakeGpu, library: FakeTensorRT | None = None) -> ResidentEngines:
    """Engines of the specimen whose late stages run beside the others."""
    engines = tensorrt_engines(zoo[NAME], generation, gpu, library=library)
    return ResidentEngines(engines.engines, engines.device, engines.sampler, overlap=True)


def steps(session: Session, count: int) -> Array:
    """Logits of so many tokens, one by one."""
    ids = random_ids(session.batch, count, session.model.vocab_size)
    return np.concatenate([session.advance(ids[:, place : place + 1]) for place in range(count)], 1)


@pytest.mark.parametrize(
    ("generation", "batch", "schedule", "records"), covering(GENERATIONS, (1, 2), SCHEDULES, (True, False))
)
def test_logits_are_the_full_forwards(
    generation: Generation, batch: int, schedule: str, records: bool, zoo: Zoo, gpu: FakeGpu
) -> None:
    """In place and with caches that take turns, recorded and not, in any order of work."""
    gpu.schedule = SCHEDULES[schedule]
    engines = overlapping(zoo, generation, gpu)
    engines.records = records
    walk = Walk(session_of(engines, zoo[NAME], batch), partial(full_forward, zoo[NAME].model))
    for step in PATH:
        walk.take(*step)
    assert (gpu.count("cudaGraphLaunch") > 0) == records
    del walk, engines
    assert gpu.leaks() == []


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("generation", GENERATIONS)
def test_what_is_not_written_does_not_matter(generation: Generation, schedule: str, zoo: Zoo, gpu: FakeGpu) -> None:
    """Every row that is not written yet holds something large; and a step writes its own rows alone."""
    gpu.schedule = SCHEDULES[schedule]
    session = session_of(overlapping(zoo, generation, gpu), zoo[NAME], 2)
    check_what_is_not_written_does_not_matter(session, partial(full_forward, zoo[NAME].model), EXACT)
    check_writes_new_rows_only(session, [1] * 18)


@pytest.mark.parametrize(("generation", "schedule", "records"), covering(GENERATIONS, SCHEDULES, (True, False)))
def test_the_device_draws_the_same_text(generation: Generation, schedule: str, records: bool, zoo: Zoo, gpu: FakeGpu) -> None:
    """Where nothing is waited for between steps: positions go on only when no stage reads them any more."""
    greedy, found = SamplingParams(temperature=0), []
    for overlap in (False, True):
        engines = overlapping(zoo, generation, gpu)
        engines.records, engines.overlap = records, overlap
        session = session_of(engines, zoo[NAME])
        session.advance(random_ids(1, 5))
        gpu.schedule = SCHEDULES[schedule]
        found.append(session.draw([[7]], 40, greedy, np.zeros((40, 1))).tolist())
    assert found[0] == found[1]


class TestAProgram:
    """Of every kind with a stage that nobody waits for, in a few lines of numpy."""

    programs = st.one_of(
        st.builds(top_down, st.integers(2, 9)),
        st.builds(ahead, st.integers(2, 5), st.integers(2, 3), st.booleans()),
        st.builds(forgetful, st.integers(2, 6), st.integers(1, 4), st.integers(1, 3), st.booleans()),
        st.builds(paged, st.integers(2, 5), st.integers(1, 9)),
    )

    @given(programs, st.integers(1, 2), st.booleans(), st.booleans(), st.integers(), paths)
    def test_gives_what_it_means(
        self, program: Program, batch: int, in_place: bool, records: bool, seed: int, path: list[tuple[str, int]]
    ) -> None:
        """Wherever a session goes, in whatever order the work is done."""
        gpu = FakeGpu()
        gpu.schedule = at_random(seed)
        walk = Walk(Session(queued(program, in_place, records, gpu), info(), batch), partial(meaning, program))
        for step in path:
            walk.take(*step)

    @given(programs, st.booleans(), st.booleans(), st.integers(), st.integers(1, 70))
    def test_draws_what_it_draws_in_turn(self, program: Program, in_place: bool, records: bool, seed: int, count: int) -> None:
        """All models that read one token at a time draw on the device."""
        gpu, params = FakeGpu(), SamplingParams(top_k=20, seed=1)
        gpu.schedule = at_random(seed)
        device = Session(queued(program, in_place, records, gpu), info())
        host = Session(resident_engines(program), info())
        if not device.draws:
            return
        uniform = np.random.default_rng(count).random((count, 1))
        assert device.draw([[3]], count, params, uniform).tolist() == host.draw([[3]], count, params, uniform).tolist()


class QueuedEngine(FakeResidentEngine):
    """A fake engine whose runs are queued on a fake GPU."""

    def __init__(self, spec: Any, program: Program, in_place: bool, gpu: FakeGpu, device: CudaDevice) -> None:
        super().__init__(spec, program, LIMITS, in_place)
        self.gpu, self.device = gpu, device

    def bind(self, phase: Phase, batch: int, beside: bool = False) -> QueuedStage:
        """As `ResidentProgram.bind`."""
        return QueuedStage(self, phase, batch)


class QueuedStage(FakeResidentStage):
    """One of them, bound."""

    def run(self, firings: int, wanted: int) -> None:
        """As `ResidentStage.run`, on the buffers that are bound now."""
        bound = FakeResidentStage(self.engine, self.phase, self.batch)
        bound.buffers = dict(self.buffers)

        def work() -> Iterator[None]:
            bound.spoil(firings)
            yield  # other work may come between: it must read none of these rows
            bound.run(firings, wanted)

        self.engine.gpu.enqueue(self.engine.device.stream, work)


def queued(program: Program, in_place: bool, records: bool, gpu: FakeGpu) -> ResidentEngines:
    """A program's engines on a fake GPU, with late stages beside."""
    device, on_host = CudaDevice(cudart=gpu.cudart), resident_engines(program).sampler
    assert isinstance(on_host, ResidentOrtProgram)
    session = QueuedSession(on_host.session, gpu, device.stream)
    sampler = ResidentOrtProgram(on_host.name, session, on_host.contract, on_host.device)
    engines: Any = [QueuedEngine(spec, program, in_place, gpu, device) for spec in program]
    return ResidentEngines(engines, device, sampler, records, overlap=True)


class TestAStep:
    """What the driver and the library are asked for."""

    @pytest.mark.parametrize("generation", GENERATIONS)
    def test_is_one_launch_and_one_wait(self, generation: Generation, zoo: Zoo, gpu: FakeGpu) -> None:
        """As without: the graph has a branch, and there are as many graphs."""
        session = session_of(overlapping(zoo, generation, gpu), zoo[NAME])
        in_turn = session_of(tensorrt_engines(zoo[NAME], generation, FakeGpu()), zoo[NAME])
        assert decoder_of(session).recorded == decoder_of(in_turn).recorded
        for token in range(24):
            before = len(gpu.calls)
            session.advance(random_ids(1, 1, seed=token))
            assert [call.name for call in gpu.calls[before:]] == ["cudaGraphLaunch", "cudaStreamSynchronize"]

    def test_draws_with_one_launch(self, zoo: Zoo, gpu: FakeGpu) -> None:
        """All tokens are waited for once."""
        session, greedy = session_of(overlapping(zoo, "tensorrt-rtx", gpu), zoo[NAME]), SamplingParams(temperature=0)
        session.draw([[1]], 32, greedy, np.zeros((32, 1)))
        gpu.calls.clear()
        session.draw([[1]], 16, greedy, np.zeros((16, 1)))
        names = [call.name for call in gpu.calls]
        assert (names.count("cudaGraphLaunch"), names.count("cudaStreamSynchronize")) == (16, 1)
        assert not {"cudaEventRecord", "cudaStreamWaitEvent"} & set(names)

    @pytest.mark.parametrize("generation", GENERATIONS)
    def test_runs_late_stages_on_the_second_stream(self, generation: Generation, zoo: Zoo, gpu: FakeGpu) -> None:
        """In memory of their own; prefills, all other stages and the sampler on the first. Each context knows one."""
        library = FakeTensorRT(generation, gpu)
        engines = overlapping(zoo, generation, gpu, library)
        session = session_of(engines, zoo[NAME])
        session.advance(random_ids(1, 9))
        session.draw([[1]], 16, SamplingParams(temperature=0), np.zeros((16, 1)))
        main, side = gpu.streams
        assert main == engines.device.stream  # type: ignore[attr-defined]
        blocks: dict[int, set[tuple[int, int]]] = {main: set(), side: set()}
        for place, context in enumerate(library.contexts):
            is_late = place < 4 and context.engine.stage in ("8", "4")
            assert set(context.streams) == {side if is_late else main}, (place, context.engine.stage)
            blocks[side if is_late else main].add((context.memory, context.memory_bytes))
        (one,), (other,) = blocks[main], blocks[side]
        assert (one[1], other[1]) == (4000, 3000)  # the largest of all, and the largest of those beside
        assert one[0] != other[0]

    def test_has_no_branch_for_someone_who_observes(self, zoo: Zoo, gpu: FakeGpu) -> None:
        """Every stage is waited for, so that its time is its own."""
        session, seen = session_of(overlapping(zoo, "tensorrt", gpu), zoo[NAME]), []
        expected = full_forward(zoo[NAME].model, random_ids(1, 16))
        session.observer = lambda spec, firings, elapsed_ns: seen.append(spec.name)
        gpu.calls.clear()
        np.testing.assert_allclose(steps(session, 8), expected[:, :8], atol=1e-4)
        assert seen == ["embed", "1"] * 3 + ["embed", "4", "1"] + ["embed", "1"] * 3 + ["embed", "8", "4", "1"]
        assert gpu.count("cudaStreamWaitEvent") == gpu.count("cudaGraphLaunch") == 0

    @pytest.mark.parametrize("name", ["nested", NAME])
    def test_is_as_it_was_where_nothing_is_late_or_nobody_asks(self, name: str, zoo: Zoo, gpu: FakeGpu) -> None:
        """No second stream, no event and no second block of memory."""
        engines = tensorrt_engines(zoo[name], "tensorrt", gpu)
        if name != NAME:
            engines = ResidentEngines(engines.engines, engines.device, engines.sampler, overlap=True)
        assert not engines.overlap
        with session_of(engines, zoo[name]) as session:
            session.advance(random_ids(1, 1))
        assert [leak for leak in gpu.leaks() if leak != f"{1000 * len(engines.engines)} bytes, device"] == ["stream"]


class TestWhatFails:
    """After a stage was queued beside the others."""

    @pytest.mark.parametrize("when", ["queued", "before it is recorded", "recorded", "spoilt"])
    @pytest.mark.parametrize("schedule", SCHEDULES)
    @pytest.mark.parametrize("generation", ["tensorrt-rtx", "tensorrt 10.3"])
    def test_a_later_stage(self, generation: Generation, schedule: str, when: str, zoo: Zoo, gpu: FakeGpu) -> None:
        """The error is that stage's, also where a spoilt recording can't be joined either.

        What runs beside is waited for as ever, and the next step gives the right logits.
        """
        engines = overlapping(zoo, generation, gpu)
        engines.records = False
        session = session_of(engines, zoo[NAME])
        decoder_of(session)._records = when != "queued"  # steps are recorded when they are met
        gpu.schedule = SCHEDULES[schedule]
        ids = random_ids(1, 24)
        steps(session, 7)
        runs = when in ("recorded", "spoilt")
        with refusing(gpu, "1", after=runs, spoils=when == "spoilt"), pytest.raises(DeviceError, match="stage 1 decode could"):
            session.advance(ids[:, 7:8])  # both late stages fire
        engines.device.synchronize()
        assert not any(stream.queue for stream in gpu.streams.values())
        found = [session.advance(ids[:, place : place + 1]) for place in range(7, 24)]
        np.testing.assert_allclose(np.concatenate(found, 1), full_forward(zoo[NAME].model, ids)[:, 7:], atol=1e-4)


@contextmanager
def refusing(gpu: FakeGpu, stage: str, after: int, spoils: bool = False) -> Iterator[None]:
    """Let the runs of a stage fail, after some that don't, and maybe spoil a recording."""
    enqueue, left = gpu.enqueue, [after]

    def refuse(stream: int, work: Any) -> None:
        name, arguments = gpu.calls[-1]
        if name == "execute_async_v3" and arguments[0] == stage:
            left[0] -= 1
            if left[0] < 0:
                capture = gpu.stream(stream).captured
                if spoils and capture is not None:
                    capture.spoil()
                raise CudaFailure("cudaErrorLaunchFailure")
        enqueue(stream, work)

    gpu.enqueue = refuse  # type: ignore[method-assign]
    try:
        yield
    finally:
        gpu.enqueue = enqueue  # type: ignore[method-assign]


@pytest.fixture
def device(gpu: FakeGpu) -> CudaDevice:
    """On the fake GPU."""
    return CudaDevice(cudart=gpu.cudart)


class Numbers:
    """One number on the device, and on the host one to put there and some to read it to."""

    def __init__(self, device: CudaDevice) -> None:
        self.device, self.buffer = device, device.allocate(1)
        self.given, self.read = device.pinned((2,), np.uint8), device.pinned((4,), np.uint8)
        device.synchronize()
        self.given[:] = 7, 8

    def put(self, place: int = 0) -> None:
        """Queue that the number is one of those given."""
        self.device.copy(Region(self.buffer.address, 1), Region(self.given.ctypes.data + place, 1))

    def get(self, place: int) -> None:
        """Queue that the number is read."""
        self.device.copy(Region(self.read.ctypes.data + place, 1), Region(self.buffer.address, 1))


class TestADevice:
    """Its two queues, in whatever order a GPU does what may be done."""

    @pytest.fixture(params=SCHEDULES)
    def numbers(self, request: pytest.FixtureRequest, gpu: FakeGpu, device: CudaDevice) -> Numbers:
        """On a GPU of each schedule."""
        gpu.schedule = SCHEDULES[request.param]
        return Numbers(device)

    @pytest.mark.parametrize("records", [True, False], ids=["recorded", "queued"])
    def test_do_what_is_queued_beside_after_what_was_before_and_before_what_is_joined(
        self, records: bool, device: CudaDevice, numbers: Numbers
    ) -> None:
        """Twice, with one event."""

        def work() -> None:
            numbers.put(0)
            for place in (0, 2):
                with device.beside():
                    numbers.get(place)
            device.join()
            numbers.put(1)
            with device.beside():
                numbers.get(1)
            device.join()

        work()  # the second stream is made outside a recording
        device.synchronize()
        for _ in range(3):
            numbers.read[:] = 0
            (device.capture(work) if records else work)()
            device.synchronize()
            assert numbers.read.tolist() == [7, 8, 7, 0]

    def test_queue_on_the_first_again_after_an_error(self, device: CudaDevice) -> None:
        """In the block."""
        stream = device.stream
        with pytest.raises(KeyError), device.beside():
            assert device.stream != stream
            raise KeyError("a tensor")
        assert device.stream == stream

    def test_are_joined_at_no_cost_where_nothing_was_queued_beside(self, gpu: FakeGpu, device: CudaDevice) -> None:
        """A step in which no late stage fires makes no call."""
        before = len(gpu.calls)
        device.join()
        assert len(gpu.calls) == before

    def test_record_nothing_that_is_not_joined(self, device: CudaDevice, numbers: Numbers) -> None:
        """It is an error, and the device goes on."""

        def work(joins: bool) -> None:
            with device.beside():
                numbers.get(0)
            if joins:
                device.join()

        work(joins=True)
        with pytest.raises(DeviceError, match="cudaStreamEndCapture failed: cudaErrorStreamCaptureUnjoined"):
            device.capture(partial(work, joins=False))
        device.capture(device.join)  # there is nothing left to join
        device.capture(partial(work, joins=True))()
        device.synchronize()

    def test_are_given_back(self, gpu: FakeGpu, device: CudaDevice) -> None:
        """With the event."""
        with device.beside():
            pass
        device.join()
        assert gpu.leaks() == ["stream", "stream", "event"]
        del device
        assert gpu.count("cudaEventDestroy") <= 1

    def test_ask_the_real_binding_for_what_it_takes(self, gpu: FakeGpu, device: CudaDevice) -> None:
        """It converts the arguments of every call, and then misses the driver."""
        cudart = real("cuda.bindings.runtime")
        missing = cudart.cudaError_t.cudaErrorInsufficientDriver
        if cudart.cudaGetDeviceCount()[0] != missing:
            pytest.skip("this machine has a CUDA driver")
        with device.beside():
            pass
        device.join()
        event = device._side.event
        calls = [call for call in gpu.calls if "Event" in call.name]
        assert [call.name for call in calls] == [
            "cudaEventCreateWithFlags",
            *["cudaEventRecord", "cudaStreamWaitEvent"] * 2,
        ]
        assert {getattr(cudart, name)(*arguments)[0] for name, arguments in calls} == {missing}
        assert cudart.cudaEventDestroy(event)[0] == missing


class TestTheFake:
    """It is as strict as CUDA about events, or the tests above would show nothing."""

    @pytest.fixture
    def cuda(self, gpu: FakeGpu) -> Any:
        """Its runtime."""
        return gpu.cudart

    @pytest.fixture
    def streams(self, cuda: Any) -> list[int]:
        """Two."""
        return [int(cuda.cudaStreamCreateWithFlags(1)[1]) for _ in range(2)]

    @pytest.fixture
    def event(self, cuda: Any) -> int:
        """One."""
        return int(cuda.cudaEventCreateWithFlags(2)[1])

    @staticmethod
    def status(*results: Any) -> str:
        """Of a call."""
        return str(results[0].name)

    def begin(self, cuda: Any, stream: int) -> None:
        """A capture."""
        cuda.cudaStreamBeginCapture(stream, cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)

    def test_work_of_two_streams_is_done_in_any_order(self, gpu: FakeGpu, streams: list[int], event: int) -> None:
        """Unless one waits for the other; what a stream waited for is as it was when it was told to wait."""
        orders = {}
        for name, schedule in SCHEDULES.items():
            done: list[str] = []
            gpu.schedule = schedule
            for stream, letters in zip(streams, ("abc", "xyz"), strict=True):
                for letter in letters:
                    gpu.enqueue(stream, partial(done.append, letter))
                if letters == "abc":
                    gpu.cudart.cudaEventRecord(event, stream)
                    gpu.enqueue(stream, partial(done.append, "d"))
                    gpu.cudart.cudaStreamWaitEvent(streams[1], event, 0)
            for stream in streams:
                gpu.finish(stream)
            orders[name] = "".join(done)
        assert orders["late"] == "abcdxyz"
        assert orders["early"] == "abcxyzd"
        assert all(order.index("c") < order.index("x") for order in orders.values())

    def test_work_in_parts_lets_other_work_in(self, gpu: FakeGpu, streams: list[int]) -> None:
        """As kernels of two streams run at once."""
        done: list[str] = []

        def work(letter: str) -> Iterator[None]:
            done.append(letter)
            yield
            done.append(letter)

        gpu.schedule = at_random(1)
        for stream, letter in zip(streams, "ab", strict=True):
            for _ in range(9):
                gpu.enqueue(stream, partial(work, letter))
        gpu.finish(streams[0])
        gpu.finish(streams[1])
        assert sorted(done) == ["a"] * 18 + ["b"] * 18
        assert "aba" in "".join(done)

    def test_a_capture_spreads_by_events_alone(self, gpu: FakeGpu, cuda: Any, streams: list[int], event: int) -> None:
        """And ends where it began, once all it spread to is joined."""
        main, side = streams
        self.begin(cuda, main)
        cuda.cudaEventRecord(event, main)
        assert self.status(*cuda.cudaStreamWaitEvent(side, event, 0)) == "cudaSuccess"
        assert gpu.stream(side).captured is gpu.stream(main).captured
        gpu.enqueue(side, lambda: None)
        assert self.status(*cuda.cudaStreamEndCapture(side)) == "cudaErrorStreamCaptureUnmatched"
        assert self.status(*cuda.cudaStreamEndCapture(main)) == "cudaErrorStreamCaptureInvalidated"
        assert gpu.stream(side).captured is gpu.stream(main).captured is None
        assert self.status(*cuda.cudaStreamWaitEvent(side, event, 0)) == "cudaErrorCapturedEvent"

    def test_a_capture_waits_for_nothing_outside(self, gpu: FakeGpu, cuda: Any, streams: list[int], event: int) -> None:
        """Nor for another capture."""
        main, side = streams
        cuda.cudaEventRecord(event, side)
        self.begin(cuda, main)
        assert self.status(*cuda.cudaStreamWaitEvent(main, event, 0)) == "cudaErrorStreamCaptureIsolation"
        assert self.status(*cuda.cudaStreamEndCapture(main)) == "cudaErrorStreamCaptureInvalidated"
        self.begin(cuda, main)
        self.begin(cuda, side)
        cuda.cudaEventRecord(event, side)
        assert self.status(*cuda.cudaStreamWaitEvent(main, event, 0)) == "cudaErrorStreamCaptureMerge"
        statuses = [self.status(*cuda.cudaStreamEndCapture(stream)) for stream in streams]
        assert statuses == ["cudaErrorStreamCaptureInvalidated"] * 2


class TestLoading:
    """Who says whether stages run beside others."""

    def test_of_cuda_engines_can_not_overlap(self, zoo: Zoo) -> None:
        """Each session of ONNX Runtime is tied to one stream."""
        with pytest.raises(ConfigError, match="overlap=True for target cuda: its engines run on one stream"):
            backends.open_engines(zoo[NAME].bundle, "cuda", provider="cpu", overlap=True)

    @pytest.mark.parametrize(("overlap", "expected"), [(None, True), (True, True), (False, False)])
    @pytest.mark.parametrize("name", ["vanilla", NAME])
    def test_of_tensorrt_engines_do_if_some_are_late(
        self, name: str, overlap: bool | None, expected: bool, zoo: Zoo, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Unless it is switched off."""
        made = tensorrt_engines(zoo[name], "tensorrt", gpu)
        by_name = {engine.spec.name: engine for engine in made.engines}
        monkeypatch.setattr(device_backends, "require_match", lambda bundle, target: None)
        monkeypatch.setattr(device_backends, "library_of", lambda target: FakeTensorRT("tensorrt", gpu).library)
        monkeypatch.setattr(device_backends, "CudaDevice", lambda: made.device)
        monkeypatch.setattr(device_backends, "TensorRTEngine", lambda spec, *others: by_name[spec.name])
        file = SimpleNamespace(read_bytes=lambda: b"")
        bundle: Any = SimpleNamespace(
            manifest=SimpleNamespace(
                model=zoo[name].bundle.manifest.model,
                stages=zoo[name].bundle.manifest.stages,
                engines={"tensorrt": {}},
                files={},
            ),
            check=lambda *names: None,
            engine=lambda target, stage: file,
            sidecar=lambda target, stage: None,
        )
        opened = backends.open_engines(bundle, "tensorrt", overlap=overlap)
        assert isinstance(opened, ResidentEngines)
        assert opened.overlap == (expected and name == NAME)
