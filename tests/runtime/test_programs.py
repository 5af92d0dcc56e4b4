"""Every kind of stage, on both interpreters: any way through a sequence gives what the program means.

`tests/programs.py` has the programs, fakes of their stages, and what they mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
from exactness import Walk, paths
from hypothesis import given
from hypothesis import strategies as st
from programs import (
    DIM,
    LIMITS,
    VOCABULARY,
    Program,
    ahead,
    borrowing,
    forgetful,
    host_engines,
    hourglass,
    info,
    meaning,
    paged,
    programs,
    resident_engines,
    top_down,
)
from specimens import random_ids

from foveal import CapacityError, InputError, SamplingParams
from foveal.contract import late_stages
from foveal.runtime.engines.fake import FakeEngine, FakeStage
from foveal.runtime.rows import Array, Block
from foveal.runtime.session import Session

Open = Callable[..., Session]


def on_host(program: Program, batch: int = 1, overlap: bool = False) -> Session:
    """A session of fakes in the host's memory."""
    return Session(host_engines(program), info(), batch, overlap=overlap)


def on_device(program: Program, batch: int = 1, in_place: bool = True, limited: bool = True, overlap: bool = False) -> Session:
    """A session of fakes in a device's memory."""
    return Session(resident_engines(program, in_place, LIMITS if limited else None, overlap), info(), batch)


def fired_by(session: Session, stage: str) -> list[int]:
    """The firings of a stage, in the order in which its engine ran them."""
    engines = session.engines if isinstance(session.engines, Sequence) else session.engines.engines
    (engine,) = [engine for engine in engines if engine.spec.name == stage]
    return engine.fired


both = pytest.mark.parametrize("open_session", [on_host, on_device])


def assert_close(got: Array, expected: Array) -> None:
    """Logits are at most 5, and each is the sine of all that came before."""
    np.testing.assert_allclose(got, expected, atol=2e-5)


