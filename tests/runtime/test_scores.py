"""`foveal.score`: how likely a model finds a text."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from specimens import Goldens, Zoo, full_forward, random_ids

import foveal
from foveal import ConfigError, InputError, load
from foveal.runtime.model import Model

LONG = random_ids(1, 250, seed=5)[0].tolist()


@pytest.fixture(scope="module")
def model(goldens: Goldens) -> Model:
    """A golden checkpoint of 256 ids, read as bytes; 128 positions."""
    return load(goldens["s4_naive_attn"], threads=1)


def expected_of(zoo: Zoo, ids: list[int]) -> list[float]:
    """Log probabilities of `ids[1:]` by torch."""
    rows = torch.log_softmax(torch.from_numpy(full_forward(zoo["nested"].model, np.array([ids])))[0].double(), -1)
    return [float(row[token]) for row, token in zip(rows, ids[1:], strict=False)]


def test_what_the_context_holds_is_exact(zoo: Zoo) -> None:
    """To the last position, and the sums are of its tokens; ids have no bytes."""
    for length in (2, 30, 96):
        found = foveal.score(zoo["nested"].bundle, LONG[:length], top=2, threads=1)
        expected = expected_of(zoo, LONG[:length])
        assert found.ids == tuple(LONG[:length])
        assert [one.logprob for one in found.logprobs] == pytest.approx(expected, abs=1e-4)
        assert [one.token for one in found.logprobs] == LONG[1:length]
        assert {len(one.top) for one in found.logprobs} == {2}
        assert found.logprob == pytest.approx(sum(expected), abs=1e-2)
        assert found.perplexity == pytest.approx(math.exp(-sum(expected) / (length - 1)), rel=1e-3)
        assert (found.window, found.stride, found.bits_per_byte, found.bytes) == (length, None, None, None)


@pytest.mark.parametrize("stride", [None, 1, 40, 95])
def test_what_it_does_not_hold_is_read_in_windows(stride: int | None, zoo: Zoo) -> None:
    """Every token once, in the first window that reaches it; by default each begins half a context after the one before."""
    ids = LONG[:100] if stride == 1 else LONG
    found = foveal.score(zoo["nested"].bundle, ids, stride=stride, threads=1)
    step = stride or 48
    expected: list[float] = []
    start = 0
    while len(expected) < len(ids) - 1:
        window = expected_of(zoo, ids[start : start + 96])
        expected += window[len(expected) - start :]
        start += step
    assert [one.logprob for one in found.logprobs] == pytest.approx(expected, abs=1e-4)
    assert (found.window, found.stride) == (96, step)


def test_bits_per_byte_are_those_of_evaluate(model: Model, tmp_path) -> None:
    """Of a text that one window holds; ids of a model with a tokenizer have the bytes of their text."""
    text = "It was a dark and stormy night — é日."
    found = foveal.score(model, text)
    (tmp_path / "t.txt").write_text(text, encoding="utf-8")
    quality = foveal.evaluate(model.bundle, tmp_path / "t.txt", threads=1)
    assert found.bits_per_byte == pytest.approx(quality.bits_per_byte, rel=1e-5)
    assert -found.logprob / len(found.logprobs) == pytest.approx(quality.nats_per_token, rel=1e-5)
    assert found.bytes == len(text.encode())
    assert foveal.score(model, list(text.encode())) == found


def test_what_can_not_be_scored(model: Model, zoo: Zoo) -> None:
    """In one line each."""
    for text, reason in (
        ("", "the text has 0 tokens, expected at least two: nothing says how likely the first is"),
        ("a", "the text has 1 tokens, expected at least two"),
        ([1], "the text has 1 tokens"),
        ([256, 1], "the prompt's ids hold 256, which is outside the vocabulary"),
        ("caf\udce9", "is no text"),
    ):
        with pytest.raises(InputError, match=reason):
            foveal.score(model, text)
    for stride in (0, -1, 128, 1.5, True, "1"):
        with pytest.raises(InputError, match="stride (is|must be) "):
            foveal.score(model, "abc", stride=stride)  # type: ignore[arg-type]
    for top in (-1, 1.0, True, None):
        with pytest.raises(InputError, match="top (is|must be) "):
            foveal.score(model, "abc", top=top)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="has no tokenizer"):
        foveal.score(zoo["nested"].bundle, "abc", threads=1)
    for more in ({"threads": 1}, {"target": "cpu"}):
        with pytest.raises(ConfigError, match="for a model that is loaded already"):
            foveal.score(model, "abc", **more)  # type: ignore[arg-type]


def test_windows_begin_with_patches(zoo: Zoo) -> None:
    """Unless another stride is asked for: where the context is no whole number of two groups, half of it is rounded down."""
    wide = load(zoo["wide"].bundle, threads=1)  # groups of 16, a context of 96
    assert foveal.score(wide, LONG[:97]).stride == 48
    linear = load(zoo["linear"].bundle, threads=1)  # groups of 5
    assert foveal.score(linear, LONG[:97]).stride == 45
