"""Dynamic token pooling: groups that close where the data says so, and stages that give the logits of the whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exactness import Walk, paths
from family_engines import CLOSE, KINDS, WALK, FamilyEngines
from hypothesis import given
from hypothesis import strategies as st
from pooling_reference import reference_logits
from specimens import random_ids
from torch_sessions import check_causality, check_prefix, logits_of, shake, torch_session

from foveal import CapacityError, ConfigError
from foveal.contract import BEGINNING, ClockSpec, InputSpec
from foveal.export import build
from foveal.models.dynamic_pooling.boundaries import pool, serve
from foveal.models.dynamic_pooling.config import DynamicPoolingConfig
from foveal.models.dynamic_pooling.model import DynamicPooling
from foveal.runtime import load

SIZES: dict[str, Any] = {"vocab_size": 41, "dim": 24, "heads": 3, "head_dim": 10, "ff_dim": 32, "context": 96}
TOLERANCE = 2e-5
SPACES = {"boundaries": "whitespaces", "ids": (3, 17, 20, 31)}
MODELS: dict[str, dict[str, Any]] = {
    "predicted": {"layers": (2, 2, 1), "boundaries": "entropy"},
    "predicted, layers inside only": {"layers": (0, 2, 0), "boundaries": "gumbel", "activation": "gelu"},
    "whitespaces": {"layers": (1, 2, 1), **SPACES},
    "whitespaces, no layers inside": {"layers": (1, 0, 1), "activation": "gelu", **SPACES},
    "fixed": {"layers": (1, 2, 1), "boundaries": "fixed", "stride": 3},
    "fixed, of one token": {"layers": (1, 1, 0), "boundaries": "fixed", "stride": 1, "activation": "gelu"},
    "vanilla": {"layers": (2, 0, 0), "boundaries": "none"},
}
models = st.sampled_from(list(MODELS))


def random_model(name: str, seed: int = 0, **changes: Any) -> DynamicPooling:
    """A small one of those above; its predicted boundaries are neither rare nor everywhere."""
    torch.manual_seed(seed)
    model = DynamicPooling(DynamicPoolingConfig(**{**SIZES, **MODELS[name], **changes}))
    shake(model, seed)
    if model.predictor is not None:
        with torch.no_grad():
            model.predictor.up.weight.mul_(4)
            rows = model.pre(model.embed(torch.arange(41)[:, None]), _Alone())
            logits = model.predictor(rows).logit()
            model.predictor.out.bias.sub_(logits.quantile(28.5 / 40))  # between two tokens, so that none is a tie
    return model


class _Alone:
    """The memory of rows that are all first ones."""

    def positions(self, rows: int) -> torch.Tensor:
        return torch.arange(rows)[None]

    def write(self, name: str, rows: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        return rows


@given(
    models, st.integers(0, 9), st.sampled_from([(3, 10), (2, 4), (1, 7)]), st.sampled_from(["relu", "gelu"]), st.integers(1, 30)
)
def test_the_full_forward_is_the_equations(name: str, seed: int, heads: tuple[int, int], activation: str, length: int) -> None:
    """Sequence by sequence, each with boundaries of its own."""
    model = random_model(name, seed, heads=heads[0], head_dim=heads[1], activation=activation)
    ids = random_ids(3, length, seed=seed)
    np.testing.assert_allclose(logits_of(model, ids), reference_logits(model, ids), atol=TOLERANCE)


@given(models, st.integers(0, 9), st.lists(st.integers(1, 19), min_size=1, max_size=5))
def test_any_way_of_cutting_a_sequence_gives_the_logits_of_the_whole(name: str, seed: int, chunks: list[int]) -> None:
    """Prefill of any length at any phase, one token or many; two sequences that close their groups at different tokens."""
    model, ids = random_model(name, seed), random_ids(2, sum(chunks), seed=seed)
    ends = np.cumsum(chunks)[:-1]
    sessions = [torch_session(model) for _ in ids]
    found = [
        np.concatenate([session.advance(part) for part in np.split(row[None], ends, axis=1)], 1)
        for session, row in zip(sessions, ids, strict=True)
    ]
    np.testing.assert_allclose(np.concatenate(found), logits_of(model, ids), atol=TOLERANCE)


@given(models, paths)
def test_a_session_may_go_anywhere(name: str, path: list[tuple[str, int]]) -> None:
    """Back, to a copy of an earlier moment, and apart."""
    model = random_model(name)
    walk = Walk(torch_session(model), lambda ids: logits_of(model, ids))
    for step, tokens in path:
        walk.take(step, tokens)


@given(models, st.integers(1, 30))
def test_a_prefix_has_the_logits_of_the_whole(name: str, length: int) -> None:
    """A group that is not closed is seen by nobody."""
    check_prefix(random_model(name), 31, length, TOLERANCE)


@given(models, st.integers(0, 30))
def test_a_token_changes_no_logits_before_it(name: str, place: int) -> None:
    """Whether it closes a group or not."""
    check_causality(random_model(name), 31, place, TOLERANCE)


def test_groups_end_with_their_boundary() -> None:
    """Means are those of closed groups; the boundary itself is served the group's row, tokens before the first one row 0."""
    rows = torch.arange(12.0).reshape(2, 6, 1)
    boundaries = torch.tensor([[0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]]).bool()
    assert pool(rows, boundaries)[0, :, 0].tolist() == [0.5, 2.0]
    coarse = torch.tensor([[[10.0], [11.0], [12.0]], [[20.0], [21.0], [22.0]]])
    assert serve(coarse, boundaries)[:, :, 0].tolist() == [[10, 11, 12, 12, 12, 12], [20] * 6]


