"""Bytes of memory, by hand."""

from __future__ import annotations

from forecasting import shape, stage

from foveal.contract import ClockSpec, InputSpec
from foveal.forecast.memory import memory_of

COARSE = stage("4", 4, 5000)
LAST = stage("1", output="logits", inputs=(InputSpec(kind="context", source="4", width=4),))


def test_memory_by_hand() -> None:
    """Weights and tables of both; for 8 tokens 2 and 8 rows of caches, and two rows of the coarse stage, of 4 numbers each."""
    found = memory_of(shape(COARSE, LAST), 8, 1, 4, 100.0, 10_000.0)
    assert found.weights == 5000 + 1000 + 2 * 50
    assert found.state == 10 * (2 + 8) + 2 * 4 * 4
    assert found.working == 3 * 4 * 4 * (16 + 4) + 4 * 4
    assert found.total == found.weights + found.state + found.working + 100
    assert found.fits is True


def test_sequences_of_a_batch_share_the_weights() -> None:
    """And nothing of the state."""
    one, three = (memory_of(shape(COARSE, LAST), 8, batch, 4, 100.0, None) for batch in (1, 3))
    assert (three.weights, three.state) == (one.weights, 3 * one.state)


def test_what_does_not_fit_and_what_is_not_known() -> None:
    """A byte less than it takes; a device whose memory nobody knows."""
    model = shape(COARSE, LAST)
    needed = memory_of(model, 8, 1, 4, 0.0, None)
    assert needed.fits is None
    assert memory_of(model, 8, 1, 4, 0.0, needed.total).fits is True
    assert memory_of(model, 8, 1, 4, 0.0, needed.total - 1).fits is False


def test_where_the_data_decides_every_token_may_fire() -> None:
    """There is room for as many rows as tokens."""
    decided = stage("decided", clock=ClockSpec(stage="1", tokens_per_firing=4.0))
    assert memory_of(shape(decided, LAST), 8, 1, 4, 0.0, None).state == 10 * (8 + 8) + 8 * 4 * 4
