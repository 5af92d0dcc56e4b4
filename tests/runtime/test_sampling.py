"""Choosing a token."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling_reference import is_drawn_right, shares_of

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
    for more in ({}, {"min_p": 1e-9}):
        counts = np.bincount(draw(logits, 20_000, temperature=0.7, **more), minlength=4)
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
        ({"temperature": -1}, "temperature is -1.0, expected at least 0"),
        ({"top_k": -1}, "top_k is -1, expected at least 0"),
        ({"top_p": 0}, "top_p is 0.0, expected more than 0 and at most 1"),
        ({"min_p": 1.5}, "min_p is 1.5, expected between 0 and 1"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0.0, expected more than 0"),
        ({"seed": -5}, "seed is -5, expected at least 0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0, expected at least 1"),
        ({"stop": ("",)}, r"stop is \[''\], expected texts of at least one character"),
    ],
)
def test_settings_out_of_range(settings: Any, reason: str) -> None:
    """Got and expected, at the call."""
    with pytest.raises(InputError, match=reason):
        SamplingParams(**settings)


@pytest.mark.parametrize("name", ["temperature", "top_p", "min_p", "repetition_penalty"])
@pytest.mark.parametrize(
    "value", [np.nan, np.inf, -np.inf, np.float32(-1), True, "1", None, 1j, [0.5], np.array([0.5]), 10**400]
)
def test_numbers_that_are_none(name: str, value: Any) -> None:
    """NaN, infinities, truth values, texts and lists: one line that names the setting."""
    with pytest.raises(InputError, match=f"^{name} is .*, expected .*$"):
        SamplingParams(**{name: value})


@pytest.mark.parametrize("name", ["top_k", "max_new_tokens", "seed"])
@pytest.mark.parametrize("value", [5.0, np.float32(5), True, "5", [5], np.nan, -1, np.int8(-1)])
def test_whole_numbers_that_are_none(name: str, value: Any) -> None:
    """A `top_k` of 5.0 is a mistake that is said, not one that fails at the first token."""
    with pytest.raises(InputError, match=f"^{name} is .*, expected .*$"):
        SamplingParams(**{name: value})


def test_one_stop_text_is_one_text() -> None:
    """Not its characters; a list is as good as a tuple, and whatever is no text is named."""
    assert SamplingParams(stop="abc") == SamplingParams(stop=["abc"]) == SamplingParams(stop=("abc",))  # type: ignore[arg-type]
    for wrong in (None, 5, b"abc", ["a", 5]):
        with pytest.raises(InputError, match="^stop is .*, expected a text, or a sequence of texts$"):
            SamplingParams(stop=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("penalty", [1e-308, 1e308])
def test_penalties_beyond_all_use(penalty: float) -> None:
    """Where a logit would overflow; what is allowed never does."""
    with pytest.raises(InputError, match="repetition_penalty is 1e[+-]308, expected from 1e-100 to 1e100"):
        SamplingParams(repetition_penalty=penalty)


def test_numpys_numbers_become_pythons() -> None:
    """So that settings print and compare the same, wherever they came from."""
    params = SamplingParams(temperature=np.float64(0.5), top_k=np.int64(3), top_p=np.float64(1), seed=np.uint8(7))
    assert params == SamplingParams(temperature=0.5, top_k=3, seed=7)
    assert {type(params.temperature), type(params.top_p)} == {float}
    assert {type(params.top_k), type(params.seed)} == {int}


def stub(uniform: float) -> Any:
    """A source of one random number."""
    return type("Stub", (), {"random": staticmethod(lambda: uniform)})


LARGEST = float(np.finfo(np.float32).max)
any_logit = st.one_of(
    st.floats(-30, 30, width=32),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, 1.0, -1.0, -np.inf, LARGEST, -LARGEST, 1e-45, -1e-45]),
)
any_logits = st.lists(any_logit, min_size=1, max_size=12).filter(lambda values: max(values) > -np.inf)
any_uniform = st.floats(0, 1, exclude_max=True) | st.sampled_from([0.0, 5e-324, 0.5, 1 - 2.0**-25, 1 - 2.0**-53])
any_settings = st.fixed_dictionaries(
    {
        "temperature": st.floats(0, allow_infinity=False)
        | st.sampled_from([5e-324, 1e-308, 1e-45, 1e-38, 0.7, 1.0, 1e38, 1e308]),
        "top_k": st.integers(0, 14) | st.just(10**30),
        "top_p": st.floats(0, 1, exclude_min=True) | st.sampled_from([5e-324, 1e-46, 0.5, 1 - 2.0**-53, 1.0]),
        "min_p": st.floats(0, 1) | st.sampled_from([5e-324, 1e-46, 0.3, 1.0]),
        "repetition_penalty": st.floats(1e-100, 1e100) | st.sampled_from([1e-100, 1e-45, 1e-38, 0.5, 1.0, 1.3, 1e38, 1e100]),
    }
)


@settings(max_examples=300)
@given(any_settings, any_logits, any_uniform, st.lists(st.integers(0, 11), max_size=6))
def test_every_allowed_setting_draws_by_its_definition(
    chosen: Any, values: list[float], uniform: float, seen: list[int]
) -> None:
    """To the ends of the allowed ranges, against exact fractions: never a token that can't be, never one too often."""
    params, logits = SamplingParams(**chosen, seed=0), np.array(values, np.float32)
    seen = [token for token in seen if token < len(logits)]
    sampler = Sampler(params)
    sampler._rng = stub(uniform)
    token = sampler.sample(logits, np.array(seen, np.int64))
    # at the border of what top-p keeps, float64 may round to either side
    near = [params.top_p, min(1.0, params.top_p * (1 + 1e-12)), params.top_p * (1 - 1e-12) or params.top_p]
    references = [shares_of(logits, replace(params, top_p=top_p), seen) for top_p in near]
    if params.is_greedy:
        assert token == references[0][0][0]
    else:
        assert any(is_drawn_right(token, uniform, *reference, 1e-12) for reference in references)


