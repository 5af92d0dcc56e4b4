"""Small chunks and batches, as whole steps and by operator."""

from __future__ import annotations

import pytest
from specimens import Zoo

from foveal import CapacityError, load
from foveal.bench.batch_operators import Case, operators
from foveal.bench.small_batches import BATCHES, CHUNKS, Costs, measure


@pytest.fixture(scope="module")
def costs(zoo: Zoo) -> Costs:
    (costs,) = measure([load(zoo["nested"].bundle, threads=1)], rounds=1, past=16)
    return costs


def test_every_chunk_and_batch_has_its_cost(costs: Costs) -> None:
    assert tuple(cost.tokens for cost in costs.chunks) == CHUNKS
    assert tuple(cost.tokens for cost in costs.batches) == BATCHES == tuple(costs.of_prefill)
    assert all(cost.ms > 0 and cost.mean_ms > 0 for cost in (*costs.chunks, *costs.batches))


def test_costs_are_against_one_token_that_fires_the_same_stages(costs: Costs) -> None:
    one, chunk = costs.chunks[0], costs.chunks[2]
    assert (one.times_one, one.mean_times_one) == (1.0, 1.0)
    assert chunk.times_one == pytest.approx(chunk.ms / one.ms)
    assert chunk.mean_times_one == pytest.approx(chunk.mean_ms / one.mean_ms)


def test_shares_of_the_prefill_rate_are_of_average_steps(costs: Costs) -> None:
    for cost in costs.batches:
        rate = 1e3 * cost.tokens / cost.mean_ms
        assert costs.of_prefill[cost.tokens] == pytest.approx(rate / costs.prefill_tokens_per_s)


def test_a_past_that_the_context_does_not_hold_is_refused(zoo: Zoo) -> None:
    with pytest.raises(CapacityError, match=r"has a context of \d+ tokens, got 16 behind 4096; take a model of a longer"):
        measure([load(zoo["nested"].bundle, threads=1)], rounds=1, past=4096)


def test_operators_of_a_batch_are_per_token_and_sequence(zoo: Zoo) -> None:
    bundle = zoo["nested"].bundle
    alone, together = (operators(bundle, Case(batch, 1, past=16), threads=1) for batch in (1, 4))
    assert alone.keys() == together.keys()
    assert "GroupQueryAttention" in alone
    assert all(us >= 0 for us in (*alone.values(), *together.values()))
