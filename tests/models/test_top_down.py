"""Top-down models: what they compute, by hand; and the cut into stages, of which nobody waits for a coarse one."""

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
from specimens import full_forward, random_ids, random_model
from torch_sessions import torch_session

from foveal import ConfigError
from foveal.contract import InputSpec, late_stages
from foveal.models.top_down import TopDown
from foveal.runtime.session import Session

TOLERANCE = 5e-5


@st.composite
def models(draw: st.DrawFn) -> TopDown:
    """Any hierarchy of one to three scales, any resampling, either kind of positions."""
    factors = draw(st.lists(st.sampled_from([2, 3, 4, 5, 8]), max_size=2))
    strides = np.cumprod([1, *factors])[::-1].tolist()
    choices: dict[str, Any] = {
        "shortening": draw(st.sampled_from(["average", "linear", "attention", "linear+attention"])),
        "upsampling": draw(st.sampled_from(["repeat", "linear"])),
        "positions": draw(st.sampled_from(["learned", "rotary"])),
    }
    hierarchy = " ".join(f"{draw(st.integers(int(stride == 1), 2))}@{stride}" for stride in strides)
    return top_down(hierarchy, draw(st.integers(0, 99)), **choices)


def top_down(hierarchy: str, seed: int = 0, **choices: Any) -> TopDown:
    """A small one."""
    model = random_model(hierarchy, seed, architecture="top-down", **choices)
    assert isinstance(model, TopDown)
    return model


@given(models(), st.data())
def test_a_prefix_has_the_logits_of_the_whole(model: TopDown, data: st.DataObject) -> None:
    """Any length works and none changes the logits before it."""
    length = data.draw(st.integers(1, 60))
    prefix = data.draw(st.integers(1, length))
    ids = random_ids(2, length)
    np.testing.assert_allclose(full_forward(model, ids[:, :prefix]), full_forward(model, ids)[:, :prefix], atol=TOLERANCE)


@given(models(), st.integers(0, 47))
def test_every_token_is_seen_by_all_that_follow(model: TopDown, place: int) -> None:
    """And by none before: another token changes all logits from its own on."""
    ids = random_ids(1, 48)
    other = ids.copy()
    other[0, place] = (ids[0, place] + 1) % 41
    changed = np.abs(full_forward(model, ids) - full_forward(model, other)).max(-1)[0]
    assert (changed[:place] < TOLERANCE).all()
    assert changed[place] > 0


@given(models(), st.integers(1, 2), st.lists(st.integers(1, 24), min_size=1, max_size=3))
def test_stages_in_any_chunks_are_the_full_forward(model: TopDown, batch: int, chunks: list[int]) -> None:
    """One token or many, at any phase."""
    ids = random_ids(batch, sum(chunks))
    session = torch_session(model, batch)
    found = [session.advance(part) for part in np.split(ids, np.cumsum(chunks)[:-1], axis=1)]
    np.testing.assert_allclose(np.concatenate(found, 1), full_forward(model, ids), atol=TOLERANCE)


@given(models(), st.booleans(), paths)
def test_a_session_may_go_anywhere(model: TopDown, overlap: bool, path: list[tuple[str, int]]) -> None:
    """With coarse stages beside the fine one too."""
    plain = torch_session(model)
    walk = Walk(Session(plain.engines, plain.model, overlap=overlap), lambda ids: full_forward(model, ids))
    for step in path:
        walk.take(*step)


def test_what_each_stage_reads() -> None:
    """A complete group of embeddings, and of the coarser scale what it made of the group before."""
    specs = [stage.spec for stage in top_down("1@8 2@4 3@1").stages()]
    assert [(spec.name, spec.stride, spec.fires, spec.output_rows, spec.layers) for spec in specs] == [
        ("embed", 1, "open", 1, 0),
        ("8", 8, "close", 2, 1),
        ("4", 4, "close", 4, 2),
        ("1", 1, "open", 1, 3),
    ]
    assert specs[1].inputs == (InputSpec(kind="window", source="embed", count=8, width=24),)
    window, context = InputSpec(kind="window", source="embed", count=4, width=24), specs[2].inputs[1]
    assert specs[2].inputs == (window, InputSpec(kind="context", source="8", shift=2, width=24))
    assert context.source == "8"
    assert specs[3].inputs[1] == InputSpec(kind="context", source="4", shift=4, width=24)
    assert (specs[3].output, specs[3].width) == ("logits", 41)


def test_no_coarse_stage_is_waited_for() -> None:
    """What a group gives is first read with the token after it."""
    assert late_stages([stage.spec for stage in top_down("1@8 2@4 3@1").stages()]) == {"8", "4"}
    assert late_stages([stage.spec for stage in top_down("3@1").stages()]) == frozenset()


def test_one_scale_is_the_vanilla_transformer() -> None:
    """The same weights give the same logits."""
    model, vanilla = top_down("3@1"), random_model("3@1")
    names = {name: name.replace("root.", "fine.") for name in vanilla.state_dict()}
    vanilla.load_state_dict({name: model.state_dict()[ours] for name, ours in names.items()})
    ids = random_ids(2, 30)
    np.testing.assert_allclose(full_forward(model, ids), full_forward(vanilla, ids), atol=TOLERANCE)


def test_by_hand() -> None:
    """Two scales without layers, of three tokens each: a token, plus the mean of the group before it, goes to the head."""
    model, ids = top_down("0@3 1@1", positions="learned"), torch.from_numpy(random_ids(1, 10))
    with torch.no_grad():
        embedded = model.embed(ids, torch.arange(10)[None])
        groups = embedded[:, :9].reshape(1, 3, 3, -1).mean(2)
        given = model.coarse[0].hand_down.out(groups).repeat_interleave(3, 1)
        x = embedded + torch.cat([torch.zeros(1, 3, 24), given], 1)[:, :10]
        expected = model.head(model.fine(x))
    np.testing.assert_allclose(full_forward(model, ids.numpy()), expected.numpy(), atol=TOLERANCE)


@pytest.mark.parametrize("hierarchy", ["2@1 8@4 2@1", "1@4 1@2"])
def test_other_hierarchies_are_refused(hierarchy: str) -> None:
    """With one that goes from coarse to fine."""
    with pytest.raises(ConfigError, match='write for instance "4@16 3@4 4@1"'):
        top_down(hierarchy)


@pytest.mark.parametrize("kind", KINDS)
def test_engines_of_all_kinds(kind: str, family: Callable[..., FamilyEngines]) -> None:
    """Exact ones, quantised ones, and those that TensorRT-RTX builds."""
    family("top down", lambda: top_down("1@8 1@4 1@1")).check(kind)
