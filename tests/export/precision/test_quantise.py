"""Weights to integers and back: what is lost is bounded, and chosen to be little."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from foveal.export.precision.quantise import BLOCK, SMALLEST_BLOCK, Floats, Quantised, block_for, by_block, by_column, migration

Importance = npt.NDArray[np.float64]
# A block of any of these magnitudes, or of nothing but zeros. Squares of larger ones would not be fp32 numbers.
MAGNITUDES = (0.0, 1e-12, 1e-3, 1.0, 3e4, 1e12)


@st.composite
def matrices(draw: st.DrawFn, block: int = 1) -> Floats:
    """`[K, N]`, K a multiple of `block`; each block of a column has a magnitude of its own."""
    blocks, columns = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scales = rng.choice(draw(st.lists(st.sampled_from(MAGNITUDES), min_size=1, max_size=4)), (blocks, 1, columns))
    kind = draw(st.sampled_from([rng.standard_normal, rng.standard_cauchy, lambda size: rng.integers(-1, 2, size)]))
    values = np.clip(kind((blocks, block, columns)), -1e3, 1e3)
    return (values * scales).astype(np.float32).reshape(blocks * block, columns)


def importances(rows: int, seed: int) -> Importance:
    """Mean squares `[K]` such as text gives: a few channels matter most, some never move."""
    rng = np.random.default_rng(seed)
    return np.exp(3 * rng.standard_normal(rows)) * (rng.random(rows) > 0.1)


def widened(quantised: Quantised, block: int | None = None) -> npt.NDArray[np.float64]:
    """The weights that the integers stand for."""
    scales = quantised.scales if block is None else np.repeat(quantised.scales, block, axis=0)
    return quantised.values * scales.astype(np.float64)


@given(matrices())
def test_a_column_comes_back_within_half_a_step(weight: Floats) -> None:
    """Symmetric: -128 is never used, zero stays zero, and the largest magnitude of every column is 127 steps."""
    quantised = by_column(weight)
    assert quantised.values.dtype == np.int8
    assert quantised.scales.shape == (weight.shape[1],)
    assert quantised.scales.dtype == np.float32
    assert (quantised.scales > 0).all()
    assert np.abs(quantised.values.astype(int)).max(initial=0) <= 127
    assert (np.abs(widened(quantised) - weight) <= quantised.scales * 0.5001).all()
    used = np.abs(weight).max(axis=0) > 0
    assert (np.abs(quantised.values).max(axis=0)[used] == 127).all()
    assert (quantised.values[weight == 0] == 0).all()


@given(st.sampled_from([16, 32, 128]).flatmap(lambda block: st.tuples(st.just(block), matrices(block))), st.booleans())
def test_a_block_comes_back_within_half_a_step_unless_it_was_clipped(given: tuple[int, Floats], is_known: bool) -> None:
    """4 bits may clip, at their highest value or at the one more that the negative side has."""
    block, weight = given
    quantised = by_block(weight, block, importances(len(weight), 1) if is_known else None)
    values, scales = quantised.values, np.repeat(quantised.scales, block, axis=0)
    assert quantised.scales.shape == (len(weight) // block, weight.shape[1])
    assert (quantised.scales > 0).all()
    assert values.min() >= -8
    assert values.max() <= 7
    clipped = (values == 7) | (values == -8)
    assert (clipped | (np.abs(widened(quantised, block) - weight) <= scales * 0.5001)).all()
    assert (np.sign(values) * np.sign(weight) >= 0).all()
    assert (values[weight == 0] == 0).all()


def test_a_block_of_zeros_has_scale_one() -> None:
    """Any serves, and compilers refuse 0."""
    zeros = np.zeros((32, 3), np.float32)
    for quantised in (by_column(zeros), by_block(zeros, 16)):
        assert not quantised.values.any()
        assert (quantised.scales == 1).all()


def test_blocks_are_rows_of_a_column() -> None:
    """A large weight costs its own block its resolution, and no other."""
    weight = np.full((32, 2), 0.01, np.float32)
    weight[3, 0] = 100
    quantised = by_block(weight, 16)
    back = widened(quantised, 16)
    np.testing.assert_allclose(back[16:], weight[16:], rtol=1e-6)
    np.testing.assert_allclose(back[:, 1], weight[:, 1], rtol=1e-6)
    assert (back[:16, 0][weight[:16, 0] < 1] == 0).all()
    np.testing.assert_allclose(by_column(weight).scales, [100 / 127, 0.01 / 127], rtol=1e-6)


def error(weight: Floats, quantised: Quantised, block: int, cost: Importance) -> npt.NDArray[np.float64]:
    """Squared error of every block `[K / block, N]`, weighted by the mean squares of the inputs it is multiplied with."""
    squares = cost[:, None] * (widened(quantised, block) - weight) ** 2
    return squares.reshape(-1, block, weight.shape[1]).sum(axis=1)


@given(st.sampled_from([16, 64]).flatmap(lambda block: st.tuples(st.just(block), matrices(block))), st.integers(0, 99))
def test_knowing_what_matters_never_makes_it_worse(given: tuple[int, Floats], seed: int) -> None:
    """In every block, 4 bits chosen with the inputs' mean squares lose no more of what those weigh than 4 bits without."""
    block, weight = given
    cost = importances(len(weight), seed)
    with_it, without = (error(weight, by_block(weight, block, known), block, cost) for known in (cost, None))
    assert (with_it <= without * 1.001 + 1e-30).all()


