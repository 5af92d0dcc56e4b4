"""The official Hourglass: what its stages compute is what its full forward computes. Its logits: readers/test_trax.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from exactness import Walk, paths
from family_engines import KINDS, FamilyEngines
from hypothesis import given
from hypothesis import strategies as st
from specimens import random_ids
from torch_sessions import logits_of, shake, torch_session

from foveal import CapacityError, ConfigError
from foveal.contract import BorrowSpec, CacheSpec, InputSpec
from foveal.models.layers.relative_attention import Distances, usual_frequencies
from foveal.models.trax.config import TraxConfig
from foveal.models.trax.model import TraxHourglass

SIZES: dict[str, Any] = {"vocab_size": 41, "dim": 24, "heads": 3, "ff_dim": 32, "context": 96}
HIERARCHIES = ["1@1 2@3 1@1", "2@1 1@5 0@1", "1@1 1@2 1@6 1@2 1@1", "0@1 1@2 0@4 1@12 0@4 1@2 0@1"]
TOLERANCE = 1e-5
hierarchies = st.sampled_from(HIERARCHIES)
resampling = st.fixed_dictionaries(
    {"shortening": st.sampled_from(["average", "linear"]), "upsampling": st.sampled_from(["repeat", "linear"])}
)


def random_model(hierarchy: str, seed: int = 0, **changes: Any) -> TraxHourglass:
    """A small one."""
    torch.manual_seed(seed)
    model = TraxHourglass(TraxConfig(hierarchy=hierarchy, **{**SIZES, **changes}))
    shake(model, seed)
    return model


@given(hierarchies, resampling, st.integers(0, 9), st.lists(st.integers(1, 19), min_size=1, max_size=5))
def test_any_way_of_cutting_a_sequence_gives_the_logits_of_the_whole(
    hierarchy: str, choices: dict[str, str], seed: int, chunks: list[int]
) -> None:
    """Prefill of any length at any phase, one token or many."""
    model, ids = random_model(hierarchy, seed, **choices), random_ids(2, sum(chunks), seed=seed)
    session = torch_session(model, batch=2)
    found = [session.advance(part) for part in np.split(ids, np.cumsum(chunks)[:-1], axis=1)]
    np.testing.assert_allclose(np.concatenate(found, 1), logits_of(model, ids), atol=TOLERANCE)


@given(hierarchies, paths)
def test_a_session_may_go_anywhere(hierarchy: str, path: list[tuple[str, int]]) -> None:
    """Back, to a copy of an earlier moment, and apart."""
    model = random_model(hierarchy)
    walk = Walk(torch_session(model), lambda ids: logits_of(model, ids))
    for step, tokens in path:
        walk.take(step, tokens)


@given(hierarchies, resampling, st.integers(1, 30))
def test_a_prefix_has_the_logits_of_the_whole(hierarchy: str, choices: dict[str, str], length: int) -> None:
    """At lengths that are multiples of nothing: the original must be given whole groups."""
    model, ids = random_model(hierarchy, **choices), random_ids(2, 31)
    whole = logits_of(model, ids)
    np.testing.assert_allclose(logits_of(model, ids[:, :length]), whole[:, :length], atol=TOLERANCE)


@given(hierarchies, st.integers(0, 30))
def test_a_token_changes_no_logits_before_it(hierarchy: str, place: int) -> None:
    """And all from its own on, at whatever distance: attention reaches the whole past."""
    model, ids = random_model(hierarchy), random_ids(1, 31)
    changed = ids.copy()
    changed[0, place] = (changed[0, place] + 1) % 41
    difference = np.abs(logits_of(model, ids) - logits_of(model, changed)).max(-1)[0]
    assert (difference[:place] == 0).all()
    assert (difference[place:] > 0).all()


def test_what_each_stage_reads_and_keeps() -> None:
    """A coarse stage keeps its windows' keys at the finer rate, and its own for the finer stage, which borrows them."""
    stages = random_model("1@1 1@2 2@6 1@2 1@1").stages()
    specs = {stage.spec.name: stage.spec for stage in stages}
    assert list(specs) == ["1.pre", "2.pre", "6", "2.post", "1.post"]
    assert [spec.stride for spec in specs.values()] == [1, 2, 6, 2, 1]
    assert specs["6"].inputs == (InputSpec(kind="window", source="2.pre", count=3, shift=2, width=24),)
    assert specs["2.post"].inputs == (
        InputSpec(kind="stream", source="2.pre", width=24),
        InputSpec(kind="context", source="6", width=24),
    )
    names = [cache.name.removesuffix(".key") for cache in specs["6"].caches if cache.name.endswith("key")]
    assert names == ["relative.0", "relative.1", "down", "up"]
    assert {cache.name: cache.rows for cache in specs["6"].caches}["down.value"] == 3
    up = [CacheSpec(name=f"up.{part}", heads=3, width=8) for part in ("key", "value")]
    assert specs["2.post"].borrows == tuple(BorrowSpec(stage="6", cache=cache) for cache in up)
    assert specs["1.post"].borrows == tuple(BorrowSpec(stage="2.post", cache=cache) for cache in up)
    assert [spec.output_rows for spec in specs.values()] == [1, 1, 3, 2, 1]
    assert specs["1.post"].output == "logits"
    assert specs["1.post"].width == 41


