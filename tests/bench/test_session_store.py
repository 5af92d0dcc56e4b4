"""What a store of sessions costs."""

from __future__ import annotations

from pathlib import Path

import pytest
from specimens import random_model

from foveal import ConfigError, Model, load
from foveal.bench.session_store import measure
from foveal.export import convert_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Of a context that has room for two blocks of a store."""
    path: Path = tmp_path_factory.mktemp("store") / "model.bundle"
    convert_model(random_model("1@1", max_positions=160), path)
    return load(path, threads=1)


def test_every_call_has_its_cost(model: Model) -> None:
    costs = measure(model, tokens=96, seed=0)
    assert all(cost > 0 for cost in costs)


def test_tokens_that_fill_no_block_or_leave_no_room_for_another_are_refused(model: Model) -> None:
    for tokens in (64, 97):
        with pytest.raises(ConfigError, match=f"expected tokens between 65 and 96, got {tokens}"):
            measure(model, tokens, seed=0)
