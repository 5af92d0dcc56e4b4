"""The retina multi-scale model: what it sees sharply and what it sees blurred, and that its stages are the full forward."""

from __future__ import annotations

import json
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

from foveal import ConfigError, InputError
from foveal.models.checkpoint import save_checkpoint
from foveal.models.readers.loading import load_model
from foveal.models.retina.compaction import Compaction, Periphery
from foveal.models.retina.model import Retina

TOLERANCE = 2e-5
SMALL = Compaction(page=8, poolings=(2, 4, 8), spans=(8, 16))


def retina(hierarchy: str = "2@1", seed: int = 0, compaction: Compaction = SMALL, **choices: Any) -> Retina:
    """A small model; every zone of its past is reached within 96 tokens."""
    model = random_model(hierarchy, seed, architecture="retina", compaction=compaction, **choices)
    assert isinstance(model, Retina)
    return model


@st.composite
def models(draw: st.DrawFn) -> Retina:
    """Pages of 4 to 12 tokens, one to three poolings, spans of one or two pages."""
    poolings = draw(st.sampled_from([(2,), (4,), (2, 4)]))
    page = draw(st.sampled_from([4, 8, 12]))
    spans = tuple(page * draw(st.integers(1, 2)) for _ in poolings[1:])
    return retina(
        f"{draw(st.integers(1, 3))}@1",
        draw(st.integers(0, 99)),
        draw(st.sampled_from([SMALL, Compaction(page=page, poolings=poolings, spans=spans)])),
        head_dim=draw(st.sampled_from([6, 8, 10])),
    )


@given(models(), st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(1, 2))
def test_the_stages_are_the_full_forward(model: Retina, chunks: list[int], batch: int) -> None:
    """In chunks of any sizes, which cross pages as they like."""
    session = torch_session(model, batch)
    chunks = [chunk for place, chunk in enumerate(chunks) if sum(chunks[: place + 1]) <= session.capacity]
    ids = random_ids(batch, sum(chunks))
    parts = np.split(ids, np.cumsum(chunks)[:-1], axis=1)
    found = np.concatenate([session.advance(part) for part in parts], 1)
    np.testing.assert_allclose(found, logits_of(model, ids), atol=TOLERANCE)


@given(models(), st.data())
def test_a_prefix_has_the_logits_of_the_whole(model: Retina, data: st.DataObject) -> None:
    """Of any length."""
    length = data.draw(st.integers(1, 90))
    prefix = data.draw(st.integers(1, length))
    check_prefix(model, length, prefix, TOLERANCE)


@given(models(), st.data())
def test_no_token_changes_the_logits_before_it(model: Retina, data: st.DataObject) -> None:
    """A page is pooled when all of it is there."""
    length = data.draw(st.integers(2, 90))
    changed = data.draw(st.integers(1, length - 1))
    check_causality(model, length, changed, TOLERANCE)


# Token 92 of SMALL is in page 11: pages 10 and 11 are fine (from 80 on), 9 is pooled by 2 (from 72), 7 and 8 by 4 (from 56).
@pytest.mark.parametrize(
    ("first", "second", "is_seen"),
    [
        (79, 80, True),
        (78, 79, False),
        (77, 78, True),
        (72, 73, False),
        (71, 72, True),
        (68, 71, False),
        (59, 60, True),
        (56, 59, False),
        (55, 56, True),
        (48, 55, False),
        (47, 48, True),
        (0, 7, False),
    ],
)
def test_the_order_of_words_that_share_a_row_is_not_seen(first: int, second: int, is_seen: bool) -> None:
    """One layer, without positions: two words that change places are told apart only if they are pooled into different rows."""
    model = retina("1@1")
    with torch.no_grad():
        assert model.embed.positions is not None
        model.embed.positions.weight.zero_()
    ids = random_ids(1, 93)
    ids[0, [first, second]] = 3, 5
    other = ids.copy()
    other[0, [first, second]] = 5, 3
    change = np.abs(logits_of(model, ids) - logits_of(model, other))[0, 92].max()
    assert change > 1e-4 if is_seen else change < TOLERANCE


@pytest.mark.parametrize("reached", range(1, 60))
def test_a_page_and_a_token_can_be_taken_back_from_anywhere(reached: int) -> None:
    """Their rows, and the pooled rows that stood for what is older, are all still there."""
    model = retina("1@1")
    session, ids = torch_session(model), random_ids(1, 90)
    session.advance(ids[:, :reached])
    session.rewind(min(reached, 9))
    start = session.position
    other = random_ids(1, 90 - start, seed=1)
    expected = logits_of(model, np.concatenate([ids[:, :start], other], 1))[:, start:]
    np.testing.assert_allclose(session.advance(other), expected, atol=TOLERANCE)


def test_more_can_not_be_taken_back() -> None:
    """But all."""
    session = torch_session(retina())
    session.advance(random_ids(1, 41))
    with pytest.raises(InputError, match="can't rewind to 31 tokens: the model compacts its past"):
        session.rewind(10)
    session.rewind(41)
    assert session.position == 0


