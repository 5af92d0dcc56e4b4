"""Seconds of a prompt, by hand."""

from __future__ import annotations

import pytest
from forecasting import rates, shape, stage

from foveal.contract import CacheSpec
from foveal.forecast.prompt_time import MOST_TOKENS, prompt_seconds

NONE = stage("1", caches=())


def test_a_prompt_by_hand() -> None:
    """50 rows of 2 x 200 operations at 100 a second; a stage, a layer, two products; the host's 4 s."""
    assert prompt_seconds(shape(NONE), rates(), 50) == pytest.approx(50 * 400 / 100 + 4 + 4)


def test_weights_are_read_once_for_a_call() -> None:
    """Where that takes longer than arithmetic."""
    assert prompt_seconds(shape(NONE), rates(flops=1e9), 50) == pytest.approx(1000 / 100 + 4 + 4)


def test_longer_prompts_take_several_calls() -> None:
    """Of which each reads all weights."""
    assert prompt_seconds(shape(NONE), rates(flops=1e9), 2 * MOST_TOKENS) == pytest.approx(2 * (10 + 4) + 4)


def test_a_coarse_stage_runs_for_its_firings() -> None:
    """Of 50 tokens 13 open a group of four; of 48, 12."""
    coarse = shape(stage("4", 4, caches=()))
    assert prompt_seconds(coarse, rates(), 50) == pytest.approx(13 * 4 + 8)
    assert prompt_seconds(coarse, rates(), 48) == pytest.approx(12 * 4 + 8)


def test_attention_looks_back_at_half_of_the_prompt_or_at_what_is_kept() -> None:
    """Of a cache of 2 x 8: 16 more multiplications for each of 25 rows on average, or of 4."""
    plain = prompt_seconds(shape(NONE), rates(), 50) or 0
    assert prompt_seconds(shape(stage("1")), rates(), 50) == pytest.approx(plain + 50 * 2 * 16 * 25 / 100)
    ring = stage("1", caches=(CacheSpec(name="0.key", heads=2, width=8, keeps=4),))
    assert prompt_seconds(shape(ring), rates(), 50) == pytest.approx(plain + 50 * 2 * 16 * 4 / 100)


def test_the_head_is_computed_for_the_last_row() -> None:
    """16 of the 200 numbers are the head's, of 4 tokens and width 4."""
    head = shape(stage("1", caches=(), output="logits"))
    assert prompt_seconds(head, rates(), 50) == pytest.approx(2 * (50 * 184 + 16) / 100 + 8)


def test_it_is_not_known_without_the_devices_arithmetic() -> None:
    """Nothing is made up."""
    assert prompt_seconds(shape(NONE), rates(flops=None), 50) is None
