"""Models that learn where their middle fires: stages that give the logits of the whole, and a rate that training holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exactness import Walk, paths
from family_engines import KINDS, FamilyEngines
from hypothesis import given
from hypothesis import strategies as st
from specimens import random_ids, random_model
from torch_sessions import check_causality, check_prefix, logits_of, torch_session

from foveal import ConfigError
from foveal.contract import ClockSpec, InputSpec
from foveal.models.checkpoint import save_checkpoint
from foveal.models.compute import multiply_adds_per_token
from foveal.models.dynamic.model import Dynamic
from foveal.models.dynamic.predictor import BoundaryPredictor
from foveal.models.readers.loading import load_model

TOLERANCE = 2e-5


def dynamic(hierarchy: str = "1@1 2@~3 1@1", seed: int = 0, **choices: Any) -> Dynamic:
    """A small model; a third of all tokens are boundaries on their own, and none is a tie."""
    model = random_model(hierarchy, seed, **{"architecture": "dynamic", "positions": "rotary", **choices})
    assert isinstance(model, Dynamic)
    with torch.no_grad():
        logits = model.predictor(model.pre(model.embed(torch.arange(41)[:, None], torch.zeros(1, 1, dtype=torch.int64))))
        model.predictor.logit.bias.sub_(logits.quantile(26.5 / 40))
    return model


@st.composite
def models(draw: st.DrawFn) -> Dynamic:
    """Empty towers too, either kind of positions, heads whose width is padded."""
    first, middle, last = (draw(st.integers(0, 2)) for _ in range(3))
    return dynamic(
        f"{first}@1 {middle + (first + last == 0)}@~3 {last}@1",
        draw(st.integers(0, 9)),
        positions=draw(st.sampled_from(["rotary", "learned"])),
        head_dim=draw(st.sampled_from([6, 8, 10])),
        tie_embeddings=draw(st.booleans()),
    )


@given(models(), st.integers(1, 30))
def test_the_full_forward_is_the_definition(model: Dynamic, length: int) -> None:
    """Token by token, each sequence with boundaries of its own."""
    ids = random_ids(3, length)
    np.testing.assert_allclose(logits_of(model, ids), np.stack([_by_the_definition(model, row) for row in ids]), atol=TOLERANCE)


@torch.no_grad()
def _by_the_definition(model: Dynamic, ids: np.ndarray) -> np.ndarray:
    """Logits `[L, V]` of one sequence."""
    positions = torch.arange(len(ids))[None]
    rows = model.pre(model.embed(torch.from_numpy(ids)[None], positions))[0]
    groups, served, open_rows = [model.null[0]], [], []
    for row in rows:
        open_rows.append(row)
        if model.predictor(row[None, None]).item() > 0:
            groups.append(torch.stack(open_rows).mean(0))
            open_rows = []
        served.append(len(groups) - 1)
    coarse = model.middle(torch.stack(groups)[None])[0]
    return model.head(model.post((rows + coarse[served])[None]))[0].numpy()


@given(models(), st.lists(st.integers(1, 19), min_size=1, max_size=5))
def test_any_way_of_cutting_a_sequence_gives_the_logits_of_the_whole(model: Dynamic, chunks: list[int]) -> None:
    """Prefill of any length, one token or many."""
    ids, session = random_ids(1, sum(chunks)), torch_session(model)
    parts = np.split(ids, np.cumsum(chunks)[:-1], axis=1)
    found = np.concatenate([session.advance(part) for part in parts], 1)
    np.testing.assert_allclose(found, logits_of(model, ids), atol=TOLERANCE)


@given(models(), paths)
def test_a_session_may_go_anywhere(model: Dynamic, path: list[tuple[str, int]]) -> None:
    """Back, to a copy of an earlier moment, and apart."""
    walk = Walk(torch_session(model), lambda ids: logits_of(model, ids))
    for step, tokens in path:
        walk.take(step, tokens)


@given(models(), st.integers(1, 30))
def test_a_prefix_has_the_logits_of_the_whole(model: Dynamic, length: int) -> None:
    """A span that is not over is seen by nobody."""
    check_prefix(model, 31, length, TOLERANCE)


@given(models(), st.integers(0, 30))
def test_no_token_changes_the_logits_before_it(model: Dynamic, place: int) -> None:
    """Whether it ends a span or not."""
    check_causality(model, 31, place, TOLERANCE)


def test_what_the_stages_read() -> None:
    """The boundary logit is the last column of the first tower's rows; the middle fires once before there is any token."""
    stages = {stage.spec.name: stage.spec for stage in dynamic().stages()}
    assert list(stages) == ["pre", "middle", "post"]
    assert stages["pre"].width == 25
    middle = stages["middle"]
    assert middle.clock == ClockSpec(stage="pre", threshold=0.0, tokens_per_firing=3.0)
    assert (middle.fires, middle.stride, middle.layers) == ("ahead", 1, 2)
    assert middle.inputs == (InputSpec(kind="window", source="pre", width=25, reads="span"),)
    assert stages["post"].inputs == (
        InputSpec(kind="stream", source="pre", width=25),
        InputSpec(kind="context", source="middle", width=24, reads="newest"),
    )


