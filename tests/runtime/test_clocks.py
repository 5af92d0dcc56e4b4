"""Stages whose firings the data decides: a clock that is a log, in sessions and in batches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from random import Random

import msgspec
import numpy as np
import pytest
import torch
from batches import BatchWalk, wander
from deciding import STATE, check_walk, meaning, newest, random_program, span
from hypothesis import given
from hypothesis import strategies as st
from programs import CAPACITY, DIM, TOKENS, VOCABULARY, Program, host_engines, info, stage

from foveal import CapacityError, ConfigError, InputError
from foveal.contract import ClockSpec, InputSpec, StageSpec, problem_of
from foveal.runtime.batches.batch import Batch
from foveal.runtime.batches.slot_clocks import SlotClocks
from foveal.runtime.clocks import Clocks
from foveal.runtime.engines.fake import FakeEngine, FakeStage
from foveal.runtime.rows import Array, Block, TokenLog
from foveal.runtime.session import Session


@given(st.randoms())
def test_a_session_in_any_chunks_means_what_the_program_says(choose: Random) -> None:
    """With rewinds, snapshots and forks between them, over random rules, spans and states."""
    program = random_program(choose)
    session = Session(host_engines(program), info(), copies_bytes=choose.choice([0, 500, 1 << 20]))
    check_walk(session, program, choose, lambda: choose.randint(1, 9))


@given(st.integers(1, 5), st.randoms())
def test_a_batch_of_sequences_with_boundaries_of_their_own(slots: int, choose: Random) -> None:
    """Each fires by its own text, whatever the others do."""
    engines = host_engines(random_program(choose))
    batch = Batch(engines, info(), slots, prefill_seconds=0)
    wander(BatchWalk(batch, lambda: Session(engines, info()), 1e-5), choose, 30, CAPACITY, VOCABULARY)


def decided(clock: ClockSpec, reads: InputSpec | None = None, **middle: object) -> Program:
    """A middle stage that a clock fires, and whose newest row every token reads."""
    return (
        stage("pre", 1, [TOKENS]),
        stage("middle", 1, [reads or newest("pre")], clock=clock, **middle),
        stage("post", 1, [InputSpec(kind="stream", source="pre"), newest("middle")], output="logits"),
    )


def fired(clock: ClockSpec, ids: list[int], cuts: list[int]) -> list[int]:
    """The tokens that fire the middle stage, when ids are appended in chunks that end at the cuts."""
    clocks = Clocks.allocate(decided(clock), len(ids))
    (log,) = clocks.logs.values()
    for start, stop in zip([0, *cuts], [*cuts, len(ids)], strict=True):
        log.append(start, stop - start, np.array(ids[start:stop]))
    count = clocks.of["middle"].firings_within(len(ids))
    assert clocks.of["middle"].firings(0, len(ids)) == range(count)
    return [clocks.of["middle"].fired_by(firing) for firing in range(count)]


class TestARule:
    """From what tokens or rows say to the tokens that fire a stage."""

    @pytest.mark.parametrize("cuts", [[], [1], [3, 4], [1, 2, 3, 4, 5, 6, 7]])
    @pytest.mark.parametrize(
        ("rule", "expected"),
        [
            ({}, [1, 3, 4, 7]),
            ({"firsts": 1}, [0, 1, 3, 4, 7]),
            ({"firsts": 3}, [0, 1, 2, 3, 4, 7]),
            ({"least": 2}, [1, 3, 7]),
            ({"least": 3}, [3, 7]),
            ({"least": 3, "firsts": 1}, [0, 3, 7]),
            ({"most": 2}, [1, 3, 4, 6, 7]),
            ({"most": 1}, [0, 1, 2, 3, 4, 5, 6, 7]),
            ({"least": 2, "most": 3}, [1, 3, 6]),
        ],
    )
    def test_ids_spans_and_firsts(self, rule: dict[str, int], expected: list[int], cuts: list[int]) -> None:
        """However the tokens are cut into calls."""
        assert fired(ClockSpec(ids=(1,), **rule), [0, 1, 0, 1, 1, 0, 0, 1], cuts) == expected

    @pytest.mark.parametrize(("ties", "expected"), [(False, [2]), (True, [1, 2])])
    def test_a_tie(self, ties: bool, expected: list[int]) -> None:
        """A value equal to the threshold is a boundary where the rule says so."""
        program = decided(ClockSpec(stage="pre", threshold=0.5, ties=ties))
        for chunk in (1, 3):
            clocks = Clocks.allocate(program, 3)
            (log,) = clocks.logs.values()
            values = np.array([0.25, 0.5, 0.75], np.float32)
            for start in range(0, 3, chunk):
                log.append(start, chunk, values[start : start + chunk])
            assert log.made_within(3).tolist() == expected

    @pytest.mark.parametrize("rule", [{}, {"most": 90}, {"least": 1, "most": 95, "firsts": 1}])
    @pytest.mark.parametrize(("ties", "expected"), [(False, [0, 4]), (True, [0, 1, 3, 4])])
    def test_a_threshold_is_a_number_of_fp32(self, ties: bool, expected: list[int], rule: dict[str, int]) -> None:
        """As the values are, and as torch compares them: 0.1 of fp32 is no more than a threshold of 0.1. So in batches."""
        clock = ClockSpec(stage="pre", threshold=0.1, ties=ties, **rule)
        values = np.array([0.2, 0.1, 0.0, 0.1, 0.3], np.float32)
        chosen = torch.tensor(values) >= 0.1 if ties else torch.tensor(values) > 0.1
        assert torch.nonzero(chosen)[:, 0].tolist() == expected
        for chunk in (1, 5):
            clocks = Clocks.allocate(decided(clock), 5)
            (log,) = clocks.logs.values()
            for start in range(0, 5, chunk):
                log.append(start, chunk, values[start : start + chunk])
            assert log.made_within(5).tolist() == expected
        slots, every = SlotClocks(decided(clock), 2, 5), np.arange(2)
        for token, value in enumerate(values):
            rows, here = np.full((2, DIM), value, np.float32), np.full(2, token)
            slots.see_rows("pre", every, here, np.ones(2, np.bool_), here, rows)
        (log,) = slots.of(1).logs.values()
        assert log.made_within(5).tolist() == expected

    def test_of_ids_has_no_column(self) -> None:
        """So none is looked for, in batches neither."""
        slots, every = SlotClocks(decided(ClockSpec(ids=(1,), column=3)), 2, 4), np.arange(2)
        tokens = TokenLog.allocate(0, 4, 2)
        tokens.write(0, np.array([[1], [0]]))
        slots.see_ids(every, np.zeros(2, np.int64), tokens)
        assert [slots.decided(slot, 0) for slot in range(2)] == [{"middle"}, frozenset()]

    @pytest.mark.parametrize(
        ("rule", "message"),
        [
            ({}, "give one of stage and ids"),
            ({"stage": "pre", "ids": (3,)}, "give one of stage and ids"),
            ({"ids": (-1,)}, "token id -1, expected ids of at least 0"),
            ({"stage": "pre", "threshold": float("nan")}, "threshold is nan, expected a finite number"),
            ({"stage": "pre", "threshold": 1e39}, r"threshold is 1e\+39, expected a finite number of fp32"),
            ({"stage": "pre", "firsts": -1}, "-1 first boundaries"),
            ({"stage": "pre", "least": 0}, "shortest span has 0 rows"),
            ({"stage": "pre", "least": 4, "most": 3}, "longest span has 3 rows, expected at least as many as its shortest, 4"),
            ({"stage": "pre", "tokens_per_firing": 0.5}, "every 0.5 tokens"),
        ],
    )
    def test_one_that_means_nothing(self, rule: dict[str, object], message: str) -> None:
        """Is refused where it is made."""
        with pytest.raises(ConfigError, match=message):
            ClockSpec(**rule)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": (newest("pre", shift=-1),)}, 'reads 1 rows of "pre" less -1'),
        ({"inputs": (newest("pre", count=0),)}, 'reads 0 rows of "pre" less 0'),
        ({"inputs": (msgspec.structs.replace(span("pre"), count=2),)}, 'spans of "pre" by 2 rows, expected a count of 1'),
        ({"caches": (msgspec.structs.replace(STATE, keeps=3),)}, "recurrent state mix that keeps 3 rows"),
        ({"caches": (STATE,), "clock": None, "resets": 4}, "recurrent state and resets every 4 firings"),
    ],
)
def test_what_a_stage_can_not_be(changes: dict[str, object], message: str) -> None:
    """Rows that are not there yet, and states that nobody would keep: told when a bundle is written or opened."""
    pre, middle, post = decided(ClockSpec(stage="pre"))
    assert problem_of((pre, middle, post)) is None
    fields = {name: _as_wide(value) if name == "inputs" else value for name, value in changes.items()}
    assert message in str(problem_of((pre, msgspec.structs.replace(middle, **fields), post)))


def _as_wide(inputs: tuple[InputSpec, ...]) -> tuple[InputSpec, ...]:
    return tuple(msgspec.structs.replace(given, width=DIM) for given in inputs)


def test_sequences_in_step_must_agree() -> None:
    """A session of several sequences has one clock; after a refusal it is where it was."""
    program = decided(ClockSpec(ids=tuple(range(21, VOCABULARY))))
    session = Session(host_engines(program), info(), 2)
    session.advance([[3, 30], [4, 40]])
    with pytest.raises(InputError, match=r"append them to a batch \(model.batch\)"):
        session.advance([[3], [40]])
    assert session.advance([[30], [40]]).shape == (2, 1, VOCABULARY)
    alone = Session(host_engines(program), info())
    alone.advance([[3, 30]])
    np.testing.assert_array_equal(session.advance([[5], [5]])[0], (alone.advance([[30]]), alone.advance([[5]]))[1][0])


class TestARecurrentState:
    """A rewind takes it from a copy and runs the rows since again."""

    def session(self, copies_bytes: int) -> tuple[Session, list[int]]:
        """All of whose stages have one, of 5 numbers; with the firings of `pre`, in order."""
        program = decided(ClockSpec(stage="pre", threshold=0.0), span("pre"))
        engines = host_engines([msgspec.structs.replace(spec, caches=(STATE,)) for spec in program])
        return Session(engines, info(), capacity=CAPACITY, copies_bytes=copies_bytes), engines[0].fired

    @pytest.mark.parametrize(("copies_bytes", "most"), [(1 << 20, 16), (3 * 3 * 5 * 4, 32), (0, 81)])
    def test_what_a_rewind_costs(self, copies_bytes: int, most: int) -> None:
        """At most the firings from one copy to the next; without copies, all."""
        session, ran = self.session(copies_bytes)
        expected = session.advance(np.arange(CAPACITY)[None] % VOCABULARY)[0]
        for position in (81, 80, 79, 33, 17, 5, 0):
            session.rewind(session.position - position)
            del ran[:]
            logits = session.advance([[position % VOCABULARY]])[0]
            assert ran[-1] == position
            assert len(ran) - 1 <= min(most, position)
            np.testing.assert_allclose(logits[0], expected[position], atol=1e-5)

    @pytest.mark.parametrize("wrong", ["many", -1, 1.5, True])
    def test_a_budget_that_is_none(self, wrong: object) -> None:
        """Is refused."""
        with pytest.raises(ConfigError, match="copies_bytes"):
            Session(host_engines(decided(ClockSpec(ids=(1,)))), info(), copies_bytes=wrong)  # type: ignore[arg-type]


class FailingStage(FakeStage):
    """Spoils a state that it replaces, and fails, as often as it is told to."""

    def run(self, first: int, firings: int, inputs: Sequence[Block], output: Block, logit_rows: Block | None) -> None:
        """As `BoundStage.run`."""
        if self.engine.fails():
            if self.engine.spec.is_recurrent:
                self.caches[0][...] = 1e3
            raise MemoryError("no room")
        super().run(first, firings, inputs, output, logit_rows)


class FailingEngine(FakeEngine):
    """A `FakeEngine` whose calls fail at times."""

    def __init__(self, spec: StageSpec, fails: Callable[[], bool]) -> None:
        super().__init__(spec, DIM)
        self.fails = fails

    def attach(self, caches: Sequence[Array], batch: int, firings: int) -> FailingStage:
        """As `FakeEngine.attach`."""
        return FailingStage(self, caches)


class TestACallThatFails:
    """In whatever stage, after whichever others: nothing is changed."""

    @given(st.randoms())
    def test_of_a_session(self, choose: Random) -> None:
        """It goes on as if there had been none, after rewinds and copies, too."""
        program, share = random_program(choose), [0.0]
        engines = [FailingEngine(spec, lambda: choose.random() < share[0]) for spec in program]
        session = Session(engines, info(), copies_bytes=choose.choice([0, 500, 1 << 20]))
        for _ in range(8):
            ids = [[choose.randrange(VOCABULARY) for _ in range(choose.choice([1, 1, 5, 11]))]]
            share[0] = 0.2
            for _ in range(4):
                with contextlib.suppress(CapacityError):
                    session.fork() if choose.random() < 0.2 else (session.advance(ids), session.rewind(len(ids[0])))
            share[0] = 0.0
            logits = session.advance(ids)[0]
            np.testing.assert_allclose(logits, meaning(program, session.tokens[0])[-len(ids[0]) :], atol=1e-4)
            session.rewind(choose.choice([0, 0, 1, session.position]))

    @given(st.integers(2, 4), st.randoms())
    def test_of_a_batch(self, slots: int, choose: Random) -> None:
        """No sequence of a step that failed has taken its token."""
        program, share = random_program(choose), [0.0]
        engines = [FailingEngine(spec, lambda: choose.random() < share[0]) for spec in program]
        batch = Batch(engines, info(), slots, prefill_seconds=0)
        joined = [batch.join([choose.randrange(VOCABULARY) for _ in range(choose.randint(1, 9))]) for _ in range(slots)]
        while any(one.state != "ready" for one in joined):
            batch.step()
        for _ in range(12):
            tokens = {one: choose.randrange(VOCABULARY) for one in joined if choose.random() < 0.8}
            share[0] = 0.2
            try:
                found = batch.step(tokens)
            except CapacityError:
                share[0] = 0.0
                found = batch.step(tokens)
            share[0] = 0.0
            for one, logits in found.items():
                np.testing.assert_allclose(logits, meaning(program, batch.tokens(one))[-1], atol=1e-4)
            for one in choose.sample(joined, 1):
                batch.rewind(one, choose.choice([0, 0, 1]))


class TestASchedule:
    """What was decided, as a record; and a session that follows another's."""

    @given(st.randoms())
    def test_says_what_fired(self, choose: Random) -> None:
        """Whatever the rule, and however a session got there."""
        program = random_program(choose)
        session = Session(host_engines(program), info())
        session.advance([[choose.randrange(VOCABULARY) for _ in range(40)]])
        session.rewind(choose.randint(0, 30))
        session.advance([[choose.randrange(VOCABULARY) for _ in range(choose.randint(1, 20))]])
        for clock, found in session.schedule.items():
            np.testing.assert_array_equal(found.made, found.wanted)
            if clock.stage is not None and clock.least == 1 and clock.most is None:
                is_above = found.values >= clock.threshold if clock.ties else found.values > clock.threshold
                is_above[: clock.firsts] = True
                np.testing.assert_array_equal(found.made, is_above)
            assert found.margins(clock).shape == found.values.shape
            assert found.tokens_per_boundary == (len(found.made) / found.made.sum() if found.made.any() else np.inf)

    @given(st.randoms())
    def test_is_followed(self, choose: Random) -> None:
        """In any chunks, and further than it goes: the same text by its own schedule gives the same logits."""
        ids = np.array([[choose.randrange(VOCABULARY) for _ in range(40)]])
        engines = host_engines(random_program(choose))
        session = Session(engines, info())
        expected = session.advance(ids)
        known = choose.randint(1, 40)
        session.rewind(40 - known)
        other = Session(engines, info())
        other.follow(session.schedule)
        while other.position < 40:
            chunk = ids[:, other.position :][:, : choose.randint(1, 9)]
            logits = other.advance(chunk)
            np.testing.assert_allclose(logits, expected[:, other.position - chunk.shape[1] : other.position], atol=1e-4)

    def test_of_another_threshold(self) -> None:
        """The values are the session's own, the boundaries the other's, and what it wanted itself is told."""
        engines = host_engines(decided(ClockSpec(stage="pre", threshold=0.2)))
        always, ids = ClockSpec(stage="pre", threshold=-2.0), np.arange(20)[None]
        every = Session(host_engines(decided(always)), info())
        every.advance(ids)
        session = Session(engines, info())
        (clock,) = session.schedule
        own = Session(engines, info())
        own.advance(ids)
        every_token = every.schedule[always]
        session.follow({clock: every_token})
        every.reset()
        np.testing.assert_allclose(session.advance(ids), every.advance(ids), atol=1e-6)
        assert session.fires["middle"] == 20
        np.testing.assert_array_equal(session.schedule[clock].wanted, own.schedule[clock].made)
        assert session.schedule[clock].made.all()
        with pytest.raises(InputError, match="another model"):
            session.follow({})


