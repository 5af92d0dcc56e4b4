"""MEGABYTE: coarse scales that run ahead, inner ones that begin anew, and a streaming form that gives the same logits."""

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

from foveal import ConfigError
from foveal.contract import BEGINNING, InputSpec
from foveal.models.megabyte.config import MegabyteConfig
from foveal.models.megabyte.model import Megabyte
from foveal.models.megabyte.token_shift import token_shift

TOLERANCE = 2e-5
WIDTHS = (24, 20, 17, 22)  # an odd one: token shift halves it unevenly


def random_model(*lengths: int, seed: int = 0, **changes: Any) -> Megabyte:
    """As many scales as there are lengths, coarse first."""
    sizes = {
        "vocab_size": 41,
        "dims": WIDTHS[: len(lengths)],
        "depths": (2, 1, 2, 1)[: len(lengths)],
        "lengths": lengths,
        "heads": 2,
        "head_dim": 8,
        "rotary": True,
    }
    model = Megabyte(MegabyteConfig(**{**sizes, **changes}))
    shake(model, seed)
    return model


lengths = st.one_of(
    st.tuples(st.integers(6, 24), st.sampled_from([2, 3, 4, 5])),
    st.tuples(st.integers(3, 6), st.sampled_from([2, 3, 5]), st.sampled_from([2, 3, 5])),
)
positions = st.fixed_dictionaries({"rotary": st.booleans(), "learned_positions": st.booleans()})


@given(lengths, positions, st.integers(0, 9), st.lists(st.integers(1, 23), min_size=1, max_size=7))
def test_any_way_of_cutting_a_sequence_gives_the_logits_of_the_whole(
    lengths: tuple[int, ...], positions: dict[str, bool], seed: int, chunks: list[int]
) -> None:
    """Two and three scales, any positions; chunks end anywhere in a patch."""
    model = random_model(*lengths, seed=seed, **positions)
    total = min(sum(chunks), model.config.trained_tokens)
    ids = random_ids(2, total, seed=seed)
    session = torch_session(model, batch=2)
    parts = np.split(ids, [end for end in np.cumsum(chunks) if end < total], axis=1)
    found = [session.advance(part) for part in parts]
    np.testing.assert_allclose(np.concatenate(found, 1), logits_of(model, ids), atol=TOLERANCE)


@given(st.sampled_from([(24, 4), (6, 3, 5), (32, 3)]), positions, paths)
def test_a_session_may_go_anywhere(lengths: tuple[int, ...], positions: dict[str, bool], path: list[tuple[str, int]]) -> None:
    """Back, to a copy of an earlier moment, and apart."""
    model = random_model(*lengths, **positions)
    walk = Walk(torch_session(model), lambda ids: logits_of(model, ids))
    for step, tokens in path:
        walk.take(step, tokens)


@pytest.mark.parametrize("lengths", [(20,), (3, 2, 3, 2)])
def test_any_number_of_scales(lengths: tuple[int, ...]) -> None:
    """A single one is a Transformer with a start token."""
    model = random_model(*lengths)
    ids = random_ids(2, model.config.trained_tokens)
    session = torch_session(model, batch=2)
    found = [session.advance(part) for part in np.split(ids, [1, 2, 9, 12], axis=1)]
    np.testing.assert_allclose(np.concatenate(found, 1), logits_of(model, ids), atol=TOLERANCE)


def test_more_tokens_than_it_was_trained_on() -> None:
    """Where no table of positions ends, the coarsest scale goes on."""
    model = random_model(3, 4)
    ids = random_ids(1, 50)
    session = torch_session(model, capacity=50)
    found = [session.advance(ids[:, :29]), session.advance(ids[:, 29:])]
    np.testing.assert_allclose(np.concatenate(found, 1), logits_of(model, ids), atol=TOLERANCE)


@pytest.mark.parametrize("length", [1, 4, 5, 14, 15, 16, 31])
def test_a_prefix_has_the_logits_of_the_whole(length: int) -> None:
    """What an incomplete patch is filled up with is seen by nobody."""
    model, ids = random_model(4, 3, 5), random_ids(2, 60)
    np.testing.assert_allclose(logits_of(model, ids[:, :length]), logits_of(model, ids)[:, :length], atol=TOLERANCE)


@pytest.mark.parametrize("place", [0, 4, 5, 14, 15, 37])
def test_a_token_changes_logits_from_its_own_on(place: int) -> None:
    """And none before."""
    model, ids = random_model(4, 3, 5), random_ids(1, 60)
    changed = ids.copy()
    changed[0, place] = (changed[0, place] + 1) % 41
    difference = np.abs(logits_of(model, ids) - logits_of(model, changed)).max(-1)[0]
    assert (difference[:place] == 0).all()
    assert difference[place] > 1e-3


