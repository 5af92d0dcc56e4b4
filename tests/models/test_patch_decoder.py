"""Patch decoders: the logits of NotaGen and bGPT, and a streaming form that gives the same ones."""

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
from foveal.models.patch_decoder import PatchDecoder, PatchDecoderConfig

SIZES = {"architecture": "test", "max_patches": 40, "vocab_size": 41, "dim": 24, "heads": 3}
LAYERS = {"patch_layers": 2, "inner_layers": 1}
TOLERANCE = 2e-5


def random_model(patch_size: int, seed: int = 0, **changes: Any) -> PatchDecoder:
    """Small towers."""
    model = PatchDecoder(PatchDecoderConfig(patch_size=patch_size, **{**SIZES, **LAYERS, **changes}))
    shake(model, seed)
    return model


@given(st.sampled_from([2, 3, 4, 16]), st.integers(0, 9), st.lists(st.integers(1, 23), min_size=1, max_size=5), st.booleans())
def test_any_way_of_cutting_a_sequence_gives_the_logits_of_the_whole(
    patch_size: int, seed: int, chunks: list[int], tied: bool
) -> None:
    """Prefill of any length at any place in a patch, one token or many."""
    model = random_model(patch_size, seed, tie_embeddings=tied, max_patches=120 // patch_size + 1)
    ids = random_ids(2, sum(chunks), seed=seed)
    session = torch_session(model, batch=2)
    found = [session.advance(part) for part in np.split(ids, np.cumsum(chunks)[:-1], axis=1)]
    np.testing.assert_allclose(np.concatenate(found, 1), logits_of(model, ids), atol=TOLERANCE)


@given(st.sampled_from([2, 3, 4]), paths)
def test_a_session_may_go_anywhere(patch_size: int, path: list[tuple[str, int]]) -> None:
    """Back, to a copy of an earlier moment, and apart."""
    model = random_model(patch_size, max_patches=96 // patch_size)
    walk = Walk(torch_session(model), lambda ids: logits_of(model, ids))
    for step, tokens in path:
        walk.take(step, tokens)


@pytest.mark.parametrize("length", [1, 3, 4, 5, 8, 21])
def test_a_prefix_has_the_logits_of_the_whole(length: int) -> None:
    """Nothing looks ahead, within a patch or beyond it."""
    model, ids = random_model(4), random_ids(2, 22)
    whole = logits_of(model, ids)
    np.testing.assert_allclose(logits_of(model, ids[:, :length]), whole[:, :length], atol=TOLERANCE)


@pytest.mark.parametrize("place", [0, 3, 4, 9, 21])
def test_a_token_changes_logits_from_its_own_on(place: int) -> None:
    """Its own row, and none before."""
    model, ids = random_model(4), random_ids(1, 22)
    changed = ids.copy()
    changed[0, place] = (changed[0, place] + 1) % 41
    difference = np.abs(logits_of(model, ids) - logits_of(model, changed)).max(-1)[0]
    assert (difference[:place] == 0).all()
    assert place % 4 == 3 or difference[place] > 1e-3, "inside a patch the next row reads the id itself"
    assert difference[place + 1 :].max(initial=1.0) > 1e-3


def test_the_last_id_of_a_patch_is_known_from_the_patch_tower_alone() -> None:
    """The inner tower forgets at each patch: two pasts that end alike differ in what comes after them."""
    model = random_model(4)
    ids = random_ids(1, 12)
    other = ids.copy()
    other[0, 0] = (other[0, 0] + 1) % 41
    difference = np.abs(logits_of(model, ids) - logits_of(model, other)).max(-1)[0]
    assert difference[3:].min() > 1e-4


def test_as_many_tokens_as_the_patch_tower_has_positions_for() -> None:
    """The last of them completes the last patch, and still has logits."""
    model = random_model(3, max_patches=5)
    ids = random_ids(1, 15)
    session = torch_session(model)
    assert session.capacity == model.describe().max_positions == 15
    found = [session.advance(ids[:, place : place + 1]) for place in range(15)]
    np.testing.assert_allclose(np.concatenate(found, 1), logits_of(model, ids), atol=TOLERANCE)


def test_when_its_towers_fire() -> None:
    """The patch tower when a patch is complete, the inner one before the first token and at each, and anew for each patch."""
    outer, inner = (stage.spec for stage in random_model(4).stages())
    assert (outer.name, outer.stride, outer.fires, outer.layers) == ("4", 4, "close", 2)
    assert (inner.name, inner.stride, inner.fires, inner.resets, inner.layers) == ("1", 1, "ahead", 4, 1)
    assert {cache.keeps for cache in inner.caches} == {4}
    session = torch_session(random_model(4))
    session.advance(random_ids(1, 11))
    assert session.fires == {"4": 2, "1": 12}


def test_what_it_says_of_itself() -> None:
    """Layers and strides, and how far its positions reach."""
    described = random_model(16).describe()
    assert (described.architecture, described.hierarchy, described.vocab_size) == ("test", "2@16 1@1", 41)
    assert described.max_positions == described.context == 640


def test_sizes_that_mean_nothing() -> None:
    """Each is named, with what it is."""
    with pytest.raises(ConfigError, match="patch_size must be at least 2, got 1"):
        random_model(1)
    with pytest.raises(ConfigError, match="max_patches must be at least 1, got 0"):
        random_model(4, max_patches=0)
    with pytest.raises(ConfigError, match="heads must divide the width 24, got 5"):
        random_model(4, heads=5)


@pytest.mark.parametrize("kind", KINDS)
def test_engines_of_all_kinds(kind: str, family: Callable[..., FamilyEngines]) -> None:
    """Exact ones, quantised ones, and those that TensorRT-RTX builds."""
    family("patch decoder", lambda: random_model(4)).check(kind)