def test_stages() -> None:
    """What compacts comes first, has no weights, fires when a page begins, and each borrows the caches of the other."""
    compact, layers = (stage.spec for stage in retina().stages())
    assert (compact.name, compact.stride, compact.fires, compact.parameters, compact.page) == ("compact", 8, "open", 0, 8)
    assert (layers.name, layers.stride, layers.output, layers.page, layers.rewinds) == ("1", 1, "logits", 8, 9)
    assert tuple(borrowed.cache for borrowed in compact.borrows) == layers.caches
    assert tuple(borrowed.cache for borrowed in layers.borrows) == compact.caches
    kept = {cache.name: (cache.rows, cache.keeps) for cache in (*layers.caches, *compact.caches)}
    assert (kept["0.key"], kept["0.key.2"], kept["1.value.4"], kept["1.value.8"]) == (
        (1, 24),  # three pages of 8
        (4, 12),  # ages 0 and 1, and one to take back
        (2, 10),  # ages 0 to 3, and one to take back
        (1, None),  # all
    )


def test_a_compaction_says_which_page_it_was_of() -> None:
    """The first firing has none."""
    session = torch_session(retina(), batch=2)
    session.advance(random_ids(2, 20))
    assert session.fires == {"compact": 3, "1": 20}
    assert session.output_rows("compact").tolist() == [[[-1.0]] * 2, [[0.0]] * 2, [[1.0]] * 2]


@pytest.mark.parametrize("tokens", [1, 8, 9, 96])
def test_the_memory_that_it_needs_is_reported(tokens: int) -> None:
    """In rows of keys of one layer, as the session allocates them."""
    model = retina()
    session = torch_session(model, capacity=tokens)
    caches = 2 * 2 * 3 * 8 * 4 * model.kv_rows(tokens)  # layers, keys and values, heads, width, bytes
    pages = 4 * -(-tokens // 8)  # a number for each, which nobody reads
    assert session.state_bytes["1"] + session.state_bytes["compact"] == caches + pages


def test_memory_grows_by_a_row_for_64_tokens() -> None:
    """From the usual compaction on; a vanilla cache would have as many rows as there are tokens."""
    assert [Compaction().kept_rows(tokens) for tokens in (512, 1024, 16384)] == [296, 304, 544]


def test_the_usual_periphery() -> None:
    """Two pages of 64 tokens pooled by 4, four by 16, and the rest by 64."""
    assert Compaction().peripheries == (
        Periphery(pooling=4, rows=16, newest=1, oldest=2),
        Periphery(pooling=16, rows=4, newest=3, oldest=6),
        Periphery(pooling=64, rows=1, newest=7, oldest=None),
    )


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ({"page": 24}, r"each divide the page, got poolings \[4, 16, 64\] and a page of 24; give for instance"),
        ({"poolings": (4, 4, 64)}, r"poolings must grow from 2 or more and each divide the page, got poolings \[4, 4, 64\]"),
        ({"poolings": (1, 4, 64)}, r"got poolings \[1, 4, 64\]"),
        ({"poolings": (), "spans": ()}, r"got poolings \[\]"),
        ({"page": 0}, "a page of 0"),
        ({"spans": (128,)}, r"whole pages of 64 tokens, one for each of 3 poolings but the last, got \[128\]"),
        ({"spans": (128, 200)}, r"got \[128, 200\]"),
        ({"spans": (0, 64)}, r"got \[0, 64\]"),
    ],
)
def test_sizes_that_do_not_divide_each_other(sizes: dict[str, Any], reason: str) -> None:
    """The message gives both numbers."""
    with pytest.raises(ConfigError, match=reason):
        Compaction(**sizes)


@pytest.mark.parametrize(
    ("hierarchy", "choices", "reason"),
    [
        ("2@1 2@4 2@1", {}, r'one level, at factor 1, got \[1, 4, 1\]; write for instance "6@1"'),
        ("2@1", {"positions": "rotary"}, 'positions of a retina model must be "learned", got "rotary"'),
        ("2@1", {"shortening": "linear"}, 'shortening of a retina model must be "average", got "linear"'),
        ("2@1", {"architecture": "hourglass"}, 'got a compaction for architecture "hourglass"'),
    ],
)
def test_choices_that_it_does_not_have(hierarchy: str, choices: dict[str, Any], reason: str) -> None:
    """Are refused where they are made."""
    with pytest.raises(ConfigError, match=reason):
        random_model(hierarchy, **{"architecture": "retina", "compaction": SMALL, **choices})


def test_it_is_built_of_its_own_configuration_only() -> None:
    """Of another, there is no compaction."""
    with pytest.raises(ConfigError, match='expected a configuration of a retina model, got the architecture "hourglass"'):
        Retina(random_model("1@1").config)


def test_a_checkpoint_is_the_model(tmp_path: Path) -> None:
    """Its configuration says how it compacts; that of other models does not mention it."""
    model, ids = retina(), random_ids(1, 90)
    save_checkpoint(model, tmp_path, torch.float32)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["compaction"] == {"page": 8, "poolings": [2, 4, 8], "spans": [8, 16]}
    np.testing.assert_array_equal(logits_of(load_model(tmp_path).model, ids), logits_of(model, ids))
    save_checkpoint(random_model("1@1"), tmp_path)
    assert "compaction" not in json.loads((tmp_path / "config.json").read_text())


def test_a_compaction_that_is_not_given_is_the_usual_one() -> None:
    """And is written down."""
    assert random_model("1@1", architecture="retina").config.compaction == Compaction()


@pytest.mark.parametrize("kind", KINDS)
def test_engines_of_all_kinds(kind: str, family: Callable[..., FamilyEngines]) -> None:
    """Exact ones, quantised ones, and those that TensorRT-RTX builds."""
    family("retina", lambda: retina(head_dim=10)).check(kind)