@pytest.mark.parametrize(
    "chosen", [{"temperature": 1e-308}, {"temperature": 5e-324}, {"top_p": 1e-46}, {"top_p": 5e-324}, {"min_p": 1.0}], ids=str
)
def test_the_limits_are_greedy(chosen: Any) -> None:
    """A temperature or a top-p that goes to 0 leaves the likeliest token."""
    assert set(draw(logits_of(1), 50, **chosen)) == {int(logits_of(1).argmax())}


@pytest.mark.parametrize(("penalty", "expected"), [(1e-45, 0), (1e-100, 0), (1e45, 1), (1e100, 1)])
def test_extreme_penalties(penalty: float, expected: int) -> None:
    """A token seen is all that is drawn, or never."""
    logits, seen = np.array([1.0, 0.5, -1.0], np.float32), np.array([0])
    sampler = Sampler(SamplingParams(repetition_penalty=penalty, top_k=2, temperature=0.01, seed=0))
    assert {sampler.sample(logits, seen) for _ in range(20)} == {expected}


@pytest.mark.parametrize("logits", [[[1.0, 2.0]], [], [[1.0], [1.0, 2.0]], ["a"], [None], [True]])
def test_logits_of_another_shape(logits: Any) -> None:
    """One sequence and one token at a time."""
    with pytest.raises(InputError, match="can't sample: .* expected"):
        Sampler(SamplingParams(temperature=0)).sample(logits, NONE)


@pytest.mark.parametrize("seen", [[-1], [3], [0.5], [True]])
def test_seen_ids_outside_the_vocabulary(seen: Any) -> None:
    """None is counted from the end; no ids at all are fine, of any type."""
    sampler = Sampler(SamplingParams(repetition_penalty=2.0))
    with pytest.raises(InputError, match="seen ids are .*, expected integers below 3"):
        sampler.sample(np.zeros(3, np.float32), np.array(seen))
    assert sampler.sample(np.array([0, 1000, 0], np.float32), np.zeros(0)) == 1  # type: ignore[arg-type]


some_shift = st.integers(-2560, 2560).map(lambda count: count / 64)
"""Of which float64 holds sums, multiples and halves as they are, so that no tie is broken by rounding."""
changes = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, 0.7, 1.0]),
        "top_k": st.sampled_from([0, 3]),
        "repetition_penalty": st.sampled_from([0.5, 1.0, 2.0]),
        "frequency_penalty": some_shift,
        "presence_penalty": some_shift,
        "logit_bias": st.dictionaries(st.integers(0, 4), some_shift | st.just(-np.inf), max_size=4),
        "min_tokens": st.integers(0, 4),
    }
)
few_logits = st.lists(some_shift, min_size=5, max_size=5)


five_uniforms = st.lists(any_uniform, min_size=5, max_size=5)


