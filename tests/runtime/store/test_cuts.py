"""State that is cut, taken apart and joined is what a session would have written."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from deciding import meaning as decided_meaning
from deciding import random_program
from hypothesis import given
from hypothesis import strategies as st
from programs import Program, borrowing, forgetful, host_engines, hourglass, info, meaning, paged, programs, resident_engines
from specimens import Zoo, random_ids

from foveal import InputError, Session, Snapshot, load
from foveal.runtime.store.cuts import check_rows, cut, is_divisible, is_recurrent, joined, part

decided = st.randoms().map(random_program)


def session_of(program: Program, batch: int, on_device: bool) -> Session:
    """A fresh one of fakes."""
    return Session(resident_engines(program) if on_device else host_engines(program), info(), batch)


def moment(program: Program, tokens: int, batch: int = 1, on_device: bool = False) -> Snapshot:
    """A copy of a session that has read random ids."""
    session = session_of(program, batch, on_device)
    if tokens:
        session.advance(random_ids(batch, 96)[:, :tokens])
    return session.snapshot()


@given(program=programs, tokens=st.integers(0, 40), fewer=st.integers(0, 40), batch=st.integers(1, 2), on_device=st.booleans())
def test_cut_is_a_rewind(program: Program, tokens: int, fewer: int, batch: int, on_device: bool) -> None:
    """A session that is restored from it goes on as the program means, from any token, at any phase."""
    tokens, fewer = max(tokens, fewer), min(tokens, fewer)
    ids, session = random_ids(batch, 96)[:, :60], session_of(program, batch, on_device)
    session.restore(cut(moment(program, tokens, batch, on_device), program, fewer))
    assert session.tokens.tolist() == ids[:, :fewer].tolist()
    np.testing.assert_allclose(session.advance(ids[:, fewer:]), meaning(program, ids)[:, fewer:], atol=2e-5)


@given(program=decided, tokens=st.integers(0, 40), fewer=st.integers(0, 40))
def test_cut_where_the_data_decides(program: Program, tokens: int, fewer: int) -> None:
    """Likewise; but of a recurrent state, which is of all tokens together, only the whole and nothing."""
    tokens, fewer = max(tokens, fewer), min(tokens, fewer)
    ids, session, whole = random_ids(1, 96)[:, :60], session_of(program, 1, False), moment(program, tokens)
    if is_recurrent(program) and 0 < fewer < tokens:
        with pytest.raises(InputError, match="recurrent state"):
            cut(whole, program, fewer)
        return
    session.restore(cut(whole, program, fewer))
    expected = decided_meaning(program, ids[0])[fewer:]
    np.testing.assert_allclose(session.advance(ids[:, fewer:])[0], expected, atol=2e-5)


@given(program=decided, ends=st.lists(st.integers(1, 19), min_size=1, max_size=5))
def test_parts_joined_where_the_data_decides(program: Program, ends: list[int]) -> None:
    """Each with its own boundaries; not of a recurrent state."""
    stops, ids = np.cumsum(ends).tolist(), random_ids(1, 96)
    assert is_divisible(program) == (not is_recurrent(program))
    if is_recurrent(program):
        return
    whole = moment(program, stops[-1])
    parts = [part(whole.written, program, start, stop) for start, stop in zip([0, *stops[:-1]], stops, strict=True)]
    again = Snapshot(whole.position, whole.reached, 1, "", whole.tokens, joined(parts, program, stops[-1]))
    check_rows(again, program)
    later = part(parts[-1], program, [0, *stops][-2], stops[-1] - 1, begin=[0, *stops][-2])
    assert all((made < stops[-1] - 1).all() for made in later.boundaries)
    session = session_of(program, 1, False)
    session.restore(again)
    if stops[-1] < 90:
        logits = session.advance(ids[:, stops[-1] : 90])[0]
        np.testing.assert_allclose(logits, decided_meaning(program, ids[0, :90])[stops[-1] :], atol=2e-5)


@given(
    program=programs,
    ends=st.one_of(st.just([0]), st.lists(st.integers(1, 19), min_size=1, max_size=5)),
    on_device=st.booleans(),
)
def test_parts_joined_are_the_whole(program: Program, ends: list[int], on_device: bool) -> None:
    """Wherever it is taken apart; only what resetting stages remember is gone, which no restored session reads."""
    stops = np.cumsum(ends).tolist()
    whole, ids = moment(program, stops[-1], on_device=on_device), random_ids(1, 96)
    parts = [part(whole.written, program, start, stop) for start, stop in zip([0, *stops[:-1]], stops, strict=True)]
    again = Snapshot(whole.position, whole.reached, 1, "", whole.tokens, joined(parts, program, stops[-1]))
    check_rows(again, program)
    for spec, caches, expected in zip(program, again.written.caches, whole.written.caches, strict=True):
        if spec.resets is None:
            for cache, one in zip(caches, expected, strict=True):
                fired = spec.firings_within(stops[-1])
                np.testing.assert_array_equal(cache[:, :, :fired], one[:, :, :fired])
    session = session_of(program, 1, on_device)
    session.restore(again)
    if stops[-1] < 96:
        np.testing.assert_allclose(session.advance(ids[:, stops[-1] :]), meaning(program, ids)[:, stops[-1] :], atol=2e-5)


@given(start=st.integers(1, 30), middle=st.integers(0, 20), rest=st.integers(0, 20))
def test_part_of_a_part(start: int, middle: int, rest: int) -> None:
    """As of the whole."""
    program = hourglass(3, 2)
    written = moment(program, start + middle + rest).written
    of_part = part(part(written, program, start, start + middle + rest), program, start, start + middle, begin=start)
    assert_same(of_part.rows, part(written, program, start, start + middle).rows)


def assert_same(got: Sequence[object], expected: Sequence[object]) -> None:
    """Arrays, or None."""
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, other)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["nested", "attention", "top-down"])
def test_a_real_model_goes_on_exactly(name: str, zoo: Zoo) -> None:
    """From every token of a period and a bit."""
    model, ids = load(zoo[name].bundle, threads=1), random_ids(1, 50)
    session = model.session()
    session.advance(ids[:, :40])
    whole = session.snapshot()
    for tokens in (1, 7, 16, 31, 32, 33, 40):
        session.restore(whole)
        session.rewind(40 - tokens)
        expected = session.advance(ids[:, tokens:])
        session.reset()
        session.restore(cut(whole, model.specs, tokens))
        np.testing.assert_array_equal(session.advance(ids[:, tokens:]), expected)


@pytest.mark.parametrize("tokens", [-1, 13])
def test_no_tokens_that_are_not_there(tokens: int) -> None:
    """Refused."""
    with pytest.raises(InputError, match=f"can't cut to {tokens} tokens: the snapshot holds 12"):
        cut(moment(hourglass(2, 2), 12), hourglass(2, 2), tokens)


def test_a_model_that_compacts_is_cut_as_far_as_it_rewinds() -> None:
    """No further; to nothing always."""
    program = paged(2, 4, rewinds=5)
    session = session_of(program, 1, False)
    session.advance(random_ids(1, 20))
    session.rewind(2)
    saved = session.snapshot()
    assert cut(saved, program, 15).reached == 20
    assert cut(saved, program, 0).reached == 0
    with pytest.raises(InputError, match="can't cut to 14 tokens: the model compacts its past, and of the 20 it had seen"):
        cut(saved, program, 14)


@pytest.mark.parametrize(
    ("program", "can"),
    [(hourglass(2, 2), True), (forgetful(2, 2), True), (borrowing(2), True), (paged(2, 4), True), (paged(2, 4, 5), False)],
)
def test_which_state_can_be_taken_apart(program: Program, can: bool) -> None:
    """Not that of models which write over their past."""
    assert is_divisible(program) is can


def test_rows_of_other_stages() -> None:
    """Are told by their number."""
    with pytest.raises(InputError, match="the snapshot's rows are not those of 12 tokens of this model"):
        check_rows(moment(hourglass(2, 2), 12), hourglass(3, 2))