def test_the_middle_fires_where_the_model_says() -> None:
    """Once more than there are boundaries."""
    model, ids = dynamic(), random_ids(1, 60)
    session = torch_session(model)
    session.advance(ids)
    boundaries = int(model.boundaries(torch.from_numpy(ids)).sum())
    assert 5 < boundaries < 55
    assert session.fires == {"pre": 60, "middle": boundaries + 1, "post": 60}


def test_stages_share_the_models_weights() -> None:
    """Splitting copies nothing."""
    model = dynamic()
    parameters = {id(parameter) for parameter in model.parameters()}
    assert {id(parameter) for stage in model.stages() for parameter in stage.module.parameters()} == parameters


class TestTraining:
    """What happens in training alone."""

    def test_the_share_of_boundaries_is_the_wanted_one(self) -> None:
        """Of a batch as a whole, whatever the weights; the kept bias goes there step by step."""
        predictor, rows = BoundaryPredictor(24, 1e-5, 4.0), torch.randn(3, 40, 24) + 1
        with torch.no_grad():
            predictor.logit.weight.normal_()
            estimates = predictor.estimate(rows)
        for _ in range(200):
            assert int((estimates + predictor.aim(estimates) > 0).sum()) == 30
        assert abs(int((predictor(rows) > 0).sum()) - 30) <= 1

    def test_with_the_bias_of_the_batch_the_forward_is_the_same(self) -> None:
        """Up to ties at the threshold."""
        model, ids = dynamic(), torch.from_numpy(random_ids(2, 40))
        with torch.no_grad():
            model.aim(ids)
            expected, _ = model.forward_to_train(ids)
            np.testing.assert_allclose(model(ids), expected, atol=TOLERANCE)

    def test_the_estimates_learn_entropies_and_the_bias_nothing(self) -> None:
        """What is added to the loss is no gradient for the last tower, which can't make text more certain."""
        model, ids = dynamic(), torch.from_numpy(random_ids(2, 40))
        logits, extra = model.forward_to_train(ids)
        extra.backward()  # type: ignore[no-untyped-call]
        chances = logits.detach().softmax(-1)
        expected = -(chances * chances.log()).sum(-1)
        with torch.no_grad():
            estimates = model.predictor.estimate(model.pre(model.embed(ids, torch.arange(40)[None])))[:, :, 0]
        torch.testing.assert_close(extra.detach(), 0.1 * (estimates - expected).var(correction=0))
        weight, bias = model.predictor.logit.weight, model.predictor.logit.bias
        assert weight.grad is not None
        assert weight.grad.abs().max() > 0
        assert bias.grad is None
        assert model.head.norm.weight.grad is None

    def test_rows_that_are_aimed_at_have_the_wanted_share_at_once(self) -> None:
        """For weights that were never trained."""
        model, ids = dynamic(), torch.from_numpy(random_ids(3, 40))
        model.aim(ids)
        assert model.boundaries(ids).float().mean() == pytest.approx(1 / 3, abs=0.05)


def test_arithmetic_is_that_of_the_wanted_rate() -> None:
    """That of an Hourglass of the same stride, and the predictor's."""
    fixed = multiply_adds_per_token(random_model("1@1 6@5 1@1", positions="rotary"), 480)
    assert multiply_adds_per_token(dynamic("1@1 6@~5 1@1"), 480) == pytest.approx(fixed + 24 + 24 / 5)


@pytest.mark.parametrize("hierarchy", ["1@1 2@4 1@1", "2@~4", "1@1 2@~4 1@2", "1@~2 2@~4 1@1", "1@1 2@~1 1@1", "1@1 2@~4"])
def test_a_hierarchy_without_one_middle_that_the_data_decides(hierarchy: str) -> None:
    """Is refused, and a right one shown."""
    with pytest.raises(ConfigError, match='there must be three levels.*write for instance "1@1 6@~5 1@1"'):
        random_model(hierarchy, architecture="dynamic")


@pytest.mark.parametrize(
    ("hierarchy", "architecture"), [("1@1 2@~4 1@1", "hourglass"), ("3@~4", "hourglass"), ("3@~4", "retina")]
)
def test_others_have_strides_alone(hierarchy: str, architecture: str) -> None:
    """No layers of theirs fire where the data decides."""
    with pytest.raises(ConfigError, match="the data decides when layers fire in dynamic models alone, got [23]@~4"):
        random_model(hierarchy, architecture=architecture)


def test_there_is_one_way_of_pooling() -> None:
    """Spans have no fixed length that weights could be for."""
    with pytest.raises(ConfigError, match='shortening of a dynamic model must be "average", got "linear"'):
        dynamic(shortening="linear")


def test_a_checkpoint_is_the_model(tmp_path: Path) -> None:
    """Saved in fp32 and loaded again, the logits are the same."""
    model, ids = dynamic(), random_ids(1, 30)
    save_checkpoint(model, tmp_path, torch.float32)
    np.testing.assert_array_equal(logits_of(load_model(tmp_path).model, ids), logits_of(model, ids))


def test_a_description_says_what_it_is() -> None:
    """The stride that the data decides is a number to expect."""
    described = dynamic().describe()
    assert (described.architecture, described.hierarchy) == ("dynamic", "1@1 2@~3 1@1")


@pytest.mark.parametrize("kind", KINDS)
def test_engines_of_all_kinds(kind: str, family: Callable[..., FamilyEngines]) -> None:
    """Exact ones, quantised ones, and those that TensorRT-RTX builds."""
    family("dynamic", lambda: dynamic(head_dim=10)).check(kind)