def test_what_the_stages_of_predicted_boundaries_read() -> None:
    """The probability is the last column of the first tower's rows; the coarse tower fires once before there is any token."""
    stages = {stage.spec.name: stage.spec for stage in random_model("predicted").stages()}
    assert list(stages) == ["pre", "middle", "post"]
    assert stages["pre"].width == 25
    middle = stages["middle"]
    assert middle.clock == ClockSpec(stage="pre", threshold=0.5, tokens_per_firing=5.0)
    assert (middle.fires, middle.stride, middle.output_rows) == ("ahead", 1, 1)
    assert middle.inputs == (InputSpec(kind="window", source="pre", width=25, reads="span"),)
    assert stages["post"].inputs == (
        InputSpec(kind="stream", source="pre", width=25),
        InputSpec(kind="context", source="middle", width=24, reads="newest"),
    )
    assert [cache.name for cache in middle.caches] == [f"relative.{i}.{part}" for i in (0, 1) for part in ("key", "value")]


def test_whitespaces_are_ids() -> None:
    """No column is needed."""
    pre, middle, _ = (stage.spec for stage in random_model("whitespaces").stages())
    assert pre.width == 24
    assert middle.clock == ClockSpec(ids=(3, 17, 20, 31), tokens_per_firing=5.0)


def test_fixed_boundaries_are_a_stride() -> None:
    """From the first token on, so that the first group has one token; each row is handed to as many as a group has."""
    _, middle, post = (stage.spec for stage in random_model("fixed").stages())
    assert middle.clock is None
    assert middle.inputs == (InputSpec(kind="window", source="pre", count=3, shift=2, width=24),)
    assert (middle.fires, middle.stride, middle.output_rows) == ("open", 3, 3)
    assert middle.firings(BEGINNING, 8) == range(3)
    assert post.inputs[1] == InputSpec(kind="context", source="middle", width=24)


def test_a_vanilla_model_is_one_stage() -> None:
    """Of the first tower alone."""
    (stage,) = random_model("vanilla").stages()
    assert (stage.spec.name, stage.spec.output, stage.spec.layers) == ("1", "logits", 2)


@pytest.mark.parametrize("name", MODELS)
def test_stages_share_the_models_weights(name: str) -> None:
    """All but the projections of sinusoids, which are worked out into tables."""
    model = random_model(name)
    own = {id(parameter): name for name, parameter in model.named_parameters()}
    used = {own[id(parameter)] for stage in model.stages() for parameter in stage.module.parameters()}
    unused = {name for name in own.values() if name not in used and ".position." not in name}
    assert unused <= {"middle.null", "biases.context", "biases.location"}
    assert ("middle.null" in unused) == (model.config.boundaries == "fixed")


@pytest.mark.parametrize("name", ["predicted", "fixed"])
def test_tables_reach_as_far_as_the_context(name: str) -> None:
    """A session has no room for more; the full forward has."""
    model, ids = random_model(name, context=10), random_ids(1, 11)
    session = torch_session(model)
    np.testing.assert_allclose(session.advance(ids[:, :10]), logits_of(model, ids)[:, :10], atol=TOLERANCE)
    with pytest.raises(CapacityError, match="holds 10 of at most 10 tokens, got 1 more"):
        session.advance(ids[:, 10:])


