"""Sequences that come and go on a device: each gets what a session of its own would, in one launch for all.

Devices and TensorRT are fakes on the host (tests/fake_cuda.py, tests/fake_tensorrt.py), stages are fakes of every kind
(tests/programs.py) or graphs that ONNX Runtime runs.
"""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
from batches import BatchWalk, wander
from combinations import fewer_examples
from fake_cuda import FakeGpu
from fake_tensorrt import GENERATIONS, Generation
from hypothesis import given
from hypothesis import strategies as st
from programs import borrowing, forgetful, hourglass, info, paged, programs, resident_engines
from resident_engines import ort_engines, session_of, tensorrt_engines
from slots import SLOTS, Slots, everything, ways
from specimens import Specimen, Zoo, random_model
from store import Store

from foveal import CapacityError, ConfigError, InputError
from foveal.bundle import open_bundle
from foveal.contract import Limits
from foveal.errors import DeviceError, EngineMismatchError
from foveal.export import convert_model
from foveal.runtime import resident_batch
from foveal.runtime.batches.batch import Batch
from foveal.runtime.resident import ResidentEngines
from foveal.runtime.rows import TokenLog
from foveal.runtime.session import Session

LIMITS = Limits(batch=SLOTS, capacity=40, prefill=7)
"""So short that slots are full now and then, and most prompts are run in several calls."""

Way = list[tuple[str, int, int]]


def slots_of(engines: ResidentEngines, model: Any, capacity: int, tolerance: float = 1e-5) -> Slots:
    """Slots on engines, and a session on the same engines for each."""
    sessions = [Session(engines, model, 1, capacity) for _ in range(SLOTS)]
    return Slots(engines.batch_decoder, sessions, tolerance)


class TestAnyProgram:
    """Whatever its stages are."""

    @given(programs, st.booleans(), st.booleans(), ways)
    def test_gives_every_slot_what_it_would_get_alone(self, program: Any, in_place: bool, limited: bool, way: Way) -> None:
        """Joined and left at any time, prefilled, stepped, rewound and forked at any phase."""
        slots = slots_of(resident_engines(program, in_place, LIMITS if limited else None), info(), LIMITS.capacity)
        for step in way:
            slots.take(*step)

    @given(programs, st.booleans(), ways)
    def test_may_run_slots_that_do_not_fire(self, program: Any, in_place: bool, way: Way) -> None:
        """All that may be run along in every step: no one sees what that wrote, and no slot that is full is written beyond."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(resident_batch, "ranges_of", everything)
            slots = slots_of(resident_engines(program, in_place, LIMITS), info(), LIMITS.capacity)
            for step in way:
                slots.take(*step)

    @given(programs, ways)
    def test_counts_what_sequences_asked_for(self, program: Any, way: Way) -> None:
        """However ranges are filled up: what the sessions counted together."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(resident_batch, "ranges_of", everything)
            slots = slots_of(resident_engines(program, True, LIMITS), info(), LIMITS.capacity)
            for step in way:
                slots.take(*step)
        expected = {name: sum(session.fires[name] for session in slots.sessions) for name in slots.decoder.fires}
        assert slots.decoder.fires == expected


class TestStagesThatReset:
    """What their caches are of is known slot by slot."""

    @staticmethod
    def open() -> Slots:
        """Periods of six tokens in the fine stage."""
        return slots_of(resident_engines(forgetful(3, 2, periods=2), True, LIMITS), info(), LIMITS.capacity)

    def test_run_again_before_a_step(self) -> None:
        """After a rewind of one slot and not of the others, in the middle of a period."""
        slots = self.open()
        for slot in range(SLOTS):
            slots.prefill(slot, 10 + slot)
        slots.take("rewind", 1, 3)
        for _ in range(5):
            slots.step(range(SLOTS))

    def test_are_told_apart_from_those_of_a_slot_that_was_written_over(self) -> None:
        """It ended where the other's past ends now, but in another text: by a fork, and by a copy over the host."""
        for what in ("fork", "move"):
            slots = self.open()
            slots.prefill(0, 13)
            slots.take("rewind", 0, 3)  # of the caches at position 10 nothing is known but that they are of position 13
            slots.prefill(1, 10)
            slots.copy(what, 0, 1)
            slots.step([1])
            slots.step([0, 1])

    def test_go_on_in_a_fork(self) -> None:
        """What its source remembers is copied with it, so that nothing is run again."""
        slots = self.open()
        slots.prefill(0, 10)
        slots.copy("fork", 0, 3)
        (fine,) = [engine for engine in slots.decoder._engines if engine.spec.output == "logits"]
        before = len(fine.calls)
        slots.decoder.step(np.array([0, 3]), np.array([10, 10]))
        assert fine.calls[before:] == [range(10, 11)] * 2


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize(("name", "dialect"), [("nested", "modern"), ("linear", "classic"), ("top-down", "modern")])
@fewer_examples(6)
@given(way=ways)
def test_real_graphs(name: str, dialect: str, in_place: bool, zoo: Zoo, way: Way) -> None:
    """On ONNX Runtime; every other family's are among the kinds of `family_engines.py`."""
    engines = ort_engines(zoo[name], dialect, Limits(batch=SLOTS, capacity=48, prefill=5), in_place)
    slots = slots_of(engines, zoo[name].bundle.manifest.model, 48, 1e-4)
    for step in way:
        slots.take(*step)


