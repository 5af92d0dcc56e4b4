"""The bottom-up multi-scale model: its stages are the full forward, and nothing looks ahead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from family_engines import KINDS, FamilyEngines
from hypothesis import given
from hypothesis import strategies as st
from specimens import random_ids, random_model
from torch_sessions import check_causality, check_prefix, logits_of, torch_session

from foveal import ConfigError
from foveal.contract import InputSpec
from foveal.models.architectures import OwnModel
from foveal.models.bottom_up import BottomUp
from foveal.models.checkpoint import save_checkpoint
from foveal.models.layers.aggregate import Aggregate
from foveal.models.readers.loading import load_model

TOLERANCE = 2e-5


def bottom_up(hierarchy: str, seed: int = 0, **choices: Any) -> OwnModel:
    """A small model."""
    return random_model(hierarchy, seed, architecture="bottom-up", **choices)


@st.composite
def models(draw: st.DrawFn) -> OwnModel:
    """Any hierarchy of two to four scales, any shortening, either kind of positions, empty stacks too."""
    strides = [1]
    for factor in draw(st.lists(st.sampled_from([2, 3, 4, 5]), min_size=1, max_size=3)):
        strides.append(strides[-1] * factor)
    hierarchy = " ".join(f"{draw(st.integers(stride == 1, 2))}@{stride}" for stride in (*strides, 1))
    return bottom_up(
        hierarchy,
        draw(st.integers(0, 99)),
        shortening=draw(st.sampled_from(["average", "linear", "attention", "linear+attention"])),
        positions=draw(st.sampled_from(["learned", "rotary"])),
        head_dim=draw(st.sampled_from([6, 8, 10])),
    )


@given(models(), st.lists(st.integers(1, 24), min_size=1, max_size=12), st.integers(1, 2))
def test_the_stages_are_the_full_forward(model: OwnModel, chunks: list[int], batch: int) -> None:
    """In chunks of any sizes."""
    session = torch_session(model, batch)
    chunks = [chunk for place, chunk in enumerate(chunks) if sum(chunks[: place + 1]) <= session.capacity]
    ids = random_ids(batch, sum(chunks))
    parts = np.split(ids, np.cumsum(chunks)[:-1], axis=1)
    found = np.concatenate([session.advance(part) for part in parts], 1)
    np.testing.assert_allclose(found, logits_of(model, ids), atol=TOLERANCE)


@given(models(), st.integers(1, 60), st.integers(0, 60))
def test_tokens_are_taken_back_at_any_phase(model: OwnModel, tokens: int, back: int) -> None:
    """Any number of them."""
    session, ids = torch_session(model), random_ids(1, 80)
    session.advance(ids[:, :tokens])
    session.rewind(min(back, tokens))
    start = session.position
    other = random_ids(1, 80 - start, seed=1)
    expected = logits_of(model, np.concatenate([ids[:, :start], other], 1))[:, start:]
    np.testing.assert_allclose(session.advance(other), expected, atol=TOLERANCE)


@given(models(), st.data())
def test_a_prefix_has_the_logits_of_the_whole(model: OwnModel, data: st.DataObject) -> None:
    """Of any length."""
    length = data.draw(st.integers(1, 70))
    prefix = data.draw(st.integers(1, length))
    check_prefix(model, length, prefix, TOLERANCE)


@given(models(), st.data())
def test_no_token_changes_the_logits_before_it(model: OwnModel, data: st.DataObject) -> None:
    """But its own, and so those of a scale that fires with it."""
    length = data.draw(st.integers(2, 60))
    changed = data.draw(st.integers(1, length - 1))
    check_causality(model, length, changed, TOLERANCE)


def test_what_each_stage_reads() -> None:
    """A coarse row is there once for every token that it serves; the next scale reads 4 groups of 4 copies, the newest last."""
    specs = [stage.spec for stage in bottom_up("1@1 1@4 1@16 1@1").stages()]
    assert [(spec.name, spec.stride, spec.fires, spec.output_rows) for spec in specs] == [
        ("1.pre", 1, "open", 1),
        ("4", 4, "open", 4),
        ("16", 16, "open", 16),
        ("1.post", 1, "open", 1),
    ]
    assert specs[1].inputs == (InputSpec(kind="window", source="1.pre", count=4, shift=3, width=24),)
    assert specs[2].inputs == (InputSpec(kind="window", source="4", count=16, shift=12, width=24),)
    assert specs[3].names() == ["stream", "context.4", "context.16"]


def test_a_coarse_stage_fires_with_the_token_that_opens_a_group() -> None:
    """20 tokens are firings at 0, 4, 8, 12 and 16, and at 0 and 16."""
    session = torch_session(bottom_up("1@1 1@4 1@16 1@1"))
    session.advance(random_ids(1, 20))
    assert session.fires == {"1.pre": 20, "4": 5, "16": 2, "1.post": 20}


def test_stages_share_the_models_weights() -> None:
    """Splitting copies nothing."""
    model = bottom_up("1@1 1@4 1@16 1@1")
    parameters = {id(parameter) for parameter in model.parameters()}
    assert {id(parameter) for stage in model.stages() for parameter in stage.module.parameters()} == parameters


def test_the_aggregation_is_a_softmax_over_scales() -> None:
    """Head by head, token by token: its own row and those of the coarser scales, each with its own norm."""
    model = bottom_up("1@1 1@2 1@6 1@1")
    assert isinstance(model, BottomUp)
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 2, 5, 24)).astype(np.float32))  # [scales, B, L, D]
    with torch.no_grad():
        found = model.aggregate(*rows)
        for batch, token in np.ndindex(2, 5):
            expected = rows[0, batch, token] + _aggregated(model.aggregate, rows[:, batch, token])
            np.testing.assert_allclose(found[batch, token], expected, atol=TOLERANCE)


def _aggregated(module: Aggregate, rows: torch.Tensor) -> torch.Tensor:
    """Of one token, what attention adds to its row; rows `[scales, D]`."""
    normed = [norm(row) for norm, row in zip(module.norms, rows, strict=True)]
    query = module.query(normed[0])
    keys, values = zip(*(module.key_value(row).split(24) for row in normed), strict=True)
    heads = []
    for head in range(3):
        of_head = slice(head * 8, head * 8 + 8)
        scores = torch.stack([query[of_head] @ key[of_head] / 8**0.5 for key in keys])
        heads.append(sum(share * value[of_head] for share, value in zip(scores.softmax(0), values, strict=True)))
    return module.out(torch.cat(heads))


def test_coarse_rows_are_repeated_as_they_are() -> None:
    """Another way of upsampling would be another model."""
    with pytest.raises(ConfigError, match='upsampling of a bottom-up model must be "repeat", got "linear"'):
        bottom_up("1@1 1@4 1@1", upsampling="linear")


@pytest.mark.parametrize(
    ("hierarchy", "reason"),
    [("2@1 2@4 2@16", "factors must start at 1, grow, and end with 1"), ("2@1 1@2 4@8 1@2 2@1", "got 2 inside 8")],
)
def test_a_hierarchy_that_does_not_come_back_at_once(hierarchy: str, reason: str) -> None:
    """Is refused, and a right one shown."""
    with pytest.raises(ConfigError, match=f'{reason}.*write for instance "2@1 2@4 2@16 2@1"'):
        bottom_up(hierarchy)


def test_a_checkpoint_is_the_model(tmp_path: Path) -> None:
    """Saved in fp32 and loaded again, the logits are the same."""
    model, ids = bottom_up("1@1 1@4 1@8 1@1"), random_ids(1, 30)
    save_checkpoint(model, tmp_path, torch.float32)
    np.testing.assert_array_equal(logits_of(load_model(tmp_path).model, ids), logits_of(model, ids))


def test_a_description_says_what_it_is() -> None:
    """Of the model, with its hierarchy from fine to coarse and back."""
    described = bottom_up("1@1 1@4 1@8 1@1").describe()
    assert (described.architecture, described.hierarchy, described.context) == ("bottom-up", "1@1 1@4 1@8 1@1", 96)


@pytest.mark.parametrize("kind", KINDS)
def test_engines_of_all_kinds(kind: str, family: Callable[..., FamilyEngines]) -> None:
    """Exact ones, quantised ones, and those that TensorRT-RTX builds."""
    family("bottom up", lambda: bottom_up("1@1 1@2 1@8 1@1", head_dim=10)).check(kind)