def test_a_stack_of_no_layers_remembers_nothing() -> None:
    """Only its norm is left, and no position is asked for."""
    first = random_model("0@1 1@2 0@1").stages()[0].spec
    assert (first.name, first.layers, first.caches, first.uses_position) == ("1.pre", 0, (), False)


def test_stages_share_the_models_weights() -> None:
    """All but the projections of sinusoids, which are worked out into tables."""
    model = random_model("1@1 1@2 1@6 1@2 1@1")
    own = {id(parameter): name for name, parameter in model.named_parameters()}
    used = {own[id(parameter)] for stage in model.stages() for parameter in stage.module.parameters()}
    assert {name for name in own.values() if name not in used} == {name for name in own.values() if ".position." in name}


def test_tables_reach_as_far_as_the_context() -> None:
    """A session has no room for more; the full forward has."""
    model = random_model("1@1 1@3 1@1", context=10)
    ids = random_ids(1, 11)
    session = torch_session(model)
    np.testing.assert_allclose(session.advance(ids[:, :10]), logits_of(model, ids)[:, :10], atol=TOLERANCE)
    with pytest.raises(CapacityError, match="holds 10 of at most 10 tokens, got 1 more"):
        session.advance(ids[:, 10:])
    tables = [module.table.shape for stage in model.stages() for module in stage.module.modules() if hasattr(module, "table")]
    assert [tuple(shape) for shape in tables] == [(3, 8, 10), (3, 8, 12), (3, 8, 4), (3, 8, 10), (3, 8, 10)]


def test_distances() -> None:
    """Between rows of one rate; of coarse queries to shifted fine keys, some ahead; of fine queries to coarse keys."""
    rows = torch.arange(4)[None]
    assert Distances().between(rows, 4)[0].tolist() == [[0, 1, 2, 3], [-1, 0, 1, 2], [-2, -1, 0, 1], [-3, -2, -1, 0]]
    down, up = Distances(query_step=3, ahead=2, pooling=5), Distances(key_step=3)
    assert down.between(rows[:, :2], 6)[0].tolist() == [[0, 1, 2, 3, 4, 5], [-3, -2, -1, 0, 1, 2]]
    assert up.between(rows, 2)[0].tolist() == [[0, 3], [-1, 2], [-2, 1], [-3, 0]]
    assert (Distances().count(4), down.count(2), up.count(4)) == (4, 6, 4)
    positions = torch.tensor([-15, -10, -5, 0, 5, 10], dtype=torch.float64)
    torch.testing.assert_close(down.sinusoids(6, usual_frequencies(2)), torch.stack((positions.sin(), positions.cos()), -1))


def test_what_it_says_of_itself() -> None:
    """Positions are relative, but tabled."""
    described = random_model("2@1 8@4 2@1").describe()
    assert (described.architecture, described.hierarchy, described.vocab_size) == ("trax-hourglass", "2@1 8@4 2@1", 41)
    assert described.max_positions == described.context == 96


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"heads": 5}, "the width must be even and a multiple of the heads, got 24 and 5 heads"),
        ({"dim": 9}, "the width must be even and a multiple of the heads, got 9 and 3 heads"),
        ({"context": 0}, "context must be at least 1, got 0"),
        ({"hierarchy": "3@1"}, 'hierarchy "3@1" has one level only'),
        ({"hierarchy": "1@1 1@2 1@3 1@2 1@1"}, "got 3 inside 2"),
    ],
)
def test_sizes_that_mean_nothing(changes: dict[str, Any], reason: str) -> None:
    """Each is named, with what it is."""
    with pytest.raises(ConfigError, match=reason):
        TraxConfig(**{"hierarchy": "1@1 1@2 1@1", **SIZES, **changes})


@pytest.mark.parametrize("kind", KINDS)
def test_engines_of_all_kinds(kind: str, family: Callable[..., FamilyEngines]) -> None:
    """Exact ones, quantised ones, and those that TensorRT-RTX builds."""
    family("trax hourglass", lambda: random_model("1@1 1@3 1@1", shortening="linear")).check(kind)
