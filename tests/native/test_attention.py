"""Attention of a few rows to caches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_reference import ANGLES, ATTEND, GROUP_ATTEND, ReferenceLibrary
from native_rigs import MOST_ROWS, Caches, Rig

from foveal.runtime.engines.native_library import NativeLibrary

REFERENCE = ReferenceLibrary()
CAPACITY = 160
# Heads, heads of keys, their width, and the width of a row of the cache.
SHAPES = ((8, 8, 64, 64), (6, 6, 32, 32), (4, 2, 20, 24), (6, 1, 16, 16), (2, 2, 128, 128), (2, 1, 80, 80))
DTYPES = {"float32": 0, "int8": 1}


def attention(shape: tuple[int, int, int, int], dtype: str, window: int = 0, rotated: int = 0, neighbours: bool = False) -> Rig:
    heads, kv_heads, dim, width = shape
    rig = Rig([(heads + 2 * kv_heads) * dim, heads * dim, max(rotated, 2)], [0], 1, caches=2)
    if rotated:
        rig.step(ANGLES, [], [2], data=[(1e4 ** -(np.arange(rotated // 2) / rotated)).astype(np.float32)])
    numbers = [0, 1, heads, kv_heads, dim, width, DTYPES[dtype], window, rotated, int(neighbours)]
    return rig.step(ATTEND, [0, 2 if rotated else -1], [1], numbers, [dim**-0.5, 0.03, 0.04])


def caches_of(shape: tuple[int, int, int, int], dtype: str, slots: int = 1, seed: int = 0) -> Caches:
    """Full of numbers, also where no row has been."""
    _, kv_heads, dim, width = shape
    rng, made = np.random.default_rng(seed), []
    for _ in range(2):
        numbers = rng.standard_normal((slots, kv_heads, CAPACITY, width))
        numbers[..., dim:] = 0
        made.append((numbers * 40).clip(-128, 127).astype(np.int8) if dtype == "int8" else numbers.astype(np.float32))
    return Caches(*made)


def rows_of(rig: Rig, rows: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, rig.widths[0])).astype(np.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("window", [0, 7, 100])
@pytest.mark.parametrize("first", [0, 57, 130])
def test_rows_are_written_and_see_all_before_them(
    library: NativeLibrary, dtype: str, shape: tuple[int, int, int, int], window: int, first: int
) -> None:
    """Themselves included; those in front of the window not."""
    rig, caches = attention(shape, dtype, window), caches_of(shape, dtype)
    x, expected = rows_of(rig, 9), caches.copy()
    found = rig.open(library, 2).run(x, index=range(first, first + 9), caches=caches)
    np.testing.assert_allclose(found, rig.open(REFERENCE).run(x, index=range(first, first + 9), caches=expected), atol=1e-5)
    for written, cache in zip(caches.arrays, expected.arrays, strict=True):
        np.testing.assert_array_equal(written, cache)


@pytest.mark.parametrize("neighbours", [False, True])
@pytest.mark.parametrize("rotated", [8, 16])
def test_rotations(library: NativeLibrary, rotated: int, neighbours: bool) -> None:
    """Of all dimensions or of the first; pairs of neighbours stand apart in the cache, as graphs leave them."""
    shape = (4, 2, 16, 16)
    rig, caches = attention(shape, "float32", 0, rotated, neighbours), caches_of(shape, "float32")
    x, expected = rows_of(rig, 4), caches.copy()
    found = rig.open(library).run(x, index=range(90, 94), caches=caches)
    np.testing.assert_allclose(found, rig.open(REFERENCE).run(x, index=range(90, 94), caches=expected), atol=1e-5)
    np.testing.assert_allclose(caches.arrays[0], expected.arrays[0], atol=1e-5)


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_a_row_is_the_same_bit_for_bit_in_whatever_call(library: NativeLibrary, data: st.DataObject) -> None:
    shape, dtype = data.draw(st.sampled_from(SHAPES)), data.draw(st.sampled_from(list(DTYPES)))
    rig = attention(shape, dtype, data.draw(st.sampled_from((0, 1, 5, 64, 90))))
    first, count = data.draw(st.integers(0, CAPACITY - MOST_ROWS)), data.draw(st.integers(2, MOST_ROWS))
    x, together, alone = rows_of(rig, count), caches_of(shape, dtype), caches_of(shape, dtype)
    opened = rig.open(library, data.draw(st.integers(1, 3)))
    found = opened.run(x, index=range(first, first + count), caches=together)
    each = [opened.run(row[None], index=[first + i], caches=alone) for i, row in enumerate(x)]
    np.testing.assert_array_equal(found, np.concatenate(each))
    for one, other in zip(together.arrays, alone.arrays, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", DTYPES)
def test_slots_are_sequences_of_their_own(library: NativeLibrary, dtype: str) -> None:
    shape = SHAPES[0]
    rig, caches = attention(shape, dtype), caches_of(shape, dtype, slots=4)
    x, expected, alone = rows_of(rig, 5), caches.copy(), caches.copy()
    index, slots = [3, 70, 71, 0, 140], [2, 0, 0, 3, 1]
    opened = rig.open(library, 2)
    found = opened.run(x, index=index, slots=slots, caches=caches)
    np.testing.assert_allclose(found, rig.open(REFERENCE).run(x, index=index, slots=slots, caches=expected), atol=1e-5)
    each = [opened.run(row[None], index=[i], slots=[s], caches=alone) for row, i, s in zip(x, index, slots, strict=True)]
    np.testing.assert_array_equal(found, np.concatenate(each))


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_stands_behind_a_row_does_not_touch_it(library: NativeLibrary, dtype: str) -> None:
    """Neither what the cache has there nor a NaN in the next row of the call."""
    shape = SHAPES[0]
    rig = attention(shape, dtype)
    x, clean, dirty = rows_of(rig, 2), caches_of(shape, dtype), caches_of(shape, dtype)
    for cache in dirty.arrays:
        cache[:, :, 66:] = 100 if dtype == "int8" else np.nan
    opened = rig.open(library)
    expected = opened.run(x, index=[65, 66], caches=clean)
    bad = x.copy()
    bad[1] = np.nan
    found = opened.run(bad, index=[65, 66], caches=dirty)
    np.testing.assert_array_equal(found[0], expected[0])
    assert np.isnan(found[1]).all()


@pytest.mark.parametrize("size", [1e-3, 30.0])
def test_softmax_of_any_size_of_scores(library: NativeLibrary, size: float) -> None:
    shape = (2, 2, 64, 64)
    rig, caches = attention(shape, "float32"), caches_of(shape, "float32")
    x, expected = rows_of(rig, 2) * np.float32(size), caches.copy()
    found = rig.open(library).run(x, index=[150, 151], caches=caches)
    want = rig.open(REFERENCE).run(x, index=[150, 151], caches=expected)
    np.testing.assert_allclose(found, want, rtol=2e-4, atol=2e-4 * size)


@pytest.mark.parametrize(("heads", "dim", "parts"), [(4, 16, 4), (2, 24, 3), (1, 5, 1)])
def test_a_group_is_seen_whole(library: NativeLibrary, heads: int, dim: int, parts: int) -> None:
    width = heads * dim
    rig = Rig([width, 2 * parts * width, width], [0, 1], 2)
    rig.step(GROUP_ATTEND, [0, 1], [2], [heads, dim, parts], [dim**-0.5])
    rng = np.random.default_rng(0)
    x = [rng.standard_normal((3, n)).astype(np.float32) for n in rig.widths[:2]]
    np.testing.assert_allclose(rig.open(library).run(*x), rig.open(REFERENCE).run(*x), atol=1e-6)
