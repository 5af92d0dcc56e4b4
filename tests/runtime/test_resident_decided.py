"""Sessions on a device whose stages fire when the data says so: what the program means, on every library and on none."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from random import Random

import msgspec
import numpy as np
import pytest
from combinations import fewer_examples
from deciding import STATE, check_walk, meaning, newest, random_program, span
from exactness import Walk, paths
from fake_cuda import FakeGpu
from grouping_model import grouping
from hypothesis import given
from hypothesis import strategies as st
from programs import CAPACITY, LIMITS, TOKENS, VOCABULARY, Program, info, resident_engines, stage
from resident_engines import LIBRARIES, session_of, tensorrt_engines
from specimens import Specimen, full_forward
from store import Store

from foveal import ConfigError, InputError
from foveal.contract import ClockSpec, InputSpec, Limits
from foveal.runtime.resident import ResidentEngines
from foveal.runtime.resident_decided import DecidedDecoder
from foveal.runtime.rows import TokenLog
from foveal.runtime.sampling import SamplingParams
from foveal.runtime.session import Session


@pytest.fixture(scope="session")
def specimen(store: Store) -> Specimen:
    """A model that groups tokens, reads spans and newest rows, and has a state that is replaced."""
    return grouping(store)


@pytest.mark.parametrize("library", LIBRARIES)
@fewer_examples(8)
@given(path=paths)
def test_wherever_a_session_goes_its_logits_are_the_full_forwards(
    library: str, specimen: Specimen, path: Sequence[tuple[str, int]]
) -> None:
    """Any chunks, rewound, restored and forked anywhere; in the end all memory is given back."""
    gpu = FakeGpu()
    walk = Walk(session_of(LIBRARIES[library](specimen, gpu), specimen), partial(full_forward, specimen.model))
    for step, tokens in path:
        walk.take(step, tokens)
    walk.advance(7)
    del walk
    assert gpu.leaks() == []


@given(st.randoms(), st.booleans(), st.booleans())
def test_any_program_means_what_it_says(choose: Random, in_place: bool, replaces: bool) -> None:
    """With rewinds, snapshots and forks between calls, over random rules, spans and states, in place or taking turns."""
    program = random_program(choose)
    limits = choose.choice([LIMITS, Limits(batch=1, capacity=CAPACITY, prefill=64), None])
    engines = resident_engines(program, in_place, limits, replaces=replaces)
    session = Session(engines, info(), copies_bytes=choose.choice([0, 500, 1 << 20]))
    check_walk(session, program, choose, lambda: choose.choice([1, 1, 2, 5, 9, 24]))


def decided(clock: ClockSpec, reads: InputSpec | None = None) -> Program:
    """A middle stage that a clock fires, and whose newest row every token reads."""
    return (
        stage("pre", 1, [TOKENS]),
        stage("middle", 1, [reads or newest("pre")], clock=clock),
        stage("post", 1, [InputSpec(kind="stream", source="pre"), newest("middle")], output="logits"),
    )


BY_IDS = ClockSpec(ids=tuple(range(21, VOCABULARY)))


class TestACall:
    """Of a session on a device."""

    def test_is_seen_by_an_observer_stage_by_stage(self) -> None:
        """Those that fire, in their order."""
        session, seen = Session(resident_engines(decided(BY_IDS)), info()), []
        session.observer = lambda spec, firings, elapsed_ns: seen.append((spec.name, firings, elapsed_ns > 0))
        session.advance([[3, 30, 40]])
        session.advance([[3]])
        assert seen == [("pre", 3, True), ("middle", 2, True), ("post", 3, True), ("pre", 1, True), ("post", 1, True)]
        assert session.fires == {"pre": 4, "middle": 2, "post": 4}

    def test_of_a_long_span_is_one_firing(self) -> None:
        """Engines have room for spans of any length in a call of one firing, and for bounded ones in others."""
        program = decided(ClockSpec(ids=(1,)), span("pre"))
        session = Session(resident_engines(program, limits=Limits(batch=1, capacity=CAPACITY, prefill=CAPACITY)), info())
        ids = np.array([[1, 2, 1, *[2] * 50, 1, 2, 1, 1, 1]])
        np.testing.assert_allclose(session.advance(ids)[0], meaning(program, ids[0]), atol=1e-4)
        engines = session.engines
        assert isinstance(engines, ResidentEngines)
        assert [len(call) for call in engines.engines[1].calls] == [2, 1, 3]  # type: ignore[attr-defined]

    def test_copies_a_state_back_where_it_can_not_be_replaced_in_place(self) -> None:
        """And says how much that is."""
        program = tuple(msgspec.structs.replace(spec, caches=(STATE,)) for spec in decided(BY_IDS))
        session = Session(resident_engines(program, replaces=False), info())
        session.advance([[3]])
        state_bytes = 2 * 5 * 4
        assert session.copied_bytes == 2 * state_bytes
        session.advance([[30]])
        assert session.copied_bytes == 5 * state_bytes
        in_place = Session(resident_engines(program), info())
        in_place.advance([[3, 30]])
        assert in_place.copied_bytes == 0

    def test_does_not_wait_for_what_nobody_asks(self, specimen: Specimen) -> None:
        """One wait for each stage that decides, and one for the logits."""
        gpu = FakeGpu()
        session = session_of(tensorrt_engines(specimen, "tensorrt-rtx", gpu), specimen)
        session.advance([[1, 2, 3]])
        for token in range(12):
            before, fired = len(gpu.calls), session.fires["coarse"]
            session.advance([[token]])
            names = [call.name for call in gpu.calls[before:]]
            assert names.count("cudaStreamSynchronize") == 3
            assert names.count("execute_async_v3") == 2 + session.fires["coarse"] - fired

    def test_reports_what_was_decided(self) -> None:
        """By ids and by rows; and follows another's schedule."""
        by_rows = decided(ClockSpec(stage="pre", threshold=0.0))
        session = Session(resident_engines(by_rows), info())
        session.advance([[3, 30, 4, 40, 5]])
        ((clock, decisions),) = session.schedule.items()
        assert clock is by_rows[1].clock
        assert decisions.made.tolist() == (decisions.values > 0).tolist()
        assert session.fires["middle"] == decisions.made.sum()
        other, made = Session(resident_engines(by_rows), info()), ~decisions.made
        other.follow({clock: dataclasses.replace(decisions, made=made)})
        other.advance([[3, 30, 4, 40, 5]])
        assert other.schedule[clock].made.tolist() == made.tolist()
        assert other.fires["middle"] == made.sum()


class TestWhatIsRefused:
    """With what to do instead."""

    def test_sequences_that_disagree(self) -> None:
        """A session's fire in step; after the refusal it is where it was."""
        session = Session(resident_engines(decided(BY_IDS)), info(), 2)
        session.advance([[3, 30], [4, 40]])
        with pytest.raises(InputError, match="at different tokens; open a session for each of them"):
            session.advance([[3], [40]])
        assert session.advance([[30], [40]]).shape == (2, 1, VOCABULARY)

    def test_a_batch(self) -> None:
        """Of slots with clocks of their own."""
        engines = resident_engines(decided(BY_IDS))
        with pytest.raises(ConfigError, match="open a session for each sequence"):
            engines.batch_decoder(TokenLog.allocate(0, CAPACITY, 2), 2, CAPACITY)

    def test_drawing_there(self) -> None:
        """The host must look at every step anyway."""
        session = Session(resident_engines(decided(BY_IDS)), info())
        assert not session.draws
        assert isinstance(session.decoder, DecidedDecoder)
        with pytest.raises(ConfigError, match="draw tokens from the logits, on the host"):
            session.draw([[1]], 2, SamplingParams(temperature=0), np.zeros((2, 1)))
