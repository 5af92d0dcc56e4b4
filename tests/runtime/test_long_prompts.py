"""What an engine needs for a prompt does not grow with the prompt: it comes in calls of so many tokens, without a change."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from programs import host_engines, hourglass, info, top_down
from specimens import random_ids

from foveal.runtime import host
from foveal.runtime.engines.base import Engine
from foveal.runtime.session import Session

programs = st.one_of(
    st.builds(hourglass, st.integers(2, 5), st.integers(2, 5)),
    st.builds(top_down, st.integers(2, 16)),
).map(host_engines)


@given(engines=programs, most=st.integers(1, 9), length=st.integers(1, 40), last_only=st.booleans(), batch=st.integers(1, 2))
def test_calls_of_any_length_give_the_same_logits(
    engines: Sequence[Engine], most: int, length: int, last_only: bool, batch: int
) -> None:
    """All of them, or the last row's."""
    ids = random_ids(batch, length)
    expected = Session(engines, info(), batch).advance(ids, last_only=last_only)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host, "MOST_TOKENS", most)
        got = Session(engines, info(), batch).advance(ids, last_only=last_only)
    np.testing.assert_array_equal(got, expected)


def test_no_call_of_a_prompt_of_8k_is_longer_than_any() -> None:
    """So neither its rows nor its scores, of each row and each row before, are more than those of a call, in any stage."""
    model = msgspec.structs.replace(info(), context=8192, max_positions=8192)
    session, seen = Session(host_engines(hourglass(4, 2)), model, capacity=8192), {}  # type: Session, dict[str, list[int]]
    session.observer = lambda spec, firings, _: seen.setdefault(spec.name, []).append(firings)
    session.advance(random_ids(1, 8192), last_only=True)
    most = {spec.name: -(-host.MOST_TOKENS // spec.stride) for spec in session.specs}
    assert {name: max(firings) for name, firings in seen.items()} == most
    assert {name: sum(firings) for name, firings in seen.items()} == {s.name: 8192 // s.stride for s in session.specs}