def test_the_first_inner_patch_sees_nothing_of_the_outer_context() -> None:
    """The start row of an inner scale gets no coarse term: at first a new outer patch has no past."""
    model, ids = random_model(4, 3, 5), random_ids(1, 60)
    changed = ids.copy()
    changed[0, :15] = (changed[0, :15] + 1) % 41  # the first outer patch, all of it
    difference = np.abs(logits_of(model, ids) - logits_of(model, changed)).max(-1)[0]
    assert (difference[15:20] == 0).all()
    assert difference[20:30].min() > 1e-4


def test_token_shift_moves_the_second_half_of_every_row_to_the_next() -> None:
    """The smaller half where the width is odd; the first row gets zeros, or what it is given."""
    rows = torch.arange(10.0).reshape(1, 2, 5) + 1
    np.testing.assert_array_equal(token_shift(rows)[0], [[1, 2, 3, 0, 0], [6, 7, 8, 4, 5]])
    np.testing.assert_array_equal(token_shift(rows, torch.tensor([[[-1.0, -2.0]]]))[0], [[1, 2, 3, -1, -2], [6, 7, 8, 4, 5]])


def test_what_its_stages_read() -> None:
    """The patch before a firing, and the row handed down for it; the fine one a token, and the row handed down for that."""
    outer, inner, fine = (stage.spec for stage in random_model(4, 3, 5).stages())
    assert outer.inputs == (InputSpec(kind="tokens", count=15, shift=15),)
    assert inner.inputs == (
        InputSpec(kind="tokens", count=5, shift=5),
        InputSpec(kind="context", source="15", shift=1, width=WIDTHS[1]),
    )
    assert fine.inputs == (InputSpec(kind="tokens"), InputSpec(kind="context", source="5", width=WIDTHS[2]))
    assert [(spec.output_rows, spec.width) for spec in (outer, inner, fine)] == [(3, 20), (5, 17), (1, 41)]


def test_when_its_stages_fire() -> None:
    """Coarse ones before the first token and with the last one of each patch, so that no step waits; inner ones reset."""
    specs = [stage.spec for stage in random_model(4, 3, 5).stages()]
    assert [(spec.name, spec.stride, spec.fires, spec.resets) for spec in specs] == [
        ("15", 15, "ahead", None),
        ("5", 5, "ahead", 3),
        ("1", 1, "open", 5),
    ]
    assert [[spec.fired_by(firing) for firing in range(3)] for spec in specs[:2]] == [[BEGINNING, 14, 29], [BEGINNING, 4, 9]]
    assert {cache.keeps for cache in specs[1].caches} == {3}
    session = torch_session(random_model(4, 3, 5))
    session.advance(random_ids(1, 31))
    assert session.fires == {"15": 3, "5": 7, "1": 31}


def test_stages_share_the_models_weights() -> None:
    """Each belongs to one of them; what the start token of the fine scale leaves behind is no weight."""
    model = random_model(4, 3, 5)
    stages = model.stages()
    held = [id(parameter) for stage in stages for parameter in stage.module.parameters()]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())
    assert sum(stage.spec.parameters for stage in stages) == sum(parameter.numel() for parameter in model.parameters())


def test_what_it_says_of_itself() -> None:
    """Layers and strides, coarse first; a limit only where there are tables of positions."""
    described = random_model(4, 3, 5).describe()
    assert (described.architecture, described.hierarchy) == ("megabyte", "2@15 1@5 2@1")
    assert (described.vocab_size, described.dim) == (41, 17)
    assert (described.max_positions, described.context) == (None, 60)
    assert list(map(str, described.end_rules)) == ["a patch of 15 is complete"]
    assert random_model(4, 3, 5, learned_positions=True).describe().max_positions == 60


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dims": (24,)}, "every scale has one width, one depth and one length, got 1 dims, 2 depths, 2 lengths"),
        ({"lengths": (), "dims": (), "depths": ()}, "got 0 dims, 0 depths, 0 lengths"),
        ({"heads": 0}, "heads must be at least 1, got 0"),
        ({"dims": (24, 1)}, "widths must be at least 2, got 1"),
        ({"lengths": (4, 1)}, r"at least 2 rows for each of its, got lengths \[4, 1\]"),
        ({"lengths": (0, 4)}, r"got lengths \[0, 4\]"),
        ({"depths": (0, 0)}, r"there must be layers, got depths \[0, 0\]"),
        ({"head_dim": 7}, "rotary positions rotate pairs: head_dim must be even, got 7"),
    ],
)
def test_sizes_that_mean_nothing(changes: dict[str, Any], reason: str) -> None:
    """Each is named, with what it is."""
    with pytest.raises(ConfigError, match=reason):
        random_model(4, 5, **changes)


@pytest.mark.parametrize("kind", KINDS)
def test_engines_of_all_kinds(kind: str, family: Callable[..., FamilyEngines]) -> None:
    """Exact ones, quantised ones, and those that TensorRT-RTX builds."""
    family("megabyte", lambda: random_model(4, 3, 5, depths=(1, 1, 1), learned_positions=True)).check(kind)