def test_every_token_may_close_a_group() -> None:
    """And the coarse tower has room for as many."""
    model = random_model("whitespaces", context=12)
    ids = np.full((1, 12), 17)
    session = torch_session(model)
    np.testing.assert_allclose(session.advance(ids), logits_of(model, ids), atol=TOLERANCE)


@pytest.mark.parametrize(("name", "hierarchy"), [("predicted", "2@1 2@~5 1@1"), ("fixed", "1@1 2@3 1@1"), ("vanilla", "2@1")])
def test_what_it_says_of_itself(name: str, hierarchy: str) -> None:
    """A stride that the data decides is a number to expect."""
    described = random_model(name).describe()
    assert (described.architecture, described.hierarchy, described.vocab_size) == ("dynamic-pooling", hierarchy, 41)
    assert described.max_positions == described.context == 96


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("predicted", {"dim": 9}, "dim must be even, got 9"),
        ("predicted", {"heads": 0}, "heads must be at least 1, got 0"),
        ("predicted", {"layers": (2, 0, 0)}, r'\[2, 0, 0\] layers has the boundaries "entropy", expected layers of the first'),
        ("vanilla", {"layers": (2, 1, 0)}, r'\[2, 1, 0\] layers has the boundaries "none"'),
        ("vanilla", {"layers": (0, 0, 0)}, r"there must be layers, got \[0, 0, 0\]"),
        ("predicted", {"stride": 2}, '"fixed", and no others, have a stride, got 2 for "entropy"'),
        ("fixed", {"stride": None}, 'have a stride, got None for "fixed"'),
        ("fixed", {"stride": 0}, "the stride of fixed boundaries must be at least 1, got 0"),
        ("whitespaces", {"ids": ()}, r'"whitespaces", and no others, are at token ids, got \[\]'),
        ("predicted", {"ids": (1,)}, r'are at token ids, got \[1\] for "entropy"'),
        ("whitespaces", {"ids": (4, 41)}, r"the ids of boundaries must be in \[0, 41\), got \[4, 41\]"),
    ],
)
def test_sizes_that_mean_nothing(name: str, changes: dict[str, Any], reason: str) -> None:
    """Each is named, with what it is."""
    with pytest.raises(ConfigError, match=reason):
        DynamicPoolingConfig(**{**SIZES, **MODELS[name], **changes})


@pytest.mark.parametrize("kind", KINDS)
def test_engines_of_all_kinds(kind: str, family: Callable[..., FamilyEngines]) -> None:
    """Exact ones, quantised ones, and those that TensorRT-RTX builds."""
    family("dynamic pooling, fixed", lambda: random_model("fixed")).check(kind)


@pytest.mark.parametrize("name", ["predicted", "whitespaces"])
class TestWhereTheDataDecides:
    """Bundles of models whose groups close where the data says so, on the CPU."""

    def test_a_session_may_go_anywhere(self, name: str, family: Callable[..., FamilyEngines]) -> None:
        """With the logits of the full forward."""
        engines = family(f"dynamic pooling, {name}", lambda: random_model(name))
        walk = Walk(load(engines.full, threads=1).session(), lambda ids: logits_of(engines.model, ids))
        for step, tokens in (*WALK, ("fork", 0), ("advance", 5), ("rewind", 20), ("advance", 12)):
            walk.take(step, tokens)

    def test_sequences_of_a_batch_close_groups_of_their_own(self, name: str, family: Callable[..., FamilyEngines]) -> None:
        """As sessions of their own do."""
        family(f"dynamic pooling, {name}", lambda: random_model(name)).check("batch")

    @pytest.mark.parametrize("precision", ["w8", "w4"])
    def test_quantised_weights(self, name: str, precision: str, family: Callable[..., FamilyEngines], tmp_path: Path) -> None:
        """They may move boundaries that are predicted, so that the logits after those are others; one that ids decide never."""
        engines, ids = family(f"dynamic pooling, {name}", lambda: random_model(name)), random_ids(1, 61)
        built = build(engines.full, tmp_path / "b", precision, "cpu")
        got, expected = load(built, threads=1).session().advance(ids), logits_of(engines.model, ids)
        errors = np.sqrt(np.square(got - expected).mean(-1)).ravel() / expected.std()
        assert 0 < np.quantile(errors, 0.5) < CLOSE
        assert name == "predicted" or errors.max() < 2 * CLOSE
