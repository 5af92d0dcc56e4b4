"""Layers with every choice there is, step by step against whole sequences, and each choice against its definition."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from towers import DIM, LLAMA, MixedTower, layer_configs, stirred

from foveal.errors import ConfigError
from foveal.models.cache import StageState
from foveal.models.config import LayerConfig
from foveal.models.layers.attention import Attention
from foveal.models.layers.feed_forward import FeedForward
from foveal.models.layers.norm import norm_of
from foveal.models.layers.rotary import Rotary
from foveal.models.layers.stack import Stack

ROWS = 14


def like(**choices: object) -> LayerConfig:
    """Small layers that differ from the usual ones in so much."""
    return LayerConfig(**{"dim": DIM, "heads": 4, "head_dim": 8, "ff_dim": 16, **choices})


def rows(seed: int = 0, length: int = ROWS) -> torch.Tensor:
    return torch.randn(2, length, DIM, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
@settings(max_examples=60)
@given(layer_configs(), st.lists(st.integers(1, 6), min_size=1, max_size=ROWS))
def test_steps_of_any_sizes_are_the_whole_sequence(config: LayerConfig, chunks: list[int]) -> None:
    stack, x = stirred(Stack(config, 2)), rows()
    state, found, position = stack.init_state(2, ROWS), [], 0
    for count in chunks:
        part = x[:, position : position + count]
        if part.shape[1]:
            found.append(stack.step(part, state))
        position += count
    got = torch.cat(found, 1)
    expected = stack(x)[:, : got.shape[1]]
    torch.testing.assert_close(got, expected, atol=2e-5 * float(expected.abs().max()), rtol=0)


@torch.no_grad()
def test_a_row_sees_itself_and_those_before_it_in_the_window() -> None:
    attention, x = stirred(Attention(like(window=3))), rows()
    y = attention(x)
    for row in range(ROWS):
        alone = attention(x[:, max(row - 2, 0) : row + 1])
        torch.testing.assert_close(y[:, row], alone[:, -1], atol=1e-5, rtol=1e-5)
    changed = x.clone()
    changed[:, 4] += 1
    seen = [row for row in range(ROWS) if not torch.equal(attention(changed)[:, row], y[:, row])]
    assert seen == [4, 5, 6]


@torch.no_grad()
def test_heads_of_a_group_read_the_same_keys_and_values() -> None:
    """As layers do that have each of them as often as it is read."""
    grouped, usual = stirred(Attention(like(kv_heads=2))), Attention(like())
    query, key, value = grouped.qkv.weight.view(-1, 8, DIM).split([4, 2, 2])
    usual.qkv.weight.copy_(torch.cat((query, key.repeat_interleave(2, 0), value.repeat_interleave(2, 0))).flatten(0, 1))
    usual.out.load_state_dict(grouped.out.state_dict())
    torch.testing.assert_close(grouped(rows()), usual(rows()))


@pytest.mark.parametrize("dims", [None, 4])
@torch.no_grad()
def test_neighbours_turn_as_complex_numbers_do(dims: int | None) -> None:
    """RoFormer, equation 34: dimensions 2i and 2i + 1, by the angle position * base ** (-2i / dims)."""
    config = like(heads=1, rotary_base=100.0, rotary_dims=dims, rotary_pairs="neighbours", out_bias=False)
    attention, turned, x = stirred(Attention(config)), dims or 8, rows()
    query, key, value = attention.qkv(x).split(8, -1)
    angles = torch.arange(ROWS)[:, None] * 100.0 ** (-torch.arange(0, turned, 2) / turned)

    def turn(part: torch.Tensor) -> torch.Tensor:
        pairs = torch.view_as_complex(part[..., :turned].reshape(2, ROWS, -1, 2)) * torch.polar(torch.ones_like(angles), angles)
        return torch.cat((torch.view_as_real(pairs).flatten(2), part[..., turned:]), -1)

    expected = attention.out(F.scaled_dot_product_attention(turn(query), turn(key), value, is_causal=True))
    got = attention(x, Rotary(config)(torch.arange(ROWS)[None]))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_norms_are_what_they_are_called() -> None:
    x = rows() * 1e-3  # so small that eps counts
    norm = stirred(norm_of(like(norm="rms_eps", norm_eps=1e-5)))
    expected = F.rms_norm(x, (DIM,), norm.get_parameter("scale"), 1e-5)
    torch.testing.assert_close(norm(x), expected)


@torch.no_grad()
def test_the_first_half_of_up_is_the_gate() -> None:
    block, x = stirred(FeedForward(like(activation="swiglu", ff_bias=False))), rows()
    assert {name: tuple(weight.shape) for name, weight in block.named_parameters() if not name.startswith("norm")} == {
        "up.weight": (32, DIM),
        "down.weight": (DIM, 16),
    }
    gate, wide = block.up.weight.chunk(2)
    normed = block.norm(x)
    expected = x + (F.silu(normed @ gate.T) * (normed @ wide.T)) @ block.down.weight.T
    torch.testing.assert_close(block(x), expected)


@torch.no_grad()
def test_layers_without_attention_leave_gaps_in_the_numbers_of_caches() -> None:
    """Keys and values are found in the order in which a stage declares them, whatever else it remembers."""
    model, ids = MixedTower(), torch.randint(41, (2, ROWS), generator=torch.Generator().manual_seed(0))
    (stage,) = model.stages()
    state, found = StageState(stage.spec, 2, ROWS), []
    assert stage.spec.attentions == ["1", "3"]
    for start, end in ((0, 5), (5, 6), (6, 7), (7, ROWS)):
        state.begin(start)
        found.append(stage.module([ids[:, start:end]], state, torch.arange(end - start)))
    torch.testing.assert_close(torch.cat(found, 1), model(ids), atol=2e-5, rtol=1e-5)


def test_caches_have_the_heads_of_keys_and_values() -> None:
    assert {cache.heads for cache in Stack(LLAMA, 2).caches()} == {2}


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"kv_heads": 3}, "kv_heads must divide heads, which are 4, got 3"),
        ({"kv_heads": 0}, "kv_heads must divide heads, which are 4, got 0"),
        ({"window": 0}, "window must be at least 1, the row itself, got 0; None for no window"),
    ],
)
def test_sizes_that_contradict_each_other_are_refused(choices: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        like(**choices)
