"""BLT: patches that end where the data says so, and a streaming form that gives the logits of the whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from blt_models import SIZES, random_model
from exactness import Walk, paths
from family_engines import KINDS, FamilyEngines
from hypothesis import given
from hypothesis import strategies as st
from specimens import random_ids
from torch_sessions import logits_of, torch_session

from foveal import ConfigError
from foveal.contract import ClockSpec
from foveal.models.blt.boundaries import SpaceRule
from foveal.models.blt.config import PRIMES, BltConfig
from foveal.models.blt.hash_embed import HashEmbed
from foveal.models.blt.model import Blt

TOLERANCE = 2e-5
RULES = ["entropy", "space", "fixed:1", "fixed:4"]
rules = st.sampled_from(RULES)
shares = st.sampled_from([0.0, 0.5, 0.75, 1.0])
"""Of entropies that are below the threshold: every byte a patch, and none but the first."""


@given(rules, shares, st.integers(0, 3), st.lists(st.integers(1, 19), min_size=1, max_size=5))
def test_any_way_of_cutting_a_text_gives_the_logits_of_the_whole(rule: str, share: float, seed: int, chunks: list[int]) -> None:
    """Calls that end anywhere in a patch, with any number of patches in each."""
    model = random_model(rule, share, seed)
    ids = random_ids(1, sum(chunks), 260, seed)
    session = torch_session(model)
    found = [session.advance(part) for part in np.split(ids, np.cumsum(chunks)[:-1], axis=1)]
    np.testing.assert_allclose(np.concatenate(found, 1), logits_of(model, ids), atol=TOLERANCE)


@given(rules, st.sampled_from([0.5, 0.75]), paths)
def test_a_session_may_go_anywhere(rule: str, share: float, path: list[tuple[str, int]]) -> None:
    """Back, and then on with other bytes that end other patches; to a copy of an earlier moment; and apart."""
    model = random_model(rule, share)
    walk = Walk(torch_session(model), lambda ids: logits_of(model, ids))
    for step, tokens in path:
        walk.take(step, tokens)


@given(rules, shares, st.integers(0, 3))
def test_sequences_of_a_batch_have_patches_of_their_own(rule: str, share: float, seed: int) -> None:
    """Each has the logits that it has alone."""
    model, ids = random_model(rule, share, seed), random_ids(3, 40, 260, seed)
    alone = np.concatenate([logits_of(model, ids[index : index + 1]) for index in range(3)])
    np.testing.assert_allclose(logits_of(model, ids), alone, atol=TOLERANCE)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 8, 21])
def test_a_prefix_has_the_logits_of_the_whole(rule: str, length: int) -> None:
    """Nothing looks ahead, in a patch that has not ended least of all."""
    model, ids = random_model(rule), random_ids(2, 22, 260)
    np.testing.assert_allclose(logits_of(model, ids[:, :length]), logits_of(model, ids)[:, :length], atol=TOLERANCE)


@pytest.mark.parametrize("place", [0, 3, 9, 21])
def test_a_byte_changes_logits_from_its_own_on(place: int) -> None:
    """Its own row, and none before."""
    model, ids = random_model(), random_ids(1, 22, 260)
    changed = ids.copy()
    changed[0, place] = (changed[0, place] + 1) % 260
    difference = np.abs(logits_of(model, ids) - logits_of(model, changed)).max(-1)[0]
    assert (difference[:place] < TOLERANCE).all()
    assert difference[place] > 1e-3


@given(
    st.lists(st.integers(1, 16), min_size=1, max_size=4),
    st.integers(1, len(PRIMES) + 2),
    st.integers(1, 500_002),
    st.lists(st.integers(0, 259), min_size=1, max_size=20),
)
def test_hashes_are_those_of_exact_arithmetic(sizes: list[int], functions: int, rows: int, ids: list[int]) -> None:
    """Whole numbers of any size, cut to 64 bits with a sign at the end; the remainder is never negative."""
    embed = HashEmbed(BltConfig(**{**SIZES, "hash_sizes": tuple(sizes), "hash_functions": functions, "hash_rows": 1}))
    embed.rows = rows
    windows = torch.tensor([[[0] * (embed.window - 1) + ids]]).unfold(2, embed.window, 1)[:, 0]
    found = embed.places(windows) - embed.first_rows
    for place in range(len(ids)):
        expected = []
        for function in range(functions):
            for size in sizes:
                group = ([0] * size + ids)[place + 1 : place + 1 + size]
                total = sum(id * PRIMES[function % len(PRIMES)] ** power for power, id in enumerate(group)) % 2**64
                expected.append((total - 2**64 if total >= 2**63 else total) % rows)
        assert found[0, place].tolist() == expected


@given(st.text(max_size=12), st.lists(st.integers(0, 3), max_size=2))
def test_spaces_end_patches_as_in_the_original(text: str, special: list[int]) -> None:
    """After a byte that is no part of a word, but once for several of them; and after each special id."""
    ids = [*special, *(byte + 4 for byte in text.encode()), *special, 4 + ord("a"), 4 + ord(" "), 4 + ord(".")]
    word = {4 + byte for byte in b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"} | set(range(132, 196))
    expected = [id < 4 or (id not in word and (place == 0 or ids[place - 1] in word)) for place, id in enumerate(ids)]
    given_ids = torch.tensor([ids])
    before = torch.cat([torch.full((1, 1), 4 + ord("a")), given_ids[:, :-1]], 1)
    assert SpaceRule()(before, given_ids)[0].bool().tolist() == expected


def test_when_its_stages_fire() -> None:
    """All at each byte but the layers over patches, which fire when the patcher's row says so."""
    model = random_model()
    patcher, encoder, middle, decoder = (stage.spec for stage in model.stages())
    assert [spec.name for spec in (patcher, encoder, middle, decoder)] == ["patcher", "encoder", "global", "decoder"]
    assert [spec.clock for spec in (patcher, encoder, decoder)] == [None, None, None]
    threshold = model.config.threshold
    assert middle.clock == ClockSpec(stage="patcher", threshold=threshold, firsts=1, tokens_per_firing=4.5)
    assert (patcher.width, encoder.width, decoder.output) == (1, 24, "logits")
    ids = random_ids(1, 40, 260)
    session = torch_session(model)
    session.advance(ids)
    with torch.no_grad():
        ended = int(model.closes(torch.from_numpy(ids)).sum())
    assert 5 < ended < 20
    assert session.fires == {"patcher": 40, "encoder": 40, "global": ended, "decoder": 40}


