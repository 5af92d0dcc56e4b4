"""Weights of tokens, running sums by blocks, and logits sorted without their ids."""

from __future__ import annotations

import math
import threading
from fractions import Fraction
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.runtime.weights import falling, highest_of, id_at, index_of, weights_of

some_weights = (
    st.lists(st.sampled_from([0.0, 5e-324, 1e-300, 1e-17, 0.1, 1 / 3, 1.0]), min_size=1, max_size=400)
    .filter(lambda values: 1.0 in values)
    .map(lambda values: np.array(values))
)
"""Of up to seven blocks, the last of any length, most of them with weights that are lost in a sum."""
some_share = st.floats(0, 1, exclude_max=True) | st.sampled_from([0.0, 5e-324, 0.5, 1 - 2.0**-53])
some_logits = st.lists(st.sampled_from([-np.inf, -2.5, -0.0, 0.0, 1.0, 1.5, 7.0]), min_size=1, max_size=300).map(
    lambda values: np.array(values, np.float32)
)


@settings(max_examples=200)
@given(some_weights, some_share, st.sampled_from(["left", "right"]))
def test_an_index_is_where_the_running_sum_gets_to(weights: np.ndarray, share: float, side: Literal["left", "right"]) -> None:
    """By exact sums, up to how float64 rounds them; no share, the largest too, gives a weight of 0 or one beyond the end."""
    index = index_of(weights, share, side)
    ends = np.cumsum([Fraction(weight) for weight in weights])
    reached, slack = Fraction(share) * ends[-1], ends[-1] * Fraction(1e-13)
    assert ends[index] + slack >= reached
    assert (ends[index - 1] if index else 0) - slack <= reached
    assert weights[index] > 0 or (side == "left" and index == 0), "the sum of none reaches a share of 0"


@pytest.mark.parametrize("size", [1, 63, 64, 65, 4096, 5000])
def test_every_index_is_drawn_by_its_weight(size: int) -> None:
    """Between the running sums of whole numbers, which float64 holds as they are; `left` finds those sums themselves."""
    weights = np.random.default_rng(size).integers(0, 5, size).astype(float)
    weights[-1] = 1  # as the likeliest has
    ends = weights.cumsum()
    for index in np.flatnonzero(weights)[:: max(size // 200, 1)]:
        assert index_of(weights, (ends[index] - weights[index] / 2) / ends[-1]) == index
        assert index_of(weights, (ends[index] - 0.25) / ends[-1], "left") == index


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("temperature", [5e-324, 0.3, 1.0, 1e300])
def test_weights_are_a_softmax_but_for_its_sum(dtype: type, temperature: float) -> None:
    """In float64 bit for bit; nothing warns where a logit divided by the temperature overflows."""
    logits = (np.random.default_rng(0).normal(0, 20, 1000)).astype(dtype)
    with np.errstate(over="ignore"):
        expected = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    with np.errstate(all="raise"):
        found = weights_of(logits, temperature)
    np.testing.assert_array_equal(found, expected)
    assert found.max() == 1


def test_each_thread_has_weights_of_its_own() -> None:
    """While the next call of the same thread writes over them."""
    mine, others = weights_of(np.zeros(5, np.float32), 1.0), list[np.ndarray]()
    thread = threading.Thread(target=lambda: others.append(weights_of(np.array([0.0, -math.inf]), 1.0)))
    thread.start()
    thread.join()
    assert mine.tolist() == [1] * 5
    assert others[0].tolist() == [1, 0]
    weights_of(np.array([-math.inf, 0.0]), 1.0)
    assert mine.tolist() == [0, 1, 1, 1, 1]


@given(some_logits, st.integers(1, 400))
def test_sorted_logits_find_their_ids(logits: np.ndarray, count: int) -> None:
    """Falling, equal ones by the lower id, as a stable sort of ids has them."""
    order = np.argsort(-logits, kind="stable")[:count]
    found = falling(logits, count)
    assert [id_at(logits, found, place) for place in range(len(found))] == order.tolist()


@given(some_logits, st.booleans())
def test_the_highest_logit(logits: np.ndarray, is_broken: bool) -> None:
    """NaN if any is, wherever it stands."""
    if is_broken:
        logits[len(logits) // 2] = np.nan
    np.testing.assert_equal(highest_of(logits), float(logits.max()))
