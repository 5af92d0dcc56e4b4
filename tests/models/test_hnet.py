"""H-Net: chunks that the model makes itself, and a streaming form that gives the same logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from exactness import Walk, paths
from family_engines import KINDS, FamilyEngines
from hypothesis import given, reject
from hypothesis import strategies as st
from specimens import random_ids
from torch_sessions import check_causality, check_prefix, logits_of, shake, torch_session

from foveal import ConfigError
from foveal.contract import ClockSpec, InputSpec
from foveal.models.cache import StageState
from foveal.models.hnet.config import HNetConfig, ScaleConfig
from foveal.models.hnet.model import HNet
from foveal.models.hnet.router import Router, begins
from foveal.models.hnet.smoothing import smooth, smooth_step
from foveal.runtime.rows import Array

TOLERANCE = 5e-5
LEAST_MARGIN = 1e-5
"""Of chances from a half: nearer ones may fall to either side, by the order of sums."""
ONE = ("m1", "T2", "M1")
TWO = ("m1", "T1m1", "t1", "m1T1", "m1")
PLAIN = ("T1", "t1", "T1")


def random_model(layouts: tuple[str, ...] = ONE, seed: int = 0, **changes: Any) -> HNet:
    """Of towers in dataflow order; inner scales are wider, and see windows."""
    depth = len(layouts) // 2
    towers = [(layouts[place], layouts[-1 - place]) for place in range(depth)] + [(layouts[depth],)]
    scales = tuple(
        ScaleConfig(towers=pair, dim=32 + 16 * place, heads=2, ff_dim=40, rotary_dims=8, window=(None, 5, 4)[place])
        for place, pair in enumerate(towers)
    )
    sizes = {"vocab_size": 41, "state": 5, "expand": 4, "context": 96}
    model = HNet(HNetConfig(scales=scales, **{**sizes, **changes}))
    shake(model, seed)
    return model


def clear_logits(model: HNet, ids: Array) -> Array:
    """The full forward, of sequences in which no chance is too near a half to be told from it."""
    with torch.no_grad():
        if any((chances - 0.5).abs().min() < LEAST_MARGIN for chances in model.chances(torch.from_numpy(ids))):
            reject()
    return logits_of(model, ids)


layouts = st.sampled_from([ONE, TWO, PLAIN, ("M1", "m1", "t1m1"), ("m1", "m1", "M1", "T1", "m1")])


@given(layouts, st.integers(0, 9), st.lists(st.integers(1, 23), min_size=1, max_size=6))
def test_any_way_of_cutting_a_sequence_gives_the_logits_of_the_whole(
    layouts: tuple[str, ...], seed: int, chunks: list[int]
) -> None:
    """One and two routers, towers with states and without."""
    model = random_model(layouts, seed)
    ids = random_ids(1, min(sum(chunks), 96), seed=seed)
    expected, session = clear_logits(model, ids), torch_session(model, capacity=96)
    parts = np.split(ids, [end for end in np.cumsum(chunks) if end < ids.shape[1]], axis=1)
    found = [session.advance(part) for part in parts]
    np.testing.assert_allclose(np.concatenate(found, 1), expected, atol=TOLERANCE)


@given(layouts, paths)
def test_a_session_may_go_anywhere(layouts: tuple[str, ...], path: list[tuple[str, int]]) -> None:
    """Back, to a copy of an earlier moment, and apart; and on with other tokens, whose chunks begin elsewhere."""
    model = random_model(layouts)
    walk = Walk(torch_session(model, capacity=96), lambda ids: clear_logits(model, ids))
    for step, tokens in path:
        walk.take(step, tokens)


@given(st.integers(0, 99), st.integers(2, 5))
def test_sequences_of_a_batch_have_chunks_of_their_own(seed: int, batch: int) -> None:
    """The shorter ones are filled up with rows that nobody sees."""
    model, ids = random_model(TWO), random_ids(batch, 40, seed=seed)
    expected = [clear_logits(model, sequence[None]) for sequence in ids]
    np.testing.assert_allclose(logits_of(model, ids), np.concatenate(expected), atol=TOLERANCE)


@pytest.mark.parametrize("layouts", [ONE, TWO])
@pytest.mark.parametrize("prefix", [1, 2, 5, 20, 39])
def test_a_prefix_has_the_logits_of_the_whole(layouts: tuple[str, ...], prefix: int) -> None:
    """No row looks ahead to see where its chunk ends."""
    check_prefix(random_model(layouts), 40, prefix, TOLERANCE)


@pytest.mark.parametrize("layouts", [ONE, TWO])
@pytest.mark.parametrize("place", [0, 1, 7, 39])
def test_a_token_changes_logits_from_its_own_on(layouts: tuple[str, ...], place: int) -> None:
    """And none before."""
    check_causality(random_model(layouts), 40, place, TOLERANCE)


def test_a_chunk_begins_at_a_row_unlike_the_one_before() -> None:
    """The first always; the opposite surely; the same never, nor a right angle."""
    router = Router(2)
    rows = torch.tensor([[[1.0, 0.0], [3.0, 0.0], [-2.0, 0.0], [0.0, 5.0]]])
    chances = router(rows)
    torch.testing.assert_close(chances, torch.tensor([[1.0, 0.0, 1.0, 0.5]]))
    assert begins(chances).tolist() == [[True, False, True, False]]


def test_rows_are_mixed_with_those_before() -> None:
    """By the chance of each, which is kept away from 0 and 1."""
    mixed = smooth(torch.tensor([[[4.0], [8.0], [2.0]]]), torch.tensor([[1.0, 0.75, 0.5]]))
    first = 4 * (1 - 1e-4)
    torch.testing.assert_close(mixed[0, :, 0], torch.tensor([first, 6 + first / 4, 1 + (6 + first / 4) / 2]))


@pytest.mark.parametrize("rows", [1, 64, 400])
def test_rows_mixed_at_once_are_those_mixed_one_by_one(rows: int) -> None:
    """However many: nothing is lost behind what came long before."""
    model = random_model(("T1", "t1", "T1"))
    main = model.stages()[1]
    generator = torch.Generator().manual_seed(0)
    z, chances = torch.randn(1, rows, 32, generator=generator), torch.rand(1, rows, generator=generator) / 2 + 0.5
    state = StageState(main.spec, 1, rows)
    state.begin(0)
    found = smooth_step(z, chances, main.module.last, state)
    torch.testing.assert_close(found, smooth(z, chances), rtol=0, atol=2e-6)


def test_what_its_stages_read_and_when_they_fire() -> None:
    """The picked row; the newest smoothed one; inner decoders with their encoders."""
    specs = {stage.spec.name: stage.spec for stage in random_model(TWO, chunk=3.0).stages()}
    assert list(specs) == ["encoder.0", "encoder.1", "main", "decoder.1", "decoder.0"]
    outer = ClockSpec(stage="encoder.0", threshold=0.5, firsts=1, tokens_per_firing=3.0)
    inner = ClockSpec(stage="encoder.1", threshold=0.5, firsts=1, tokens_per_firing=9.0)
    assert [spec.clock for spec in specs.values()] == [None, outer, inner, outer, None]
    assert specs["encoder.1"].inputs == (InputSpec(kind="window", source="encoder.0", width=33, reads="newest"),)
    assert specs["main"].inputs == (InputSpec(kind="window", source="encoder.1", width=50, reads="newest"),)
    assert specs["decoder.1"].inputs == (
        InputSpec(kind="context", source="main", width=48, reads="newest"),
        InputSpec(kind="stream", source="encoder.1", width=50),
    )
    assert specs["decoder.0"].inputs == (
        InputSpec(kind="context", source="decoder.1", width=32, reads="newest"),
        InputSpec(kind="stream", source="encoder.0", width=33),
    )


def test_what_its_stages_remember() -> None:
    """The last row is a state where there are states anyway, and a cache where a rewind is to run nothing again."""
    first, inner, main, up, last = (stage.spec for stage in random_model(TWO).stages())
    states = ["0.window", "0.memory"]
    assert [cache.name for cache in first.caches] == [*states, "query"]
    assert [cache.name for cache in inner.caches] == ["0.key", "0.value", "1.window", "1.memory", "query"]
    assert [cache.name for cache in main.caches] == ["0.key", "0.value", "smooth"]
    assert [cache.name for cache in up.caches] == [*states, "1.key", "1.value", "smooth"]
    assert [cache.name for cache in last.caches] == states
    assert [spec.is_recurrent for spec in (first, inner, main, up, last)] == [True, True, False, True, True]
    assert not any(stage.spec.is_recurrent for stage in random_model(PLAIN).stages())


def test_stages_share_the_models_weights() -> None:
    """Each belongs to one of them."""
    model = random_model(TWO)
    stages = model.stages()
    held = [id(parameter) for stage in stages for parameter in stage.module.parameters()]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())
    assert sum(stage.spec.parameters for stage in stages) == sum(parameter.numel() for parameter in model.parameters())


def test_a_tied_head() -> None:
    """Its weights are the token table."""
    model = random_model(tied=True)
    assert model.exit.logits.weight is model.embed.weight


def test_what_it_says_of_itself() -> None:
    """Layers and strides, those of inner scales an expectation."""
    described = random_model(TWO, chunk=3.0).describe()
    assert (described.architecture, described.hierarchy) == ("hnet", "1@1 2@~3 1@~9 2@~3 1@1")
    assert (described.vocab_size, described.dim, described.max_positions, described.context) == (41, 32, None, 96)
    assert random_model().describe().hierarchy == "1@1 2@~4.5 1@1"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"vocab_size": 0}, "vocab_size must be at least 1, got 0"),
        ({"scales": ()}, "an H-Net has at least 2 scales, got 0"),
        ({"scales": (ScaleConfig(towers=("m1",), dim=32),) * 2}, "scale 0 has 1 towers, expected 2"),
        ({"chunk": 0.5}, "chunk must be at least 1, got 0.5"),
    ],
)
def test_sizes_that_can_not_be(changes: dict[str, Any], reason: str) -> None:
    """Refused by name."""
    with pytest.raises(ConfigError, match=reason):
        HNetConfig(**{"vocab_size": 41, "scales": random_model().config.scales, **changes})


MODELS: dict[str, Callable[[], HNet]] = {"one router": random_model, "two routers": lambda: random_model(TWO)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_engines(name: str, kind: str, family: Callable[..., FamilyEngines]) -> None:
    """Of every kind that every family has."""
    family(f"hnet, {name}", MODELS[name]).check(kind)
