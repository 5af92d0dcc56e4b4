"""Mamba-2: the same rows whether they come one by one, in calls of any length, or all at once, and those of the equations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch_sessions import shake

from foveal import ConfigError
from foveal.contract import CacheSpec
from foveal.models.layers.mamba2 import Mamba2, Mamba2Config

EXACT, FLOAT32 = 1e-11, 2e-5


def random_layer(seed: int = 0, dtype: torch.dtype = torch.float64, **sizes: int) -> Mamba2:
    """A small layer none of whose weights is zero or one; heads fade at rates between slow and at once."""
    layer = Mamba2(Mamba2Config(**{"dim": 12, "state": 5, "head_dim": 8, **sizes}))
    shake(layer, seed)
    with torch.no_grad():
        layer.rate_bias.uniform_(-4, 2)
    return layer.to(dtype)


def random_rows(batch: int, length: int, dim: int = 12, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """`[B, L, D]`."""
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(batch, length, dim))).to(dtype)


def empty(layer: Mamba2, batch: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """The layer's caches before there is any row."""
    return [torch.zeros(batch, cache.heads, cache.rows, cache.width, dtype=dtype) for cache in layer.caches("0")]


def in_calls(layer: Mamba2, rows: Tensor, calls: list[int]) -> Tensor:
    """All rows, so many in each call."""
    caches, found, start = empty(layer, len(rows), rows.dtype), [], 0
    for call in calls:
        y, *caches = layer.advance(rows[:, start : start + call], *caches)
        found.append(y)
        start += call
    return torch.cat(found, 1)


def by_the_equations(layer: Mamba2, u: Tensor) -> Tensor:
    """One sequence `[L, D]` as sums over all earlier rows, written from the paper's definition with numbers for indices."""
    config = layer.config
    heads, width, state, taps = config.heads, config.head_dim, config.state, config.taps
    z, c, d = (u @ layer.project.weight.T).split([config.inner, config.inner + 2 * state, heads], -1)
    padded = torch.cat((torch.zeros(taps - 1, c.shape[1], dtype=u.dtype), c))
    conv = torch.stack(
        [sum(padded[t + j] * layer.conv_weight[j] for j in range(taps)) + layer.conv_bias for t in range(len(u))]
    )
    x, b, r = F.silu(conv).split([config.inner, state, state], -1)
    dt = torch.log1p(torch.exp(d + layer.rate_bias))
    y = torch.zeros(len(u), config.inner, dtype=u.dtype)
    for t in range(len(u)):
        for h in range(heads):
            columns = slice(h * width, (h + 1) * width)
            for s in range(t + 1):
                fade = torch.exp(-(dt[s + 1 : t + 1, h] * torch.exp(layer.log_decay[h])).sum())
                y[t, columns] += fade * dt[s, h] * (r[t] @ b[s]) * x[s, columns]
            y[t, columns] += layer.skip[h] * x[t, columns]
    gated = y * z * torch.sigmoid(z)
    normed = gated / (gated.square().mean(-1, keepdim=True) + config.norm_eps).sqrt() * layer.norm.scale
    return normed @ layer.out.weight.T


@given(
    st.integers(1, 3),
    st.sampled_from([{}, {"state": 1}, {"taps": 2}, {"taps": 7, "head_dim": 24}, {"expand": 1, "head_dim": 1}, {"expand": 4}]),
    st.integers(0, 9),
    st.lists(st.integers(1, 64), min_size=1, max_size=6),
)
def test_any_way_of_cutting_a_sequence_gives_the_rows_of_the_whole(
    batch: int, sizes: dict[str, int], seed: int, calls: list[int]
) -> None:
    """In float64: calls of one row and of many are the same sums."""
    layer = random_layer(seed, **sizes)
    rows = random_rows(batch, sum(calls), seed=seed)
    with torch.no_grad():
        torch.testing.assert_close(in_calls(layer, rows, calls), layer(rows), rtol=0, atol=EXACT)


