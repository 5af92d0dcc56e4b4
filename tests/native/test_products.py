"""Products of a few rows with packed weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_reference import PRODUCT, ReferenceLibrary
from native_rigs import FORMATS, MOST_ROWS, Rig, packed

from foveal.runtime.engines.native_library import NativeLibrary

REFERENCE = ReferenceLibrary()
# K, N, block: of whole blocks and panels, of parts of them, and of less than one.
SHAPES = ((64, 32, 32), (192, 40, 64), (100, 17, 32), (7, 5, 8), (512, 96, 128), (320, 48, 256), (48, 16, 0))
FORMS = list(FORMATS)


def product(form: str, k: int, n: int, block: int, activation: int = 0, seed: int = 0) -> Rig:
    """`y = activation(x W + bias)` of random weights."""
    rng = np.random.default_rng(seed)
    bias = rng.standard_normal(-(-n // 16) * 16).astype(np.float32)
    numbers = [FORMATS[form], k, n, 0 if form in ("fp32", "int8") else block, activation]
    return Rig([k, n], [0], 1).step(PRODUCT, [0], [1], numbers, [0.03], [packed(rng, form, k, n, block), bias])


def rows_of(k: int, rows: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, k)).astype(np.float32)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("k", "n", "block"), SHAPES)
def test_is_what_the_layout_says(library: NativeLibrary, form: str, k: int, n: int, block: int) -> None:
    rig, x = product(form, k, n, block), rows_of(k, 3)
    np.testing.assert_allclose(rig.open(library).run(x), rig.open(REFERENCE).run(x), rtol=0, atol=5e-6)


@pytest.mark.parametrize("activation", range(5), ids=["none", "relu", "gelu", "gelu_tanh", "silu"])
def test_activations_come_before_what_is_added(library: NativeLibrary, activation: int) -> None:
    rng = np.random.default_rng(0)
    rig = Rig([32, 24, 24], [0, 1], 2)
    rig.step(PRODUCT, [0, 1], [2], [0, 32, 24, 0, activation], data=[packed(rng, "fp32", 32, 24, 0)])
    x, added = rows_of(32, 4), rows_of(24, 4, seed=2)
    np.testing.assert_allclose(rig.open(library).run(x, added), rig.open(REFERENCE).run(x, added), rtol=0, atol=3e-6)


@pytest.mark.parametrize("form", FORMS)
@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_a_row_is_the_same_bit_for_bit_whatever_rows_are_beside_it(
    library: NativeLibrary, form: str, data: st.DataObject
) -> None:
    """And whatever the threads: speculative decoding depends on it."""
    k, n, block = data.draw(st.sampled_from(SHAPES))
    threads, count = data.draw(st.integers(1, 3)), data.draw(st.integers(2, MOST_ROWS))
    x = rows_of(k, count, data.draw(st.integers(0, 99))) * data.draw(st.sampled_from((1e-3, 1.0, 50.0)))
    rig = product(form, k, n, block, activation=2)
    alone = np.concatenate([rig.open(library).run(row[None]) for row in x])
    np.testing.assert_array_equal(rig.open(library, threads).run(x), alone)


@pytest.mark.parametrize("form", FORMS)
def test_a_nan_makes_its_row_nan_and_no_other(library: NativeLibrary, form: str) -> None:
    rig, x = product(form, 64, 32, 32), rows_of(64, 3)
    expected = rig.open(library).run(x)
    x[1, 37] = np.nan
    found = rig.open(library).run(x)
    assert np.isnan(found[1]).all()
    np.testing.assert_array_equal(found[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("form", ["fp32", "w8", "w4"])
def test_infinities_do_not_become_finite(library: NativeLibrary, form: str) -> None:
    x = rows_of(64, 1)
    x[0, 5] = np.inf
    with np.errstate(invalid="ignore"):
        assert not np.isfinite(product(form, 64, 32, 32).open(library).run(x)).any()


@pytest.mark.parametrize("x_scale", [0.03, 0.5])
def test_int8_inputs_are_rounded_half_to_even_and_saturated(library: NativeLibrary, x_scale: float) -> None:
    """As QuantizeLinear; a unit matrix gives the rounded inputs back."""
    rng = np.random.default_rng(0)
    rig = Rig([16, 16], [0], 1)
    from foveal.export.cpu.native.packing import pack_integers

    weights = pack_integers("int8", np.eye(16, dtype=np.int8), np.ones((1, 16), np.float32))
    rig.step(PRODUCT, [0], [1], [FORMATS["int8"], 16, 16], [x_scale], [weights])
    x = np.concatenate([rng.standard_normal((4, 16)), [np.arange(16) - 7.5]]).astype(np.float32) * np.float32(x_scale * 40)
    x[4] = (np.arange(16) - 7.5).astype(np.float32) * np.float32(x_scale)
    expected = np.clip(np.rint(x / np.float32(x_scale)), -128, 127) * np.float32(x_scale)
    np.testing.assert_array_equal(rig.open(library).run(x), expected)


@pytest.mark.parametrize("form", ["int8", "w8"])
def test_the_largest_sums_do_not_saturate(library: NativeLibrary, form: str) -> None:
    """All weights and inputs at their extremes: pairs of products don't fit 16 bits."""
    from foveal.export.cpu.native.packing import pack_integers

    values = np.full((512, 16), -128, np.int8)
    values[::2, ::2] = 127
    rig = Rig([512, 16], [0], 1)
    rig.step(PRODUCT, [0], [1], [FORMATS[form], 512, 16], [1.0], [pack_integers(form, values, np.ones((1, 16), np.float32))])  # type: ignore[arg-type]
    x = np.full((2, 512), -127, np.float32)
    x[1] = 127
    expected = (x.astype(np.int64) @ values.astype(np.int64)).astype(np.float32)
    np.testing.assert_allclose(rig.open(library).run(x), expected, rtol=1e-6)


def test_parts_of_a_row_are_rows(library: NativeLibrary) -> None:
    rng = np.random.default_rng(0)
    weights = packed(rng, "w4", 24, 20, 8)
    one = Rig([24, 20], [0], 1).step(PRODUCT, [0], [1], [3, 24, 20, 8], data=[weights])
    parts = Rig([72, 60], [0], 1).step(PRODUCT, [0], [1], [3, 24, 20, 8, 0, 3], data=[weights])
    x = rows_of(72, 5)
    np.testing.assert_array_equal(parts.open(library, 2).run(x).reshape(15, 20), one.open(library).run(x.reshape(15, 24)))