class TestAValueThatIsNone:
    """A stage that never fires would give logits that look right: it is said."""

    def test_in_a_session(self) -> None:
        """Which stays where it was, in a chunk and in a step."""
        session = Session(host_engines(decided(ClockSpec(stage="pre", threshold=0.0, firsts=1))), info())
        session.advance([[3, 4, 5]])
        step = session.decoder.steps[0]  # type: ignore[attr-defined]
        run, broken = step.bound.run, [True]

        def spoiling(first: int, firings: int, inputs: object, output: Block, rows: object) -> None:
            run(first, firings, inputs, output, rows)
            if broken[0]:
                output.array[-1] = np.nan

        step.bound.run = spoiling
        for ids in ([[6]], [[6, 7]]):
            with pytest.raises(
                InputError, match=f'stage "pre" gave NaN in row {2 + len(ids[0])}, by whose value other stages fire'
            ):
                session.advance(ids)
            assert session.position == 3
        broken[0] = False
        expected = Session(host_engines(decided(ClockSpec(stage="pre", threshold=0.0, firsts=1))), info())
        np.testing.assert_allclose(session.advance([[6, 7]]), expected.advance([[3, 4, 5, 6, 7]])[:, 3:], atol=1e-6)

    def test_in_a_batch(self) -> None:
        """Of one slot among others."""
        clocks = SlotClocks(decided(ClockSpec(stage="pre", threshold=0.0)), 3, 8)
        slots, fires = np.arange(3), np.ones(3, bool)
        rows = np.array([[0.5], [np.nan], [0.5]], np.float32)
        with pytest.raises(InputError, match="gave NaN in row 4"):
            clocks.see_rows("pre", slots, np.zeros(3, int), fires, np.array([3, 4, 5]), rows)
