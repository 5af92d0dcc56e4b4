"""Block Transformer: the logits of the original, and a streaming form that gives the same ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from exactness import Walk, paths
from family_engines import KINDS, FamilyEngines
from hypothesis import given
from hypothesis import strategies as st
from specimens import random_ids
from torch_sessions import logits_of, shake, torch_session

from foveal import ConfigError
from foveal.models.block_transformer import BlockTransformer, BlockTransformerConfig
from foveal.models.config import LayerConfig

NEOX = {"ff_dim": 32, "qkv_bias": True, "rotary_base": 10_000.0, "rotary_dims": 4, "parallel": True}
BLOCK = LayerConfig(dim=24, heads=2, head_dim=12, **NEOX)
TOKEN = LayerConfig(dim=16, heads=2, head_dim=8, **NEOX)
SIZES = {"vocab_size": 41, "block": BLOCK, "block_layers": 2, "token": TOKEN, "token_layers": 2, "context": 96}
TOLERANCE = 2e-5


def random_model(block_length: int = 4, prefixes: int = 2, seed: int = 0, **changes: Any) -> BlockTransformer:
    """Small towers, of different widths."""
    sizes = {**SIZES, "block_length": block_length, "prefixes": prefixes, **changes}
    model = BlockTransformer(BlockTransformerConfig(**sizes))
    shake(model, seed)
    return model


@given(
    st.sampled_from([2, 3, 4, 8]),
    st.integers(1, 4),
    st.integers(0, 9),
    st.lists(st.integers(1, 19), min_size=1, max_size=5),
)
def test_any_way_of_cutting_a_sequence_gives_the_logits_of_the_whole(
    block_length: int, prefixes: int, seed: int, chunks: list[int]
) -> None:
    """Prefill of any length at any place in a block, with as many prefixes as a block has tokens, more or fewer."""
    model = random_model(block_length, prefixes, seed)
    ids = random_ids(2, sum(chunks), seed=seed)
    session = torch_session(model, batch=2)
    found = [session.advance(part) for part in np.split(ids, np.cumsum(chunks)[:-1], axis=1)]
    np.testing.assert_allclose(np.concatenate(found, 1), logits_of(model, ids), atol=TOLERANCE)


@given(st.sampled_from([3, 4]), st.integers(1, 3), paths)
def test_a_session_may_go_anywhere(block_length: int, prefixes: int, path: list[tuple[str, int]]) -> None:
    """Back, to a copy of an earlier moment, and apart."""
    model = random_model(block_length, prefixes)
    walk = Walk(torch_session(model), lambda ids: logits_of(model, ids))
    for step, tokens in path:
        walk.take(step, tokens)


@pytest.mark.parametrize("length", [1, 3, 4, 5, 8, 21])
def test_a_prefix_has_the_logits_of_the_whole(length: int) -> None:
    """Nothing looks ahead, within a block or beyond it."""
    model, ids = random_model(), random_ids(2, 22)
    whole = logits_of(model, ids)
    np.testing.assert_allclose(logits_of(model, ids[:, :length]), whole[:, :length], atol=TOLERANCE)


@pytest.mark.parametrize("place", [0, 3, 4, 9, 21])
def test_a_token_changes_logits_from_its_own_on(place: int) -> None:
    """Its own row, and none before."""
    model, ids = random_model(), random_ids(1, 22)
    changed = ids.copy()
    changed[0, place] = (changed[0, place] + 1) % 41
    difference = np.abs(logits_of(model, ids) - logits_of(model, changed)).max(-1)[0]
    assert (difference[:place] == 0).all()
    assert (difference[place:] > 1e-5).all()


def test_when_its_towers_fire() -> None:
    """The block decoder when a block is complete, the token decoder before the first token and at each, anew for each block."""
    outer, inner = (stage.spec for stage in random_model().stages())
    assert (outer.name, outer.stride, outer.fires, outer.layers) == ("4", 4, "close", 2)
    assert (inner.name, inner.stride, inner.fires, inner.resets, inner.layers) == ("1", 1, "ahead", 4, 2)
    assert {cache.keeps for cache in inner.caches} == {5}, "two prefixes and the block's tokens but the last"
    session = torch_session(random_model())
    session.advance(random_ids(1, 11))
    assert session.fires == {"4": 2, "1": 12}


def test_what_it_says_of_itself() -> None:
    """Layers and strides; its positions are relative, so that only training limits the text."""
    described = random_model().describe()
    assert (described.architecture, described.hierarchy, described.vocab_size) == ("block-transformer", "2@4 2@1", 41)
    assert (described.dim, described.max_positions, described.context) == (16, None, 96)
    assert list(map(str, described.end_rules)) == ["a patch of 4 is complete"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block_length": 1}, "block_length must be at least 2, got 1"),
        ({"prefixes": 0}, "prefixes must be at least 1, got 0"),
        ({"block_length": 5}, "the width 24 of the block decoder must be a multiple of its 5 tokens"),
    ],
)
def test_sizes_that_mean_nothing(changes: dict[str, int], message: str) -> None:
    """Each is named, with what it is."""
    with pytest.raises(ConfigError, match=message):
        random_model(**changes)


@pytest.mark.parametrize("kind", KINDS)
def test_engines_of_all_kinds(kind: str, family: Callable[..., FamilyEngines]) -> None:
    """Exact ones, quantised ones, and those that TensorRT-RTX builds."""
    family("block transformer", lambda: random_model(prefixes=2)).check(kind)