@settings(max_examples=60)
@given(changes, few_logits, five_uniforms, st.lists(st.integers(0, 4), max_size=3), st.data())
def test_what_changes_logits_does_so_by_its_definition(
    chosen: Any, values: list[float], uniforms: list[float], prompt: list[int], data: st.DataObject
) -> None:
    """Token after token: bias, repetition, frequency and presence in this order, then what may not come."""
    ends = data.draw(st.sets(st.integers(0, 4), max_size=2))
    params, logits = SamplingParams(**chosen, seed=0), np.array(values, np.float32)
    sampler, drawn = Sampler(params, ends), list[int]()
    for place, uniform in enumerate(uniforms):
        allowed = data.draw(st.none() | st.lists(st.booleans(), min_size=5, max_size=5))
        forbidden = {i for i in range(5) if allowed is not None and not allowed[i]}
        forbidden |= ends if place < params.min_tokens else set()
        seen = np.array([*prompt, *drawn], np.int64)
        ids, shares = shares_of(logits, params, seen.tolist(), drawn, forbidden)
        mask = None if allowed is None else np.array(allowed)
        sampler._rng = stub(uniform)
        if not ids:
            with pytest.raises(InputError, match="together allow no token; loosen one of them$"):
                sampler.sample(logits, seen, mask)
            return
        token = sampler.sample(logits, seen, mask)
        if params.is_greedy:
            best = shares_of(logits, replace(params, temperature=0), seen.tolist(), drawn, forbidden)[0][0]
            assert token == best
        else:
            assert is_drawn_right(token, uniform, ids, shares, 1e-9)
        drawn.append(token)


def test_the_penalties_of_openai_are_those_of_torch() -> None:
    """`logits - counts * frequency - (counts > 0) * presence`, of the tokens drawn and not of the prompt's."""
    logits, prompt = torch.from_numpy(logits_of(5)), np.array([1, 2, 3])
    params = SamplingParams(temperature=0, frequency_penalty=0.7, presence_penalty=-0.3)
    sampler, counts = Sampler(params), torch.zeros(50)
    for _ in range(60):
        expected = int((logits - counts * 0.7 - (counts > 0) * -0.3).argmax())
        assert sampler.sample(logits.numpy(), prompt) == expected
        counts[expected] += 1
    assert counts.max() > 1


def test_a_bias_adds_to_the_logits() -> None:
    """By id; minus infinity forbids a token; what it was called with is not changed."""
    logits = np.array([2.0, 1.0, 0.0], np.float32)
    assert set(draw(logits, 20, temperature=0, logit_bias={1: 1.5})) == {1}
    assert set(draw(logits, 20, logit_bias={0: -math.inf, 1: -1e30})) == {2}
    assert logits.tolist() == [2.0, 1.0, 0.0]
    given = {1: 1.5}
    params = SamplingParams(logit_bias=given)
    given[1] = 7
    assert dict(params.logit_bias) == {1: 1.5}
    with pytest.raises(TypeError):
        params.logit_bias[1] = 7  # type: ignore[index]


def test_a_hook_comes_first_and_has_a_copy() -> None:
    """It sees the ids so far and the model's own logits; bias and penalties work on what it gives."""
    told: list[tuple[list[int], list[float]]] = []

    def hook(ids: np.ndarray, logits: np.ndarray) -> list[int]:
        told.append((ids.tolist(), logits.tolist()))
        logits[:] = np.nan
        return [0, 0, 1]

    logits = np.array([3.0, 2.0, 1.0], np.float32)
    params = SamplingParams(temperature=0, logits_hook=hook, logit_bias={1: 5}, presence_penalty=10, logprobs=1, min_tokens=1)
    sampler = Sampler(params, end_ids=[0])
    assert [sampler.sample(logits, np.array([7, 8])) for _ in range(3)] == [1, 2, 0]
    assert told == [([7, 8], [3.0, 2.0, 1.0])] * 3
    assert [one.top[0][0] for one in sampler.logprobs] == [0, 0, 0], "log probabilities are the model's own"


