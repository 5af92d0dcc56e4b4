"""Decoding in a device's memory: the numbers of the full forward on every library, and one launch for a decode step.

Devices and TensorRT are fakes on the host (tests/fake_cuda.py, tests/fake_tensorrt.py); the arithmetic is ONNX Runtime's.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
import numpy as np
import pytest
from combinations import fewer_examples
from exactness import (
    EXACT,
    Walk,
    check_shared_addresses,
    check_what_is_not_written_does_not_matter,
    check_writes_new_rows_only,
    decoder_of,
    paths,
)
from fake_cuda import FakeGpu
from fake_tensorrt import GENERATIONS, LAYER_MS, FakeTensorRT, Generation
from hypothesis import given
from hypothesis import strategies as st
from resident_engines import LIBRARIES, LIMITS, ort_engines, session_of, sidecar_of, specs_of, tensorrt_engines
from specimens import ZOO, Specimen, Zoo, full_forward, random_ids

from foveal import CapacityError, ConfigError, InputError
from foveal.bench import operator_times
from foveal.bundle import Bundle
from foveal.contract import InputSpec, Limits, StageSpec
from foveal.errors import DeviceError, EngineMismatchError
from foveal.runtime.device import HostDevice
from foveal.runtime.frame import Frame
from foveal.runtime.resident import ResidentEngines
from foveal.runtime.rows import TokenLog
from foveal.runtime.session import Session
from foveal.sidecar import EngineSidecar


def walk_of(session: Session, specimen: Specimen) -> Walk:
    """A walk that is held against the full forward."""
    return Walk(session, partial(full_forward, specimen.model))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", ZOO)
@fewer_examples(8)
@given(batch=st.integers(1, 2), path=paths)
def test_wherever_a_session_goes_its_logits_are_the_full_forwards(
    name: str, library: str, zoo: Zoo, batch: int, path: Sequence[tuple[str, int]]
) -> None:
    """Any chunks, rewound, restored and forked at any phase; in the end all memory is given back."""
    gpu = FakeGpu()
    walk = walk_of(session_of(LIBRARIES[library](zoo[name], gpu), zoo[name], batch), zoo[name])
    for step, tokens in path:
        walk.take(step, tokens)
    walk.advance(7)
    del walk
    assert gpu.leaks() == []


IN_PLACE: tuple[Generation, ...] = ("tensorrt-rtx", "tensorrt")


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", ["nested", "linear"])
def test_a_call_changes_no_byte_but_those_of_its_rows(name: str, library: str, zoo: Zoo, gpu: FakeGpu) -> None:
    """Of all caches and logs, which are one buffer each where the engines work in place."""
    session = session_of(LIBRARIES[library](zoo[name], gpu), zoo[name], 2)
    check_shared_addresses(session)
    check_writes_new_rows_only(session, [1] * 18 + [9, 1, 2])


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", ZOO)
def test_what_is_not_written_does_not_matter(name: str, library: str, zoo: Zoo, gpu: FakeGpu) -> None:
    """Every row that is not written yet holds something large."""
    session = session_of(LIBRARIES[library](zoo[name], gpu), zoo[name], 2)
    check_what_is_not_written_does_not_matter(session, partial(full_forward, zoo[name].model), EXACT)


class TestADecodeStep:
    """Of a firing set that was recorded: all of them, once the session is open."""

    @pytest.mark.parametrize("name", ZOO)
    @pytest.mark.parametrize("generation", IN_PLACE)
    def test_is_recorded_once_for_each_scale(self, name: str, generation: Generation, zoo: Zoo, gpu: FakeGpu) -> None:
        """Coarse stages fire with fine ones, so there are as many firing sets as scales; no decoding adds another."""
        session = session_of(tensorrt_engines(zoo[name], generation, gpu), zoo[name])
        scales = {spec.stride for spec in specs_of(zoo[name])}
        assert decoder_of(session).recorded == gpu.count("cudaGraphInstantiate") == len(scales)
        for size in (1, 1, 13, *[1] * 40):
            session.advance(random_ids(1, size))
        assert decoder_of(session).recorded == gpu.count("cudaGraphInstantiate") == len(scales)

    @pytest.mark.parametrize("generation", GENERATIONS)
    def test_is_one_launch_and_one_wait(self, generation: Generation, zoo: Zoo, gpu: FakeGpu) -> None:
        """The driver is called twice, whatever fires."""
        session = session_of(tensorrt_engines(zoo["nested"], generation, gpu), zoo["nested"], 2)
        for token in range(40):
            before = len(gpu.calls)
            session.advance(random_ids(2, 1, seed=token))
            assert [call.name for call in gpu.calls[before:]] == ["cudaGraphLaunch", "cudaStreamSynchronize"]

    @pytest.mark.parametrize("generation", GENERATIONS)
    def test_allocates_nothing(self, generation: Generation, zoo: Zoo, gpu: FakeGpu) -> None:
        """Nor does a prefill: all buffers are there when the session is."""
        session = session_of(tensorrt_engines(zoo["nested"], generation, gpu), zoo["nested"])
        before = len(gpu.allocations)
        for size in (1, 13, 1, 1, 1, 24):
            session.advance(random_ids(1, size))
        assert len(gpu.allocations) == before

    @pytest.mark.parametrize("generation", IN_PLACE)
    def test_copies_nothing_in_place(self, generation: Generation, zoo: Zoo, gpu: FakeGpu) -> None:
        """Caches and rows are updated where they are; so they are in a prefill."""
        session = session_of(tensorrt_engines(zoo["nested"], generation, gpu), zoo["nested"])
        for size in (1, 13, 1, 1):
            session.advance(random_ids(1, size))
        assert session.copied_bytes == 0

    def test_says_what_it_copies_where_state_takes_turns(self, zoo: Zoo, gpu: FakeGpu) -> None:
        """All caches and rows of the stages that fire, whole: half of the memory reserved for them."""
        session = session_of(tensorrt_engines(zoo["nested"], "tensorrt 10.3", gpu), zoo["nested"])
        assert session.copied_bytes == 0  # warming up is not counted
        reserved = session.state_bytes
        session.advance(random_ids(1, 1))
        assert session.copied_bytes == sum(reserved.values()) // 2
        before = session.copied_bytes
        session.advance(random_ids(1, 1))
        assert session.copied_bytes - before == (reserved["1.pre"] + reserved["1.post"]) // 2

    @pytest.mark.parametrize("name", ZOO)
    def test_is_recorded_for_each_turn_where_state_takes_turns(self, name: str, zoo: Zoo, gpu: FakeGpu) -> None:
        """For the turns that decoding leads to, when the session opens; for those that only a prefill leads to, when met."""
        session, specs = session_of(tensorrt_engines(zoo[name], "tensorrt 10.3", gpu), zoo[name]), specs_of(zoo[name])
        keeps_state = [spec.layers > 0 or spec.output == "hidden" for spec in specs]
        met = {
            (
                tuple(bool(spec.firings(position, 1)) for spec in specs),
                tuple(len(spec.firings(0, position)) % 2 for spec, keeps in zip(specs, keeps_state, strict=True) if keeps),
            )
            for position in range(96)
        }
        assert decoder_of(session).recorded == len(met)
        session.advance(random_ids(1, 3))
        for _ in range(20):
            session.advance(random_ids(1, 1))
        assert decoder_of(session).recorded >= len(met)

    def test_is_not_recorded_while_someone_observes(self, zoo: Zoo, gpu: FakeGpu) -> None:
        """Every stage is waited for, so that its time is its own; without the observer it is one launch again."""
        session, seen = session_of(tensorrt_engines(zoo["nested"], "tensorrt", gpu), zoo["nested"]), []
        session.observer = lambda spec, firings, elapsed_ns: seen.append((spec.name, firings))
        launches = gpu.count("cudaGraphLaunch")
        session.advance(random_ids(1, 1))
        session.advance(random_ids(1, 1))
        assert seen == [(name, 1) for name in ("1.pre", "2.pre", "8", "2.post", "1.post", "1.pre", "1.post")]
        assert gpu.count("cudaGraphLaunch") == launches
        session.observer = None
        session.advance(random_ids(1, 1))
        assert gpu.count("cudaGraphLaunch") == launches + 1

    def test_counts_its_firings_but_not_those_of_the_warm_up(self, zoo: Zoo, gpu: FakeGpu) -> None:
        """As a session on the host does."""
        session = session_of(tensorrt_engines(zoo["nested"], "tensorrt", gpu), zoo["nested"])
        assert set(session.fires.values()) == {0}
        for _ in range(9):
            session.advance(random_ids(1, 1))
        assert session.fires == {"1.pre": 9, "2.pre": 5, "8": 2, "2.post": 5, "1.post": 9}


class TestAddresses:
    """Which buffer every tensor stands in: one plan, whatever the library."""

    @staticmethod
    def plan(gpu: FakeGpu, tables: Sequence[dict[str, int]]) -> list[dict[str, tuple[int, int, int]]]:
        """Addresses as (number of the buffer in order of appearance, offset, bytes of the buffer)."""
        numbers: dict[int, int] = {}

        def place(address: int) -> tuple[int, int, int]:
            (found,) = [each for each in gpu.allocations.values() if each.holds(address, 1)]
            return numbers.setdefault(found.address, len(numbers)), address - found.address, found.nbytes

        return [{name: place(table[name]) for name in sorted(table)} for table in tables]

    @pytest.mark.parametrize("name", ZOO)
    @pytest.mark.parametrize("generation", GENERATIONS)
    def test_are_those_of_the_onnxruntime_backend(self, name: str, generation: Generation, zoo: Zoo) -> None:
        """For the same manifest: of all stages, for decode and for prefill."""
        specimen, in_place = zoo[name], generation in IN_PLACE
        gpu, other = FakeGpu(), FakeGpu()
        library = FakeTensorRT(generation, gpu)
        session = session_of(tensorrt_engines(specimen, generation, gpu, library=library), specimen, 2)
        reference = session_of(ort_engines(specimen, "classic", in_place=in_place, gpu=other), specimen, 2)
        stages: Any = [stage for phase in ("decode", "prefill") for stage in decoder_of(reference)._stages[phase]]
        for one in (session, reference):  # the warm-up binds all stages' decode phases, and within ten tokens all of them fire
            one.advance(random_ids(2, 1))
            one.rewind(1)
            one.advance(random_ids(2, 10))
        expected = [{name: buffer.address for name, buffer in stage._buffers.items()} for stage in stages]
        found = [context.addresses for context in library.contexts[: len(stages)]]  # the sampler's come after them
        assert self.plan(gpu, found) == self.plan(other, expected)

    def test_hold_what_the_engines_hold(self, zoo: Zoo) -> None:
        """Unless less is asked for: a session is as long as they were built for, if that is less than the model's context."""
        short = Limits(batch=1, capacity=40, prefill=5)
        engines, model = ort_engines(zoo["linear"], "modern", short), zoo["linear"].bundle.manifest.model
        assert Session(engines, model).capacity == 40
        assert Session(engines, model, capacity=30).capacity == 30
        with pytest.raises(CapacityError, match="the engines hold at most 40 tokens, got a capacity of 41"):
            Session(engines, model, capacity=41)

    @pytest.mark.parametrize("generation", GENERATIONS)
    def test_lets_all_engines_compute_in_one_block(self, generation: Generation, zoo: Zoo, gpu: FakeGpu) -> None:
        """As large as the largest engine's, for they run one after the other; of sessions too."""
        library = FakeTensorRT(generation, gpu)
        engines = tensorrt_engines(zoo["nested"], generation, gpu, library=library)
        first, second = session_of(engines, zoo["nested"]), session_of(engines, zoo["nested"])
        assert {(context.memory, context.memory_bytes) for context in library.contexts} == {(library.contexts[0].memory, 5000)}
        assert len(library.contexts) == 2 * (
            2 * 5 + 3
        )  # of two sessions: two phases of each stage, and the sampler for each scale
        del first, second

    def test_are_given_back_with_the_session(self, zoo: Zoo, gpu: FakeGpu) -> None:
        """When it is closed; the engines keep the block they compute in."""
        engines = tensorrt_engines(zoo["nested"], "tensorrt", gpu)
        with session_of(engines, zoo["nested"]) as session:
            session.advance(random_ids(1, 9))
        assert gpu.leaks() == ["5000 bytes, device", "stream"]
        assert session.state_bytes == {}

    def test_of_logits_are_as_many_as_one_call_gives(self, zoo: Zoo, gpu: FakeGpu) -> None:
        """Engines that take any length are still called for 512 tokens at most, and hold logits for so many."""
        session = Session(ort_engines(zoo["linear"], "modern", None, gpu=gpu), zoo["linear"].bundle.manifest.model, 1, 2000)
        assert max(each.nbytes for each in gpu.allocations.values() if each.kind == "pinned") == 512 * 41 * 4
        assert session.advance(random_ids(1, 600)).shape == (1, 600, 41)


