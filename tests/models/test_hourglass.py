"""The model itself: a step is the full forward, and nothing looks ahead."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from specimens import full_forward, random_ids, random_model

from foveal import CapacityError, ConfigError
from foveal.models.config import ModelConfig
from foveal.models.hourglass.model import Hourglass

TOLERANCE = 2e-5


@st.composite
def models(draw: st.DrawFn) -> Hourglass:
    """Any hierarchy of up to three scales, any resampling, either kind of positions."""
    factors = draw(st.lists(st.sampled_from([2, 3, 4, 5, 8, 16]), max_size=2))
    strides = [1]
    for factor in factors:
        strides.append(strides[-1] * factor)
    outside = [f"{draw(st.integers(0, 2))}@{stride}" for stride in strides[:-1]]
    back = [f"{draw(st.integers(0, 2))}@{stride}" for stride in reversed(strides[:-1])]
    choices: dict[str, Any] = {
        "shortening": draw(st.sampled_from(["average", "linear", "attention", "linear+attention"])),
        "upsampling": draw(st.sampled_from(["repeat", "linear", "attention", "linear+attention"])),
        "positions": draw(st.sampled_from(["learned", "rotary"])),
        "head_dim": draw(st.sampled_from([6, 8, 10])),
    }
    hierarchy = " ".join([*outside, f"{draw(st.integers(1, 2))}@{strides[-1]}", *back])
    return random_model(hierarchy, draw(st.integers(0, 99)), **choices)


@given(models(), st.integers(1, 70), st.integers(1, 3))
def test_token_by_token_is_the_full_forward(model: Hourglass, length: int, batch: int) -> None:
    """The reference decoder's `step` gives the logits of `forward` at every position."""
    ids = random_ids(batch, length)
    state = model.init_state(batch, length)
    with torch.no_grad():
        steps = [model.step(torch.from_numpy(ids[:, t : t + 1]), state) for t in range(length)]
    np.testing.assert_allclose(torch.cat(steps, 1).numpy(), full_forward(model, ids), atol=TOLERANCE, rtol=1e-4)


@given(models(), st.data())
def test_a_prefix_has_the_logits_of_the_whole(model: Hourglass, data: st.DataObject) -> None:
    """Any length works and none changes the logits before it."""
    length = data.draw(st.integers(1, 70))
    prefix = data.draw(st.integers(1, length))
    ids = random_ids(2, length)
    np.testing.assert_allclose(
        full_forward(model, ids[:, :prefix]), full_forward(model, ids)[:, :prefix], atol=TOLERANCE, rtol=1e-4
    )


@given(models(), st.data())
def test_no_token_changes_the_logits_before_it(model: Hourglass, data: st.DataObject) -> None:
    """The shift by k-1 is what keeps a coarse vector from seeing its own future."""
    length = data.draw(st.integers(2, 60))
    changed = data.draw(st.integers(1, length - 1))
    ids = random_ids(1, length)
    other = ids.copy()
    other[0, changed] = (other[0, changed] + 1) % 41
    before, after = full_forward(model, ids), full_forward(model, other)
    np.testing.assert_allclose(before[:, :changed], after[:, :changed], atol=TOLERANCE)
    assert not np.allclose(before[:, changed], after[:, changed])


def test_a_coarse_stage_fires_only_when_a_token_opens_a_group() -> None:
    """Counted on the inner stack: 13 tokens at stride 4 are firings at 0, 4, 8 and 12."""
    model = random_model("1@1 1@4 1@1")
    state = model.init_state(1, 13)
    positions = []
    for _ in range(13):
        model.step(torch.zeros(1, 1, dtype=torch.int64), state)
        positions.append(state.root.inner.position)
    assert positions == [1 + token // 4 for token in range(13)]


def test_more_tokens_than_positions() -> None:
    """Learned positions are a hard limit, in both ways of running."""
    model = random_model("1@1", max_positions=4)
    with pytest.raises(CapacityError, match="has 4 learned positions, got a sequence of 5 tokens; shorten it"):
        model(torch.zeros(1, 5, dtype=torch.int64))
    state = model.init_state(1, 5)
    for _ in range(4):
        model.step(torch.zeros(1, 1, dtype=torch.int64), state)
    with pytest.raises(CapacityError, match="got a sequence of 5 tokens"):
        model.step(torch.zeros(1, 1, dtype=torch.int64), state)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dim": 0}, "dim must be at least 1, got 0"),
        ({"positions": "rotary", "head_dim": 7}, "head_dim must be even, got 7"),
        ({"hierarchy": "2@1 8@4"}, "malformed hierarchy"),
    ],
)
def test_a_configuration_that_contradicts_itself(changes: dict[str, Any], reason: str) -> None:
    """Refused where it is made."""
    sizes: dict[str, Any] = {"vocab_size": 5, "dim": 8, "heads": 1, "head_dim": 8, "ff_dim": 8, "max_positions": 8}
    with pytest.raises(ConfigError, match=reason):
        ModelConfig(**{"hierarchy": "1@1", **sizes, **changes})
