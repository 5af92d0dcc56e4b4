"""What calls take, learnt from those that were made."""

from __future__ import annotations

from random import Random

import pytest
from programs import TOKENS, stage

from foveal.runtime.speculation.chances import Chances
from foveal.runtime.speculation.costs import CallCosts


def true_seconds(position: int, tokens: int) -> float:
    """A model of two strides: 1 ms and 0.2 ms for each further row, and 4 ms every fourth token, 0.1 for further ones."""
    coarse = len([token for token in range(position, position + tokens) if token % 4 == 0])
    return 1e-3 + 2e-4 * (tokens - 1) + (4e-3 + 1e-4 * (coarse - 1) if coarse else 0)


def test_steps_tell_the_stages_apart() -> None:
    """After some calls of all lengths, each is foreseen, at every phase."""
    costs, choose, position = CallCosts([stage("fine", 1, [TOKENS]), stage("coarse", 4, [TOKENS])]), Random(0), 0
    for _ in range(600):
        tokens = choose.choice([1, 1, 1, 2, 3, 5, 8, 12, 16])
        costs.learn(position, tokens, true_seconds(position, tokens) * choose.uniform(0.9, 1.1))
        position += tokens
    for phase in range(4):
        for tokens in (1, 2, 4, 7, 16):
            assert costs.seconds(phase, tokens) == pytest.approx(true_seconds(phase, tokens), rel=0.2)
    assert costs.token == pytest.approx(2e-3, rel=0.2)


def test_a_call_nobody_made_is_taken_to_be_cheap() -> None:
    """So that it is tried; what lies between calls that were timed is taken to lie between them."""
    costs = CallCosts([stage("fine", 1, [TOKENS])])
    for _ in range(50):
        costs.learn(0, 1, 1e-3)
    assert costs.seconds(0, 1) == pytest.approx(1e-3, rel=0.01)
    assert 1e-3 < costs.seconds(0, 8) < 2e-3
    for _ in range(50):
        costs.learn(0, 8, 4.5e-3)
    assert costs.seconds(0, 4) == pytest.approx(2.5e-3, rel=0.02)
    assert 4.5e-3 < costs.seconds(0, 20) < costs.seconds(0, 200)


def test_one_call_that_something_held_up_is_not_believed() -> None:
    """A hundred times the time counts as four times, and a tenth of that."""
    costs = CallCosts([stage("fine", 1, [TOKENS])])
    for _ in range(50):
        costs.learn(0, 1, 1e-3)
    costs.learn(0, 1, 0.1)
    assert costs.seconds(0, 1) < 1.3e-3


def test_chances() -> None:
    """Begin as expected, and become what they were lately."""
    chances = Chances([0.5, 0.9])
    assert chances[0] == 0.5
    for right in [True] * 300 + [False] * 300:
        chances.learn(0, right)
    assert chances[0] < 0.1
    assert chances[1] == 0.9
