"""Choosing a token."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal import InputError, SamplingParams
from foveal.runtime.sampling import Sampler

NONE = np.zeros(0, np.int64)


def logits_of(seed: int, size: int = 50) -> np.ndarray:
    """Random logits."""
    return np.random.default_rng(seed).normal(0, 2, size).astype(np.float32)


def draw(logits: np.ndarray, count: int, **settings: Any) -> list[int]:
    """Tokens drawn one after the other from the same logits."""
    sampler = Sampler(SamplingParams(seed=3, **settings))
    return [sampler.sample(logits, NONE) for _ in range(count)]


params = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, 0.5, 1.0, 2.0]),
        "top_k": st.sampled_from([0, 1, 5, 60]),
        "top_p": st.sampled_from([0.1, 0.9, 1.0]),
        "min_p": st.sampled_from([0.0, 0.05, 1.0]),
        "repetition_penalty": st.sampled_from([1.0, 1.3]),
    }
)


@given(params, st.integers(0, 99), st.integers(0, 99))
def test_the_same_seed_and_logits_give_the_same_tokens(settings: Any, seed: int, data: int) -> None:
    """Whatever the settings."""
    runs = []
    for _ in range(2):
        sampler = Sampler(SamplingParams(seed=seed, **settings))
        runs.append([sampler.sample(logits_of(data + step), np.arange(step)) for step in range(20)])
    assert runs[0] == runs[1]


@given(st.integers(0, 99), st.integers(1, 50), st.sampled_from([0.3, 0.8, 0.95]), st.sampled_from([0.01, 0.2]))
def test_filtered_tokens_are_never_drawn(data: int, top_k: int, top_p: float, min_p: float) -> None:
    """Against the definitions, token by token."""
    logits = logits_of(data)
    probabilities = np.exp(logits.astype(np.float64))
    probabilities /= probabilities.sum()
    order = np.argsort(-logits, kind="stable")
    kept_k = set(order[:top_k])
    before = np.cumsum(probabilities[order]) - probabilities[order]
    kept_p = set(order[before < top_p])
    kept_min = set(np.flatnonzero(probabilities >= min_p * probabilities.max()))
    assert set(draw(logits, 40, top_k=top_k)) <= kept_k
    assert set(draw(logits, 40, top_p=top_p)) <= kept_p
    assert set(draw(logits, 40, min_p=min_p)) <= kept_min


def test_frequencies_are_the_softmax() -> None:
    """With and without a filter that has to sort."""
    logits = np.array([0.0, 2.0, 1.0, -1.0], np.float32)
    expected = np.exp(logits / 0.7) / np.exp(logits / 0.7).sum()
    for settings in ({}, {"min_p": 1e-9}):
        counts = np.bincount(draw(logits, 20_000, temperature=0.7, **settings), minlength=4)
        np.testing.assert_allclose(counts / 20_000, expected, atol=0.012)


def test_greedy_takes_the_first_of_the_largest() -> None:
    """Ties go to the lower id, also under top-k."""
    logits = np.array([1.0, 3.0, 3.0, 3.0], np.float32)
    assert draw(logits, 3, temperature=0) == [1, 1, 1]
    assert set(draw(logits, 50, top_k=2)) == {1, 2}


def test_the_repetition_penalty() -> None:
    """Positive logits are divided, negative ones multiplied, once for each token seen."""
    logits, seen = np.array([2.0, 1.9, -1.0], np.float32), np.array([0, 0, 0])
    sampler = Sampler(SamplingParams(temperature=0, repetition_penalty=1.1))
    assert sampler.sample(logits, NONE) == 0
    assert sampler.sample(logits, seen) == 1
    assert logits[0] == 2.0
    assert Sampler(SamplingParams(temperature=0, repetition_penalty=3)).sample(np.array([-1, -2.5], np.float32), seen[:1]) == 1


@pytest.mark.parametrize("broken", [[np.nan, 1.0], [np.inf, 1.0], [-np.inf, -np.inf]])
def test_broken_logits(broken: list[float]) -> None:
    """No token is better than a random one."""
    with pytest.raises(InputError, match="can't sample: the largest logit is .*, expected a finite number"):
        draw(np.array(broken, np.float32), 1)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"temperature": -1}, "temperature is -1, expected at least 0"),
        ({"top_k": -1}, "top_k is -1, expected at least 0"),
        ({"top_p": 0}, "top_p is 0, expected more than 0 and at most 1"),
        ({"min_p": 1.5}, "min_p is 1.5, expected between 0 and 1"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0, expected more than 0"),
        ({"seed": -5}, "seed is -5, expected at least 0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0, expected at least 1"),
        ({"stop": ("",)}, r"stop is \[''\], expected texts of at least one character"),
    ],
)
def test_settings_out_of_range(settings: Any, reason: str) -> None:
    """Got and expected, at the call."""
    with pytest.raises(InputError, match=reason):
        SamplingParams(**settings)