@given(st.integers(0, 9), st.lists(st.sampled_from([1, 1, 2, 17, 63, 64]), min_size=1, max_size=6))
def test_in_float32(seed: int, calls: list[int]) -> None:
    """Sums of logarithms are differences of at most 64 rows, so that little is lost."""
    layer = random_layer(seed, torch.float32)
    rows = random_rows(2, sum(calls), seed=seed, dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(in_calls(layer, rows, calls), layer(rows), rtol=0, atol=FLOAT32)


@given(st.integers(0, 99), st.integers(1, 11), st.sampled_from([{}, {"taps": 2, "state": 3}, {"head_dim": 24}]))
def test_rows_are_those_of_the_definition(seed: int, length: int, sizes: dict[str, int]) -> None:
    """Of sums over all earlier rows, term by term."""
    layer, rows = random_layer(seed, **sizes), random_rows(1, length, seed=seed)
    with torch.no_grad():
        torch.testing.assert_close(layer(rows)[0], by_the_equations(layer, rows[0]), rtol=0, atol=EXACT)


@pytest.mark.parametrize("rate", [-60.0, 60.0])
def test_rates_beyond_all_bounds(rate: float) -> None:
    """Heads that never fade, and heads that forget at once: no infinity, and nothing that is no number."""
    layer, rows = random_layer(dtype=torch.float32), random_rows(1, 64, dtype=torch.float32)
    with torch.no_grad():
        layer.rate_bias.fill_(rate)
        found = in_calls(layer, rows, [64])
        torch.testing.assert_close(found, layer(rows), rtol=1e-5, atol=FLOAT32)
    assert found.isfinite().all()


def test_what_it_remembers() -> None:
    """A window of the convolution and the heads' memories, both replaced by each call."""
    window, memory = random_layer(dim=16, head_dim=8, state=5, taps=4).caches("mamba.2")
    assert window == CacheSpec(name="mamba.2.window", heads=1, rows=3, width=32 + 10, recurrent=True)
    assert memory == CacheSpec(name="mamba.2.memory", heads=4, rows=5, width=8, recurrent=True)


def test_sequences_of_a_batch_do_not_meet() -> None:
    """Another sequence changes nothing."""
    layer, rows = random_layer(), random_rows(2, 9)
    with torch.no_grad():
        torch.testing.assert_close(layer(rows)[:1], layer(rows[:1]))
        torch.testing.assert_close(in_calls(layer, rows, [4, 5])[1:], in_calls(layer, rows[1:], [4, 5]))


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ({"dim": 0}, "dim of a Mamba-2 layer must be at least 1, got 0"),
        ({"taps": 1}, "taps of a Mamba-2 layer must be at least 2, got 1"),
        ({"head_dim": 7}, "of width 12 is 24 wide inside, expected a multiple of the 7 of its heads"),
    ],
)
def test_sizes_that_can_not_be(sizes: dict[str, int], reason: str) -> None:
    """Refused by name."""
    with pytest.raises(ConfigError, match=reason):
        Mamba2Config(**{"dim": 12, "head_dim": 8, **sizes})


ORIGINALS = [
    {"dim": 64, "state": 16, "head_dim": 64},
    {"dim": 48, "state": 128, "head_dim": 16, "taps": 3},
    {"dim": 32, "state": 8, "head_dim": 64, "expand": 4},
]


@pytest.mark.parametrize("sizes", ORIGINALS)
@pytest.mark.parametrize("calls", [[75], [64, 11], [1] * 5 + [64, 6]])
def test_rows_are_those_of_transformers(sizes: dict[str, int], calls: list[int]) -> None:
    """Its `Mamba2Mixer`, whose plain torch has the kernels' equations; its chunks end elsewhere."""
    from transformers import Mamba2Config as OriginalConfig  # takes seconds
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    layer = random_layer(dtype=torch.float32, **sizes)
    config = layer.config
    original = Mamba2Mixer(
        OriginalConfig(
            hidden_size=config.dim,
            state_size=config.state,
            conv_kernel=config.taps,
            expand=config.expand,
            head_dim=config.head_dim,
            num_heads=config.heads,
            n_groups=1,
            chunk_size=32,
            layer_norm_epsilon=config.norm_eps,
        ),
        0,
    ).eval()
    original.load_state_dict(
        {
            "A_log": layer.log_decay,
            "D": layer.skip,
            "dt_bias": layer.rate_bias,
            "conv1d.weight": layer.conv_weight.T[:, None],
            "conv1d.bias": layer.conv_bias,
            "in_proj.weight": layer.project.weight,
            "norm.weight": layer.norm.scale,
            "out_proj.weight": layer.out.weight,
        }
    )
    rows = random_rows(2, 75, config.dim, dtype=torch.float32)
    with torch.no_grad():
        expected = original(rows)
        # The original adds up in chunks of 32 rows, in float32 too: how far each is off depends on the threads that there are.
        torch.testing.assert_close(layer(rows), expected, rtol=0, atol=5 * FLOAT32)
        torch.testing.assert_close(in_calls(layer, rows, calls), expected, rtol=0, atol=5 * FLOAT32)