def raising(ids: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """A hook with a mistake."""
    raise KeyError("tone")


@pytest.mark.parametrize(
    ("hook", "reason"),
    [
        (raising, "the logits_hook raised KeyError: 'tone'"),
        (lambda ids: ids, "the logits_hook raised TypeError"),
        (lambda ids, logits: None, r"the logits_hook gave object of shape \[\], expected floats \[3\]"),
        (lambda ids, logits: logits[:2], r"the logits_hook gave float32 of shape \[2\], expected floats \[3\]"),
        (lambda ids, logits: logits[None], r"gave float32 of shape \[1, 3\], expected floats \[3\]"),
        (lambda ids, logits: logits > 0, r"gave bool of shape \[3\], expected floats"),
        (lambda ids, logits: [[1], [1, 2]], "the logits_hook raised ValueError"),
        (lambda ids, logits: logits * np.nan, "the logits_hook gave nan, expected finite numbers"),
        (lambda ids, logits: np.array([0, np.inf, 0]), "the logits_hook gave inf, expected finite numbers"),
        (lambda ids, logits: logits - np.inf, "together allow no token; loosen one of them"),
    ],
)
def test_hooks_that_go_wrong(hook: Any, reason: str) -> None:
    """One line says what came; the error of the hook itself is its cause."""
    with pytest.raises(InputError, match=reason) as caught:
        draw(np.ones(3, np.float32), 1, logits_hook=hook)
    assert hook is not raising or isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(
    ("chosen", "reason"),
    [
        ({"logit_bias": {3: 1}}, "logit_bias has id 3, expected ids below 3"),
        (
            {"logit_bias": {0: -math.inf, 1: -math.inf, 2: -math.inf}},
            "can't sample: the bias, the hook and min_tokens together",
        ),
        ({"min_tokens": 1}, r"the end tokens are \[5\], expected ids below 3"),
    ],
)
def test_what_a_sampler_finds_out_late(chosen: Any, reason: str) -> None:
    """When it knows how many tokens there are."""
    with pytest.raises(InputError, match=reason):
        Sampler(SamplingParams(**chosen), end_ids=[5]).sample(np.ones(3, np.float32), NONE)


NUMBERS = [np.nan, np.inf, -np.inf, True, "1", None, 1j, [0.5], 10**400]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("frequency_penalty", "presence_penalty") for value in [*NUMBERS, 2e30, -2e30]),
        *(("max_seconds", value) for value in NUMBERS if value is not None and value != np.inf),
        *(("max_seconds", value) for value in (0, -1.0)),
        *((name, value) for name in ("logprobs", "prompt_logprobs") for value in (-1, 1.0, True, "1", [1], np.nan)),
        *(("min_tokens", value) for value in (-1, 1.0, True, None, 129)),
        *(("logit_bias", value) for value in (None, 5, [1], {1}, {True: 1}, {"1": 1}, {1.0: 1}, {-1: 1}, {1: "1"})),
        *(("logit_bias", {1: value}) for value in (np.nan, np.inf, True, None, 2e30, 10**400)),
        *(("logits_hook", value) for value in (1, "x", [])),
        *(("constraint", value) for value in (1, "x", lambda: None)),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_every_wrong_value_is_said_with_its_setting(name: str, value: Any) -> None:
    """NaN, truth values, texts, what is out of range or no function: one line that names the setting."""
    with pytest.raises(InputError, match=f"^(an id of )?{name}( of 1)? is .*, expected .*$"):
        SamplingParams(**{name: value})


def test_no_more_tokens_can_be_asked_for_than_there_may_be() -> None:
    """`min_tokens` beyond `max_new_tokens`."""
    with pytest.raises(InputError, match="min_tokens is 6, expected at least 0 and at most max_new_tokens, 5"):
        SamplingParams(min_tokens=6, max_new_tokens=5)
    assert SamplingParams(min_tokens=5, max_new_tokens=5).min_tokens == 5


@pytest.mark.parametrize("name", sorted({"temperature", "top_k", "seed", "max_seconds", "logprobs", "stop", "logits_hook"}))
@pytest.mark.parametrize("value", [pytest.param(-(10**5000), id="digits"), np.array([[0.5]]), b"x"])
def test_values_that_are_hard_to_write_are_refused_in_words(name: str, value: Any) -> None:
    """Python writes no int of thousands of digits."""
    with pytest.raises(InputError, match=rf"^{name} is .{{1,300}}, expected") as refused:
        SamplingParams(**{name: value})
    assert len(str(refused.value)) < 400


def test_a_seed_of_thousands_of_digits_is_a_seed() -> None:
    """It is nothing wrong; numpy takes it."""
    logits = np.zeros(50, np.float32)
    drawn = [Sampler(SamplingParams(seed=10**5000)).sample(logits, np.empty(0, np.int64)) for _ in range(2)]
    assert drawn[0] == drawn[1]