@given(st.sampled_from([16, 64]).flatmap(lambda block: st.tuples(st.just(block), matrices(block))))
def test_clipping_is_chosen_only_where_it_pays(given: tuple[int, Floats]) -> None:
    """4 bits in the chosen scales lose no more than in scales that clip nothing."""
    block, weight = given
    alike = np.ones(len(weight))
    full = np.abs(weight.reshape(-1, block, weight.shape[1])).max(axis=1) / 7
    full = np.where(full > 0, full, 1).astype(np.float32)
    values = np.rint(weight / np.repeat(full, block, axis=0)).astype(np.int8)
    chosen = error(weight, by_block(weight, block), block, alike)
    assert (chosen <= error(weight, Quantised(values, full), block, alike) * 1.001 + 1e-30).all()


def test_what_matters_is_kept_better() -> None:
    """On ordinary weights and unequal inputs it is not just no worse."""
    rng = np.random.default_rng(0)
    weight, cost = rng.standard_normal((256, 32)).astype(np.float32), importances(256, 0)
    known, unknown = (error(weight, by_block(weight, 128, c), 128, cost).sum() for c in (cost, None))
    assert known < 0.95 * unknown


@pytest.mark.parametrize(
    ("rows", "block"),
    [(384, 128), (96, 32), (160, 32), (48, 16), (1040, 16)]
    + [(128, 64), (64, 32), (32, 16), (16, 16)]
    + [(rows, None) for rows in (1, 8, 20, 24, 100)],
)
def test_the_block_divides_the_rows(rows: int, block: int | None) -> None:
    """The largest power of two that does, within bounds, and not all of the rows; None if that is too little."""
    assert block_for(rows) == block


@given(st.integers(1, 10_000))
def test_a_block_is_never_too_long_or_too_short(rows: int) -> None:
    """Or there is none."""
    block = block_for(rows)
    if block is None:
        assert rows % SMALLEST_BLOCK
    else:
        assert rows % block == 0
        assert SMALLEST_BLOCK <= block <= BLOCK
        assert block == BLOCK or rows % (2 * block) or rows == 2 * block


def outlying(rows: int, columns: int, seed: int, outlier: float = 40.0) -> tuple[Floats, Floats]:
    """Activations `[T, K]` of which a channel in eight is large, and a weight `[K, N]`."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((200, rows)).astype(np.float32)
    x[:, ::8] *= outlier
    return x, rng.standard_normal((rows, columns)).astype(np.float32)


def moved(x: Floats, weight: Floats) -> Floats | None:
    """`migration` as the calibration would call it."""
    return migration(weight, np.abs(x).max(axis=0), np.square(x, dtype=np.float64).mean(axis=0))


@given(st.integers(1, 70), st.integers(1, 20), st.integers(0, 999), st.floats(1e-3, 1e3))
def test_migration_leaves_the_product_as_it_is(rows: int, columns: int, seed: int, outlier: float) -> None:
    """What a channel is divided by, its row of the weight is multiplied with."""
    x, weight = outlying(rows, columns, seed, outlier)
    scales = moved(x, weight)
    assume(scales is not None)
    assert scales is not None
    assert scales.shape == (rows,)
    assert scales.dtype == np.float32
    assert (scales > 0).all()
    s = scales.astype(np.float64)
    exact = x.astype(np.float64) @ weight.astype(np.float64)
    np.testing.assert_allclose((x / s) @ (weight * s[:, None]), exact, rtol=1e-9, atol=1e-9 * np.abs(exact).max())


def int8_error(x: Floats, weight: Floats) -> float:
    """Root mean square error of the product with both sides rounded to 8 bits."""
    step = np.abs(x).max() / 127
    rounded = np.rint(x / step) * step @ widened(by_column(weight))
    return float(np.sqrt(((rounded - x.astype(np.float64) @ weight) ** 2).mean()))


def test_migration_pays_where_channels_are_unequal() -> None:
    """A fifth of the error goes, measured on the product itself."""
    x, weight = outlying(64, 32, 0)
    scales = moved(x, weight)
    assert scales is not None
    assert int8_error(x / scales, weight * scales[:, None]) < 0.8 * int8_error(x, weight)


@pytest.mark.parametrize(
    "change",
    [lambda x, w: (np.sign(x), np.sign(w)), lambda x, w: (np.sign(x) * 4, np.sign(w) * 4), lambda x, w: (0 * x, np.sign(w))],
    ids=["all channels alike", "all channels alike, and large", "an input that is always zero"],
)
def test_migration_is_refused_where_it_does_not_pay(change: Callable[[Floats, Floats], tuple[Floats, Floats]]) -> None:
    """Then there is nothing to divide by."""
    assert moved(*change(*outlying(32, 16, 0))) is None


@given(st.integers(1, 70), st.integers(1, 20), st.integers(0, 999), st.floats(1e-3, 1e3))
def test_migration_is_chosen_by_the_noise_that_it_saves(rows: int, columns: int, seed: int, outlier: float) -> None:
    """Variance of both roundings, as its formula counts them, is not more than before (but for the counting's own rounding)."""
    x, weight = outlying(rows, columns, seed, outlier)
    scales = moved(x, weight)
    assume(scales is not None)

    def noise(x: Floats, weight: Floats) -> float:
        squared_steps_x, squared_steps_w = (np.abs(x).max() / 127) ** 2, (np.abs(weight).max(axis=0) / 127) ** 2
        return float(squared_steps_x * (weight**2).sum() + (x**2).mean(axis=0).sum() * squared_steps_w.sum())

    assert scales is not None
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    assert noise(x / scales, weight * scales[:, None]) <= noise(x, weight) * (1 + 1e-6)