@pytest.mark.parametrize("policy", ["staggered", "aligned"])
@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize(
    "program", [hourglass(3, 2), forgetful(3, 2), borrowing(4), paged(4, 6)], ids=["k", "resets", "lent", "pages"]
)
def test_a_batch_on_a_device(program: Any, in_place: bool, policy: Any) -> None:
    """As one in the host's memory: sequences join, wait for their phase, leave, pause, rewind and fork."""
    engines = resident_engines(program, in_place, LIMITS)
    with Batch(engines, info(), SLOTS, LIMITS.capacity, policy, prefill_seconds=0) as batch:
        walk = BatchWalk(batch, lambda: Session(engines, info(), 1, LIMITS.capacity), 1e-4)
        wander(walk, Random(0), 120, LIMITS.capacity, info().vocab_size)


@pytest.fixture(scope="module")
def even(store: Store) -> Specimen:
    """A model of whose caches and logs every row is a multiple of 256 bytes."""
    model = random_model("1@1 1@2 1@4 1@2 1@1", dim=64, heads=2, head_dim=32)
    made = store.once("resident batch/even", lambda directory: convert_model(model, directory / "b"))
    return Specimen(model, open_bundle(made / "b"))


class TestOnTensorRT:
    """Which takes no address that is not aligned, and records what it runs."""

    LIMITS = Limits(batch=SLOTS, capacity=48, prefill=5)

    def open(self, even: Specimen, gpu: FakeGpu, generation: Generation) -> Slots:
        """Slots on a fake library; the sessions they are held against are on ONNX Runtime, which calls no driver."""
        engines, alone = tensorrt_engines(even, generation, gpu, self.LIMITS), ort_engines(even, "modern", self.LIMITS)
        sessions = [Session(alone, even.bundle.manifest.model, 1, self.LIMITS.capacity) for _ in range(SLOTS)]
        return Slots(engines.batch_decoder, sessions, 1e-4)

    @pytest.mark.parametrize("generation", GENERATIONS)
    @fewer_examples(4)
    @given(way=ways, all_of_them=st.booleans())
    def test_gives_every_slot_what_it_would_get_alone(
        self, generation: Generation, even: Specimen, way: Way, all_of_them: bool
    ) -> None:
        """In the end all memory is given back but what the engines share."""
        gpu = FakeGpu()
        with pytest.MonkeyPatch.context() as patch:
            if all_of_them:
                patch.setattr(resident_batch, "ranges_of", everything)
            slots = self.open(even, gpu, generation)
            for step in way:
                slots.take(*step)
            slots.decoder.close()
        assert slots.decoder.state_bytes == {}
        del slots
        assert gpu.leaks() == []

    @pytest.mark.parametrize("generation", GENERATIONS)
    def test_a_step_is_one_launch_once_it_was_met(self, generation: Generation, even: Specimen, gpu: FakeGpu) -> None:
        """In a steady batch, slots of other phases and all, there are as many as the coarsest stride has steps."""
        slots = self.open(even, gpu, generation)
        for slot, prompt in enumerate((3, 4, 6, 9)):
            slots.prefill(slot, prompt)
        for _ in range(8):
            slots.step(range(SLOTS))
        assert slots.decoder.recorded == gpu.count("cudaGraphInstantiate") == 4
        for _ in range(8):
            before = len(gpu.calls)
            slots.step(range(SLOTS))
            assert [call.name for call in gpu.calls[before:]] == ["cudaGraphLaunch", "cudaStreamSynchronize"]

    def test_recordings_that_were_not_launched_for_long_make_room(
        self, even: Specimen, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Three are kept here: what is met again in time stays, and the driver has no more than that."""
        monkeypatch.setattr(resident_batch, "MOST_RECORDED", 3)
        slots = self.open(even, gpu, "tensorrt-rtx")
        for slot in range(SLOTS):
            slots.prefill(slot, 4)
        for of_step in ([0], [0], [0, 3], [0], [3], [0, 1, 2, 3], [2], [0], [1]):
            slots.step(of_step)
            assert slots.decoder.recorded == len(gpu.launchables) <= 3
        assert gpu.count("cudaGraphExecDestroy") > 0

    def test_is_not_recorded_while_someone_observes(self, even: Specimen, gpu: FakeGpu) -> None:
        """Every call is told of: the stage, and firings of all slots that it ran, those that were run along too."""
        slots, seen = self.open(even, gpu, "tensorrt"), []
        for slot in range(3):
            slots.prefill(slot, 4 - slot % 2)  # the first and the third fire all stages next, the second is run along
        slots.decoder.observer = lambda spec, firings, _: seen.append((spec.name, firings))
        launches = gpu.count("cudaGraphLaunch")
        slots.step([0, 2])
        assert seen == [("1.pre", 3), ("2.pre", 3), ("4", 3), ("2.post", 3), ("1.post", 3)]
        assert gpu.count("cudaGraphLaunch") == launches
        assert slots.decoder.fires["4"] == 3 + 2

    def test_a_fork_stays_on_the_device(self, even: Specimen, gpu: FakeGpu) -> None:
        """A copy from slot to slot of the rows that are there, and nothing that the host waits for but the end."""
        slots = self.open(even, gpu, "tensorrt-rtx")
        slots.prefill(0, 13)
        before = len(gpu.calls)
        slots.copy("fork", 0, 2)
        names = [call.name for call in gpu.calls[before:]]
        assert set(names[:-1]) <= {"cudaMemcpyAsync", "cudaMemcpy2DAsync"}
        assert names[-1] == "cudaStreamSynchronize"
        slots.step([0, 2])

    @pytest.mark.parametrize("generation", GENERATIONS)
    def test_says_what_it_copies(self, generation: Generation, even: Specimen, gpu: FakeGpu) -> None:
        """Nothing in place; elsewhere all state of the slots that a stage runs for is written apart, and copied back."""
        slots = self.open(even, gpu, generation)
        slots.prefill(1, 3)
        reserved, before = slots.decoder.state_bytes, slots.decoder.copied_bytes
        slots.step([1])  # at position 3 the fine stages fire only
        fine = reserved["1.pre"] + reserved["1.post"]
        assert slots.decoder.copied_bytes - before == (2 * fine // SLOTS if generation == "tensorrt 10.3" else 0)

    def test_a_step_that_failed_can_be_taken_again(self, even: Specimen, gpu: FakeGpu) -> None:
        """And a prefill: what was half written is written again."""
        slots = self.open(even, gpu, "tensorrt-rtx")
        for slot in range(SLOTS):
            slots.prefill(slot, 3)
        positions, ids = np.full(SLOTS, 3), np.arange(SLOTS)[:, None]
        slots.tokens.write(3, ids)
        gpu.failing["cudaMemcpyAsync"] = "cudaErrorLaunchFailure"
        with pytest.raises(DeviceError, match="cudaErrorLaunchFailure"):
            slots.decoder.step(np.arange(SLOTS), positions)
        with pytest.raises(DeviceError, match="cudaErrorLaunchFailure"):
            slots.decoder.prefill(0, 3, 1, np.zeros(1, np.int64))
        gpu.failing.clear()
        for _ in range(3):
            slots.step(range(SLOTS))

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("vanilla", r"past_key_values.0.key of stage \"1\" takes 9,120 bytes .* multiple of 256, .* --capacity 96"),
            ("linear", r"past_key_values.0.key of stage \"1.pre\" takes 9,120 bytes .*; open a session for each sequence"),
        ],
    )
    def test_slots_that_would_begin_where_no_tensor_may(self, name: str, message: str, zoo: Zoo, gpu: FakeGpu) -> None:
        """With a capacity for which they would not, or another way out; a single slot begins where its buffer does."""
        engines = tensorrt_engines(zoo[name], "tensorrt-rtx", gpu, Limits(batch=2, capacity=95, prefill=5))
        with pytest.raises(ConfigError, match=message):
            engines.batch_decoder(TokenLog.allocate(0, 95, 2), 2, 95)
        engines.batch_decoder(TokenLog.allocate(0, 95, 1), 1, 95).close()


class TestWhatIsRefused:
    """When a batch opens, and with what to do about it."""

    def test_more_slots_or_tokens_than_the_engines_take(self, zoo: Zoo) -> None:
        """As of sessions."""
        engines = ort_engines(zoo["linear"], "modern")
        with pytest.raises(ConfigError, match="at most 2 sequences, got a batch of 3; build them with --max-batch 3"):
            engines.batch_decoder(TokenLog.allocate(0, 96, 3), 3, 96)
        with pytest.raises(CapacityError, match="at most 96 tokens, got a capacity of 97; ask for less, or .*--capacity 97"):
            engines.batch_decoder(TokenLog.allocate(0, 97, 2), 2, 97)

    def test_engines_that_want_all_sequences_at_one_position(self, zoo: Zoo) -> None:
        """As earlier versions built them; one sequence is at one position."""
        engines = ort_engines(zoo["linear"], "modern")
        engines.engines[0].own_positions = False
        with pytest.raises(EngineMismatchError, match="foveal build BUNDLE --target cuda"):
            engines.batch_decoder(TokenLog.allocate(0, 96, 2), 2, 96)
        engines.batch_decoder(TokenLog.allocate(0, 96, 1), 1, 96).close()

    def test_what_other_engines_have_written(self, zoo: Zoo) -> None:
        """Nothing is written then."""
        nested, linear = (ort_engines(zoo[name], "modern") for name in ("nested", "linear"))
        session = session_of(linear, zoo["linear"])
        session.advance([[1, 2, 3]])
        decoder = nested.batch_decoder(TokenLog.allocate(0, 96, 2), 2, 96)
        with pytest.raises(InputError, match="engines that keep their rows and caches otherwise"):
            decoder.write(1, session.snapshot().written, 3)