class TestLayerTimes:
    """What the library says of every layer, while steps are not recorded."""

    @pytest.mark.parametrize("generation", GENERATIONS)
    def test_add_up_over_the_runs_of_a_stage(self, generation: Generation, zoo: Zoo, gpu: FakeGpu) -> None:
        """A coarse stage's count as often as it fires; prefills do not."""
        engines = tensorrt_engines(zoo["linear"], generation, gpu)
        engines.records = False
        session = session_of(engines, zoo["linear"])
        session.advance(random_ids(1, 5))
        times = decoder_of(session).profile()
        for _ in range(10):
            session.advance([[1]])
        assert times["1.pre"] == {layer: 10 * ms for layer, ms in LAYER_MS.items()}
        assert times["5"] == {layer: 2 * ms for layer, ms in LAYER_MS.items()}

    def test_of_a_bundle_are_shares_of_a_step(self, zoo: Zoo, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
        """Over whole periods: the layers of a stage of stride 5 weigh a fifth."""
        opened: list[bool] = []

        def open_engines(_bundle: object, _target: str, graphs: bool) -> ResidentEngines:
            opened.append(graphs)
            engines = tensorrt_engines(zoo["linear"], "tensorrt", gpu)
            engines.records = graphs
            return engines

        monkeypatch.setattr(operator_times, "open_engines", open_engines)
        monkeypatch.setattr(operator_times, "kernel_kinds", lambda *_: {"product": "gemm"})
        bundle = zoo["linear"].bundle
        manifest = msgspec.structs.replace(bundle.manifest, engines={"tensorrt": bundle.manifest.engines["cpu"]})
        found = operator_times.profile(Bundle(bundle.path, manifest), "tensorrt", tokens=32)
        assert opened == [False]
        times = {stage.name: {one.operator: one for one in stage.operators} for stage in found.stages}
        assert times["1.pre"]["gemm"].us_per_token == pytest.approx(1e3 * LAYER_MS["product"])
        assert times["1.pre"]["gemm"].share == pytest.approx(5 * times["5"]["gemm"].share)
        assert times["5"]["gemm"].share == pytest.approx(3 * times["5"]["norm"].share)
        assert times["5"]["gemm"].calls_per_token == pytest.approx(1 / 5)
        assert sum(stage.share for stage in found.stages) == pytest.approx(1)

    def test_are_not_to_be_had(self, zoo: Zoo, gpu: FakeGpu) -> None:
        """Of recorded steps, and of ONNX Runtime."""
        for engines in (tensorrt_engines(zoo["linear"], "tensorrt", gpu), ort_engines(zoo["linear"], "modern")):
            decoder = decoder_of(session_of(engines, zoo["linear"]))
            with pytest.raises(ConfigError, match="layers are timed in TensorRT engines whose steps are not recorded"):
                decoder.profile()


class TestState:
    """Caches and rows, read back to the host."""

    @pytest.mark.parametrize("generation", GENERATIONS)
    def test_is_there_when_it_is_returned(self, generation: Generation, zoo: Zoo, gpu: FakeGpu) -> None:
        """Not only when the device is waited for next; and it is what engines on the host keep."""
        here = session_of(tensorrt_engines(zoo["nested"], generation, gpu), zoo["nested"], 2)
        there = session_of(ort_engines(zoo["nested"], "modern"), zoo["nested"], 2)
        for session in (here, there):
            session.advance(random_ids(2, 13))
        found, expected = here.snapshot().written, there.snapshot().written
        for ours, theirs in zip(found.caches, expected.caches, strict=True):
            for cache, other in zip(ours, theirs, strict=True):
                np.testing.assert_allclose(cache, other, atol=1e-5)
        for stage in ("1.pre", "2.pre", "8", "2.post"):
            np.testing.assert_allclose(here.output_rows(stage), there.output_rows(stage), atol=1e-5)


class TestWhatFails:
    """No step is half done, and nothing goes another way without a word."""

    @pytest.mark.parametrize("generation", GENERATIONS)
    def test_a_step_that_can_not_be_recorded(self, generation: Generation, zoo: Zoo, gpu: FakeGpu) -> None:
        """An error when the session opens, and no session that decodes stage by stage; afterwards the device is as it was."""
        engines = tensorrt_engines(zoo["linear"], generation, gpu)
        gpu.failing["cudaGraphInstantiate"] = "cudaErrorNotSupported"
        with pytest.raises(DeviceError, match="cudaGraphInstantiate failed: cudaErrorNotSupported"):
            session_of(engines, zoo["linear"])
        gpu.failing.clear()
        walk_of(session_of(engines, zoo["linear"]), zoo["linear"])

    @pytest.mark.parametrize("generation", GENERATIONS)
    def test_a_session_survives_a_call_that_failed(self, generation: Generation, zoo: Zoo, gpu: FakeGpu) -> None:
        """It is where it was, and goes on as if nothing had been: after a prefill, and after a recorded step."""
        library = FakeTensorRT(generation, gpu)
        engines = tensorrt_engines(zoo["nested"], generation, gpu, library=library)
        walk = walk_of(session_of(engines, zoo["nested"]), zoo["nested"])
        library.refusing.add("execute_async_v3")
        with pytest.raises(DeviceError, match=r"stage 1\.pre prefill could not be queued"):
            walk.session.advance(random_ids(1, 4))
        library.refusing.clear()
        walk.advance(4)
        walk.advance(1)  # records what the prefill led to
        walk.session.rewind(1)
        gpu.failing["cudaGraphLaunch"] = "cudaErrorLaunchOutOfResources"
        with pytest.raises(DeviceError, match="cudaErrorLaunchOutOfResources|cudaGraphLaunch"):
            for _ in range(16):
                walk.session.advance(random_ids(1, 1))
        gpu.failing.clear()
        walk.advance(1)

    def test_a_call_that_fails_halfway(self, zoo: Zoo, gpu: FakeGpu) -> None:
        """Where state takes turns, both buffers of a stage that ran before the one that failed hold all of the past."""
        library = FakeTensorRT("tensorrt 10.3", gpu)
        engines = tensorrt_engines(zoo["nested"], "tensorrt 10.3", gpu, library=library)
        walk = walk_of(session_of(engines, zoo["nested"]), zoo["nested"])
        library.refusing.add("set_input_shape logit_rows")
        with pytest.raises(DeviceError, match=r"stage 1\.post prefill refuses shape \[3\] of logit_rows"):
            walk.session.advance(random_ids(1, 3))
        library.refusing.clear()
        walk.advance(3)

    def test_more_sequences_than_the_engines_take(self, zoo: Zoo, gpu: FakeGpu) -> None:
        """With the option that builds them larger."""
        with pytest.raises(ConfigError, match="at most 2 sequences, got a batch of 3; build them with --max-batch 3"):
            session_of(tensorrt_engines(zoo["linear"], "tensorrt", gpu), zoo["linear"], 3)

    def test_engines_that_want_all_sequences_at_one_position(self, zoo: Zoo) -> None:
        """As foveal built them before sidecars said otherwise: they serve sessions, and what they can't serve is said."""
        engines = ort_engines(zoo["linear"], "modern")
        engines.require_own_positions()
        written = msgspec.to_builtins(sidecar_of(engines.specs[1], "cuda", "modern", LIMITS))
        del written["own_positions"]
        engines.engines[1].own_positions = msgspec.convert(written, EngineSidecar).own_positions
        with pytest.raises(EngineMismatchError, match=r'stage "5" .* at one position.*: foveal build BUNDLE --target cuda$'):
            engines.require_own_positions()
        walk_of(session_of(engines, zoo["linear"], 2), zoo["linear"])

    def test_more_tokens_than_the_engines_hold(self, zoo: Zoo, gpu: FakeGpu) -> None:
        """The context of the model may be longer than its engines."""
        engines = tensorrt_engines(zoo["linear"], "tensorrt", gpu, Limits(capacity=40, prefill=5))
        model = zoo["linear"].bundle.manifest.model
        with pytest.raises(CapacityError, match="at most 40 tokens, got a capacity of 96; ask for less, or .*--capacity 96"):
            Session(engines, model, capacity=96)
        assert Session(engines, model).capacity == 40

    def test_memory_that_runs_out(self, zoo: Zoo, gpu: FakeGpu) -> None:
        """How much was asked for is said, and what was got is given back."""
        engines = tensorrt_engines(zoo["linear"], "tensorrt", gpu)
        gpu.failing["cudaMalloc"] = "cudaErrorMemoryAllocation"
        with pytest.raises(DeviceError, match=r"no memory for 9,216 bytes: cudaMalloc failed: cudaErrorMemoryAllocation"):
            session_of(engines, zoo["linear"])
        gc.collect()
        assert gpu.leaks() == ["stream"]

    def test_a_snapshot_of_engines_that_keep_their_caches_otherwise(self, zoo: Zoo, gpu: FakeGpu) -> None:
        """A snapshot goes from library to library, but not from model to model."""
        here = session_of(tensorrt_engines(zoo["nested"], "tensorrt", gpu), zoo["nested"])
        there = session_of(ort_engines(zoo["nested"], "classic"), zoo["nested"])
        ids = random_ids(1, 30)
        there.advance(ids[:, :17])
        here.restore(there.snapshot())
        np.testing.assert_allclose(here.advance(ids[:, 17:]), full_forward(zoo["nested"].model, ids)[:, 17:], atol=1e-4)
        with pytest.raises(InputError, match="engines that keep their rows and caches otherwise"):
            here.restore(session_of(ort_engines(zoo["linear"], "classic"), zoo["linear"]).snapshot())


class TestFrame:
    """What the host tells the engines of a call."""

    SPECS = (
        StageSpec(name="16", stride=16, fires="close", inputs=(InputSpec(kind="tokens", count=16),), output="hidden", width=8,
                  layers=1, parameters=0),
        StageSpec(name="1", stride=1, inputs=(InputSpec(kind="tokens"),), output="logits", width=3, layers=1, parameters=0),
    )  # fmt: skip

    def test_has_room_for_the_firings_of_any_phase(self) -> None:
        """Twenty tokens that begin at the end of a group complete two groups; twenty that begin with one complete one."""
        device, tokens = HostDevice(), TokenLog.allocate(0, 40, 2)
        tokens.write(0, np.arange(80).reshape(2, 40))
        frame = Frame(device, self.SPECS, "prefill", Limits(batch=2, capacity=40, prefill=20), vocab_size=3)
        frame.tell([spec.firings(15, 20) for spec in self.SPECS], tokens, np.array([19]))
        frame.upload()
        coarse, fine = (self.read(frame.tensors(index)["input_ids"].address, count) for index, count in ((0, 64), (1, 40)))
        assert coarse.tolist() == [*range(32), *range(40, 72)]
        assert fine.tolist() == [*range(15, 35), *range(55, 75)]

    def test_puts_every_tensor_where_tensorrt_takes_it(self) -> None:
        """IExecutionContext::setTensorAddress asks for 256 bytes; what an allocation begins with is aligned by CUDA."""
        frame = Frame(HostDevice(), self.SPECS, "decode", LIMITS, vocab_size=3)
        tables = [frame.tensors(index) for index in range(2)]
        block = tables[0]["position"].address
        inside = [buffer.address - block for table in tables for name, buffer in table.items() if name != "logits"]
        assert all(offset % 256 == 0 for offset in inside)
        assert len(set(inside)) == len(inside)

    @staticmethod
    def read(address: int, count: int) -> np.ndarray:
        """Numbers at an address."""
        return np.ctypeslib.as_array((ctypes.c_int64 * count).from_address(address)).copy()
