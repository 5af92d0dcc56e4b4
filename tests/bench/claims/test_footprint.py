"""Bytes by arithmetic: what a session reserves, and what can be counted by hand."""

from __future__ import annotations

import pytest
from specimens import Zoo

from foveal.bench.claims.footprint import footprint
from foveal.runtime.model import load


def test_a_vanilla_model_by_hand(zoo: Zoo) -> None:
    """3 layers of keys and values, 3 heads of 8, fp32, one row a token; no stage hands rows to another."""
    found = footprint(zoo["vanilla"].bundle, "cpu", 50)
    (entry,) = zoo["vanilla"].bundle.manifest.stages
    assert found.caches == 3 * 2 * 3 * 8 * 4 * 50
    assert found.rows == 0
    assert (found.weights, found.tables) == (entry.weight_bytes, (41 + 96) * 24 * 4)


def test_a_top_down_model_by_hand(zoo: Zoo) -> None:
    """Of 50 tokens 6 groups of 8 and 12 of 4 are complete; rows stand behind zeros, as many as the next scale looks back."""
    found = footprint(zoo["top-down"].bundle, "cpu", 50)
    layer = 2 * 3 * 8 * 4
    assert found.caches == layer * (6 + 12 + 2 * 50)
    assert found.rows == 24 * 4 * (50 + (2 + 6 * 2) + (4 + 12 * 4))


@pytest.mark.parametrize("name", ["top-down", "vanilla"])
@pytest.mark.parametrize("tokens", [1, 7, 50, 96])
def test_sessions_reserve_as_much(zoo: Zoo, name: str, tokens: int) -> None:
    """Caches and rows, whatever the length."""
    found = footprint(zoo[name].bundle, "cpu", tokens)
    with load(zoo[name].bundle, threads=1, overlap=False).session(capacity=tokens) as session:
        assert sum(session.state_bytes.values()) == found.caches + found.rows