@pytest.mark.parametrize(
    ("rule", "stages", "hierarchy"),
    [
        ("entropy", ["patcher", "encoder", "global", "decoder"], "1@1 1@1 2@~4.5 2@1"),
        ("space", ["spaces", "encoder", "global", "decoder"], "1@1 2@~6 2@1"),
        ("fixed:4", ["encoder", "global", "decoder"], "1@1 2@~4 2@1"),
    ],
)
def test_another_rule_needs_no_patcher(rule: str, stages: list[str], hierarchy: str) -> None:
    """Spaces are found by a stage without weights, patches of a fixed length by none."""
    model = random_model(rule)
    assert [stage.spec.name for stage in model.stages()] == stages
    described = model.describe()
    assert (described.architecture, described.hierarchy, described.vocab_size) == ("blt", hierarchy, 260)
    assert (described.dim, described.max_positions, described.context) == (24, None, 96)


def test_a_tied_head_is_the_encoder_s_table() -> None:
    """One matrix, which counts in both stages."""
    model = random_model(tied=True)
    assert model.decoder.head.logits.weight is model.embed.tokens.weight
    check = torch_session(model).advance(random_ids(1, 9, 260))
    np.testing.assert_allclose(check, logits_of(model, random_ids(1, 9, 260)), atol=TOLERANCE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_rows": 0}, "patch_rows must be at least 1, got 0"),
        ({"hash_functions": -1}, "hash_functions must be at least 0, got -1"),
        ({"hash_sizes": (3, 65)}, r"hash_sizes must be 1 to 64 bytes each, got \[3, 65\]"),
        ({"reads": 3}, "reads must be 1 or the decoder's 2 layers, got 3"),
        ({"decoder": SIZES["middle"]}, "of width 24, but is 32 wide"),
        ({"threshold": -0.1}, "threshold is -0.1 nats, expected 0 to 5.5607"),
        ({"threshold": 5.6}, "threshold is 5.6 nats, expected 0 to 5.5607: the entropy of 260 ids has no other values"),
        ({"threshold": float("nan")}, "threshold is nan nats"),
        ({"patcher": None}, 'boundaries "entropy" need a patcher; give one, or another rule'),
        ({"boundaries": "space"}, 'boundaries "space" need no patcher'),
        ({"boundaries": "words"}, 'boundaries are "words", expected "entropy", "space" or "fixed:" and a number of bytes'),
        ({"boundaries": "fixed:0"}, 'boundaries are "fixed:0", expected "fixed:" and the number of bytes of a patch'),
        ({"boundaries": "fixed:x"}, 'boundaries are "fixed:x", expected "fixed:" and the number of bytes of a patch'),
        ({"boundaries": "space", "vocab_size": 61}, 'boundaries "space" are a rule on 260 ids'),
    ],
)
def test_sizes_that_mean_nothing(changes: dict[str, Any], message: str) -> None:
    """Each is named, with what it is."""
    with pytest.raises(ConfigError, match=message):
        Blt(BltConfig(**{**SIZES, **changes}))


@pytest.mark.parametrize("kind", KINDS)
def test_engines_of_all_kinds(kind: str, family: Callable[..., FamilyEngines]) -> None:
    """Exact ones, quantised ones, and those that TensorRT-RTX builds."""
    family("blt", random_model).check(kind)


@pytest.mark.parametrize("rule", ["space", "fixed:4"])
def test_engines_of_other_rules_on_devices(rule: str, family: Callable[..., FamilyEngines]) -> None:
    """The stage that finds spaces has neither position nor state."""
    family(f"blt {rule.partition(':')[0]}", lambda: random_model(rule)).check("cuda")