def advance(session: Session, ids: Array, chunks: Sequence[int], last_only: bool = False) -> Array:
    """Logits of the sequence, chunk by chunk."""
    ends = np.cumsum(chunks)
    parts = [ids[:, start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    return np.concatenate([session.advance(part, last_only) for part in parts], 1)


class TestAnyProgram:
    """Whatever its stages are."""

    @given(programs, st.integers(1, 2), st.booleans(), paths)
    def test_goes_anywhere_on_the_host(self, program: Program, batch: int, overlap: bool, path: list[tuple[str, int]]) -> None:
        """On, back, to a copy of an earlier moment, and apart."""
        walk = Walk(on_host(program, batch, overlap), partial(meaning, program))
        for step in path:
            walk.take(*step)

    @given(programs, st.integers(1, 2), st.booleans(), st.booleans(), st.booleans(), paths)
    def test_goes_anywhere_on_a_device(
        self, program: Program, batch: int, in_place: bool, limited: bool, overlap: bool, path: list[tuple[str, int]]
    ) -> None:
        """Caches in place or taking turns; in calls of seven tokens or of many; late stages beside the others or not."""
        walk = Walk(on_device(program, batch, in_place, limited, overlap), partial(meaning, program))
        for step in path:
            walk.take(*step)

    @both
    @given(program=programs, chunks=st.lists(st.integers(1, 24), min_size=1, max_size=4), last_only=st.booleans())
    def test_may_want_the_last_row_only(self, open_session: Open, program: Program, chunks: list[int], last_only: bool) -> None:
        """After any chunks, and again after a reset."""
        ids = random_ids(2, sum(chunks))
        session, expected = open_session(program, 2), meaning(program, ids)
        if last_only:
            expected = expected[:, np.cumsum(chunks) - 1]
        for _ in range(2):
            assert_close(advance(session, ids, chunks, last_only), expected)
            session.reset()

    @both
    @given(program=programs, here=st.integers(0, 40), there=st.integers(1, 40))
    def test_may_be_restored_in_another_session(self, open_session: Open, program: Program, here: int, there: int) -> None:
        """One that has been elsewhere; at the very beginning too."""
        ids = random_ids(1, 60, seed=2)
        session, other = open_session(program), open_session(program)
        if here:
            session.advance(ids[:, :here])
        other.advance(random_ids(1, there, seed=3))
        other.restore(session.snapshot())
        assert_close(other.advance(ids[:, here:]), meaning(program, ids)[:, here:])


class TestStagesThatFireAhead:
    """Their first firing is before there is any token, the others with the last token before their group."""

    @both
    @given(k=st.integers(2, 5), inner=st.integers(2, 3), chunks=st.lists(st.integers(1, 24), min_size=1, max_size=4))
    def test_fire_once_each(self, open_session: Open, k: int, inner: int, chunks: list[int]) -> None:
        """In any chunks: at the beginning, and then once for every group that is complete."""
        session, tokens = open_session(ahead(k, inner)), sum(chunks)
        advance(session, random_ids(1, tokens), chunks)
        assert fired_by(session, "k") == list(range(1 + tokens // k))
        assert fired_by(session, "deep") == list(range(1 + tokens // (k * inner)))
        assert session.fires == {"1.pre": tokens, "deep": 1 + tokens // (k * inner), "k": 1 + tokens // k, "1": tokens}

    @both
    def test_have_their_rows_before_the_token(self, open_session: Open) -> None:
        """Of the group that comes next: after three tokens, of tokens 0 to 5 with groups of three."""
        session = open_session(ahead(3, 2))
        session.advance(random_ids(1, 3))
        assert session.output_rows("k").shape == (6, 1, 5)
        assert np.abs(session.output_rows("k")).min() > 0

    @both
    def test_begin_again_after_a_reset(self, open_session: Open) -> None:
        """Or a rewind to the beginning, and only then: what they gave before is what they would give now."""
        session = open_session(ahead(3, 2))
        session.advance(random_ids(1, 4))
        assert fired_by(session, "k") == [0, 1]
        session.rewind(1)
        session.advance(random_ids(1, 1))
        assert fired_by(session, "k") == [0, 1]
        session.rewind(4)
        session.advance(random_ids(1, 1))
        session.reset()
        session.advance(random_ids(1, 1))
        assert fired_by(session, "k") == [0, 1, 0, 0]

    def test_are_waited_for_by_nobody(self) -> None:
        """In the step that makes their rows; not so those that fire when a group opens, and whose row its first token reads."""
        assert late_stages(ahead(3, 2)) == {"k"}  # the deep stage's row is read by the other's, in the same step
        assert late_stages(top_down(4)) == {"k"}
        assert late_stages(hourglass(3, 2)) == frozenset()
        assert late_stages(borrowing(3)) == frozenset()

    def test_run_beside_the_others_or_fail_like_them(self) -> None:
        """An error in the second thread is raised in the first, by the step that caused it, and the session goes on."""

        class Failing(FakeEngine):
            fails = False

            def attach(self, caches: Sequence[Array], batch: int, firings: int) -> FakeStage:
                return FailingStage(self, caches)

        class FailingStage(FakeStage):
            def run(self, first: int, firings: int, inputs: Sequence[Block], output: Block, logit_rows: Block | None) -> None:
                if self.engine.fails:
                    raise MemoryError("no more")
                super().run(first, firings, inputs, output, logit_rows)

        program, ids = ahead(3, 2), random_ids(1, 9)
        engines = host_engines(program)
        engines[2] = failing = Failing(program[2], 5)
        with Session(engines, info(), overlap=True) as session:
            session.advance(ids[:, :2])
            failing.fails = True
            with pytest.raises(CapacityError, match=r"finds no room \(no more\); append fewer"):
                session.advance(ids[:, 2:3])
            failing.fails = False
            assert_close(advance(session, ids[:, 2:], [1] * 7), meaning(program, ids)[:, 2:])


class TestStagesThatReset:
    """They remember nothing across multiples of a period; their caches are a period long."""

    @both
    def test_have_short_caches(self, open_session: Open) -> None:
        """However long the session is."""
        session = open_session(forgetful(4, 3), 2)
        session.advance(random_ids(2, 30))
        written = session.snapshot().written
        assert [[cache.shape[2] for cache in caches] for caches in written.caches] == [[30], [3], [3], [4]]

    @both
    @given(k=st.integers(2, 6), position=st.integers(1, 40), data=st.data())
    def test_run_again_from_their_last_reset_after_a_rewind(
        self, open_session: Open, k: int, position: int, data: st.DataObject
    ) -> None:
        """At any phase, and no further back; where they go on from where they were, nothing is run again."""
        program = forgetful(k, 2)
        session, ids = open_session(program), random_ids(1, 70)
        session.advance(ids[:, :position])
        back = data.draw(st.integers(0, position))
        session.rewind(back)
        start, before = position - back, len(fired_by(session, "1"))
        new = np.concatenate([ids[:, :start], random_ids(1, 70, seed=1)], 1)[:, : start + data.draw(st.integers(1, 20))]
        found = session.advance(new[:, start:])
        assert_close(found, meaning(program, new)[:, start:])
        again = start if back == 0 or start % k == 0 else start - start % k
        assert fired_by(session, "1")[before:] == list(range(again, new.shape[1]))

    @both
    @given(k=st.integers(2, 5), path=st.lists(st.tuples(st.integers(0, 12), st.integers(1, 12)), min_size=3, max_size=6))
    def test_leave_out_periods_that_nobody_wants(self, open_session: Open, k: int, path: list[tuple[int, int]]) -> None:
        """Of the stage that gives logits, when the last row is wanted only. Rows of other stages have readers."""
        program = forgetful(k, 2)
        session, seen = open_session(program), np.zeros((1, 0), np.int64)
        for back, on in path:
            session.rewind(min(back, session.position))
            start, before = session.position, {name: len(fired_by(session, name)) for name in ("1.pre", "1")}
            seen = np.concatenate([seen[:, :start], random_ids(1, on, seed=start + on + back)], 1)
            found = session.advance(seen[:, start:], last_only=True)
            assert_close(found, meaning(program, seen)[:, -1:])
            last = seen.shape[1] - 1
            fired = fired_by(session, "1")[before["1"] :]
            assert set(range(max(start, last - last % k), last + 1)) <= set(fired) <= set(range(last - last % k, last + 1))
            assert fired_by(session, "1.pre")[before["1.pre"] :] == list(range(start, last + 1))

    @both
    def test_that_give_rows_are_run_whole(self, open_session: Open) -> None:
        """At the end of a program too, where a cut has left no stage that gives logits."""
        program = forgetful(3, 2)[:3]
        session = open_session(program)
        session.advance(random_ids(1, 20), last_only=True)
        assert fired_by(session, "k") == list(range(7))

    @both
    def test_leave_out_what_was_never_run_and_know_it_later(self, open_session: Open) -> None:
        """A rewind into a period that was left out, after one of another text that ended at the same place."""
        program, ids = forgetful(4, 2), random_ids(1, 30)
        session = open_session(program)
        session.advance(random_ids(1, 3, seed=5))
        session.rewind(3)
        session.advance(ids[:, :9], last_only=True)
        session.rewind(6)
        assert_close(session.advance(ids[:, 3:]), meaning(program, ids)[:, 3:])

    def test_of_longer_periods_than_a_prefill_run_again_in_several_calls(self) -> None:
        """Engines take seven rows at once, and 17 are to be run again."""
        program = forgetful(6, 2, periods=3)
        session, ids = on_device(program), random_ids(1, 40)
        session.advance(ids[:, :40])
        session.rewind(5)
        assert_close(session.advance(ids[:, 35:]), meaning(program, ids)[:, 35:])
        (engine,) = [each for each in session.engines.engines if each.spec.name == "1"]
        assert engine.calls[-5:] == [range(18, 25), range(25, 32), range(32, 35), range(35, 36), range(36, 40)]

    @given(k=st.integers(2, 6), position=st.integers(1, 20), back=st.integers(0, 12), in_place=st.booleans())
    def test_run_again_before_tokens_are_drawn(self, k: int, position: int, back: int, in_place: bool) -> None:
        """On a device, where no host looks on: stages that fire at once, and those that fire in the middle of what is drawn."""
        program, likeliest = forgetful(k, 3, reads_rows=True), SamplingParams(temperature=0)
        session, ids = on_device(program, in_place=in_place), random_ids(1, position)
        assert session.draws
        session.advance(ids)
        session.draw([[7]], 14, likeliest, np.zeros((14, 1)))
        session.rewind(min(14 + back, session.position))
        seen = session.tokens.copy()
        drawn = session.draw([[3]], 16, likeliest, np.zeros((16, 1)))
        for token in (3, *drawn[0, :-1]):
            seen = np.append(seen, [[token]], 1)
        np.testing.assert_array_equal(session.tokens, seen)
        np.testing.assert_array_equal(drawn[0], meaning(program, seen)[0, -16:].argmax(-1))
        seen = np.append(seen, [[5]], 1)
        assert_close(session.advance([[5]]), meaning(program, seen)[:, -1:])
        session.rewind(3)
        assert_close(session.advance(seen[:, -3:]), meaning(program, seen)[:, -3:])

    @both
    def test_never_cross_a_reset_in_a_call(self, open_session: Open, monkeypatch: pytest.MonkeyPatch) -> None:
        """The graph counts modulo the period."""
        calls: list[tuple[str, range]] = []
        run = FakeStage.run

        def spy(self: FakeStage, first: int, firings: int, *rest: object) -> None:
            calls.append((self.engine.spec.name, range(first, first + firings)))
            run(self, first, firings, *rest)

        monkeypatch.setattr(FakeStage, "run", spy)
        program = forgetful(4, 3, periods=2)
        session = open_session(program)
        advance(session, random_ids(1, 62), [5, 1, 30, 26])
        engines = [] if isinstance(session.engines, Sequence) else session.engines.engines
        calls += [(engine.spec.name, call) for engine in engines for call in engine.calls]
        for name, call in calls:
            period = {"1": 8, "k": 3}.get(name)
            assert period is None or call.start // period == (call.stop - 1) // period
        assert {name for name, _ in calls} == {spec.name for spec in program}


class TestPages:
    """No call of any engine crosses a multiple of so many tokens."""

    @given(k=st.integers(2, 5), page=st.integers(1, 9), chunks=st.lists(st.integers(1, 30), min_size=1, max_size=3))
    def test_are_not_crossed(self, k: int, page: int, chunks: list[int]) -> None:
        """On a device nor on the host; and all that is wanted comes back, in order."""
        program, ids = paged(k, page), random_ids(1, sum(chunks))
        for session in (on_device(program), on_host(program)):
            seen: list[tuple[int, int]] = []
            session.observer = lambda spec, firings, _, seen=seen: seen.append((spec.stride, firings))
            assert_close(advance(session, ids, chunks), meaning(program, ids))
            fine, position = [firings for stride, firings in seen if stride == 1], 0
            for tokens in fine:
                assert position // page == (position + tokens - 1) // page
                position += tokens
            assert position == sum(chunks)

    def test_of_one_token_are_calls_of_one_token(self) -> None:
        """The smallest there are."""
        session, seen = on_host(paged(3, 1)), []
        session.observer = lambda spec, firings, _: seen.append(firings)
        session.advance(random_ids(1, 12))
        assert seen == [1] * 16


class TestRewinds:
    """Only so far where a stage writes over its past."""

    @both
    def test_have_an_end(self, open_session: Open) -> None:
        """Counted from the furthest place the session has been; the message names both and the ways out."""
        session, ids = open_session(paged(3, 8, rewinds=4)), random_ids(1, 20)
        session.advance(ids)
        session.rewind(3)
        session.rewind(1)
        with pytest.raises(
            InputError,
            match="can't rewind to 15 tokens: the model compacts its past, and of the 20 it has seen it can take back 4; "
            "restore a snapshot, or reset the session and append the tokens again",
        ):
            session.rewind(1)
        assert session.position == 16
        assert_close(session.advance(ids[:, 16:]), meaning(paged(3, 8), ids)[:, 16:])

    @both
    def test_to_the_beginning_are_always_possible(self, open_session: Open) -> None:
        """Then nothing is there that could have been written over: by a reset, or a rewind of everything."""
        session, ids = open_session(paged(3, 8, rewinds=4)), random_ids(1, 20)
        for start_again in (session.reset, lambda: session.rewind(20)):
            session.advance(ids)
            start_again()
            session.advance(ids[:, :5])
            session.rewind(4)
            assert_close(session.advance(ids[:, 1:20]), meaning(paged(3, 8), ids)[:, 1:])
            session.reset()

    @both
    def test_of_a_copy_end_where_those_of_the_original_do(self, open_session: Open) -> None:
        """A snapshot of a rewound session knows how far that had been, and a fork too; one from before is as good as it was."""
        session = open_session(paged(3, 8, rewinds=4))
        session.advance(random_ids(1, 10))
        early = session.snapshot()
        session.advance(random_ids(1, 10))
        session.rewind(3)
        late, fork = session.snapshot(), session.fork()
        for copy in (fork, session):
            with pytest.raises(InputError, match="can't rewind to 15 tokens: .* of the 20 it has seen"):
                copy.rewind(2)
            copy.restore(early)
            copy.rewind(4)
            copy.restore(late)
            copy.rewind(1)

    @both
    @pytest.mark.parametrize("k", [2, 5])
    def test_without_one_go_anywhere(self, open_session: Open, k: int) -> None:
        """As in most programs."""
        session = open_session(paged(k, 8))
        session.advance(random_ids(1, 20))
        session.rewind(19)
        assert session.position == 1


class TestBorrowedCaches:
    """Caches of one stage that another reads."""

    @pytest.mark.parametrize("in_place", [True, False])
    def test_are_those_of_now(self, in_place: bool) -> None:
        """Where they take turns between two buffers, the newer; across forks and batches, one's own."""
        program, ids = borrowing(3), random_ids(2, 40)
        session = on_device(program, 2, in_place)
        session.advance(ids[:, :20])
        fork = session.fork()
        other = random_ids(2, 40, seed=4)
        crossed = np.concatenate([ids[:, :20], other[:, 20:]], 1)
        for start in range(20, 40):
            found = session.advance(ids[:, start : start + 1]), fork.advance(other[:, start : start + 1])
            for logits, whole in zip(found, (ids, crossed), strict=True):
                assert_close(logits, meaning(program, whole)[:, start : start + 1])

    def test_are_bound_by_address(self) -> None:
        """The lender's own array, so that nothing is copied."""
        session = on_host(borrowing(3))
        lender, borrower = (step.bound for step in session.decoder.steps)
        assert borrower.lent[0] is lender.caches[0]
        assert session.copied_bytes == 0


def test_the_meaning_of_a_program_is_what_its_stages_compute() -> None:
    """By hand, for groups of two tokens: logits of the first token, of which `k` and `deep` know nothing."""
    program, ids = forgetful(2, 2), random_ids(1, 8)
    whole = meaning(program, ids)
    assert whole.shape == (1, 8, VOCABULARY)
    np.testing.assert_array_equal(whole[:, :3], meaning(program, ids[:, :3]))
    embedded = np.sin(2 * (ids[0, 0] + 1.0) * np.cos(1))  # a running sum of one mix, and the mix
    deep = np.sin(2 * sum(np.cos(place + 1) for place in range(4)))  # of four tokens 0
    coarse = np.sin(2 * np.cos(1) * deep)  # of two rows that are not there, and the first of two rows of `deep`
    fine = np.sin(2 * np.cos(1) * (embedded + coarse))
    expected = DIM * fine * np.arange(1, VOCABULARY + 1) / VOCABULARY
    np.testing.assert_allclose(whole[0, 0], expected, atol=1e-5)
    np.testing.assert_allclose(on_host(program).advance(ids[:, :1])[0, 0], expected, atol=1e-5)
