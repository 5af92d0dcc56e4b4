"""Steps that are no product and no attention, and programs of several."""

from __future__ import annotations

import numpy as np
import pytest
from native_reference import (
    ACTIVATE,
    ADD,
    ATTEND,
    COPY,
    EMBED,
    GATED,
    MEAN,
    MUL,
    NORM,
    PRODUCT,
    REPEAT,
    TAKE,
    ReferenceLibrary,
)
from native_rigs import MOST_ROWS, Caches, Rig, packed
from scipy.special import erf

from foveal.runtime.engines.native_library import NativeLibrary

REFERENCE = ReferenceLibrary()
RNG = np.random.default_rng(0)
GELU, GELU_TANH, SILU = 2, 3, 4


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def agrees(rig: Rig, library: NativeLibrary, *inputs: np.ndarray, atol: float = 2e-6, **given: object) -> None:
    found = rig.open(library, 2).run(*inputs, **given)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, rig.open(REFERENCE).run(*inputs, **given), rtol=0, atol=atol)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", range(3), ids=["layer", "rms with a least", "rms"])
@pytest.mark.parametrize("width", [64, 50, 7])
@pytest.mark.parametrize("parts", [1, 3])
def test_norms(library: NativeLibrary, kind: int, width: int, parts: int) -> None:
    data = [numbers(width, seed=1), numbers(width, seed=2) if kind == 0 else None]
    rig = Rig([parts * width] * 2, [0], 1).step(NORM, [0], [1], [kind, parts], [1e-5], data)
    agrees(rig, library, numbers(5, parts * width) * 3 + 10)


def test_a_norm_of_a_sum_keeps_the_sum(library: NativeLibrary) -> None:
    rig = Rig([32] * 5, [0, 1], 4)
    rig.step(NORM, [0, 1], [2, 3], [0], [1e-5], [numbers(32, seed=1)]).step(ADD, [2, 3], [4])
    agrees(rig, library, numbers(4, 32), numbers(4, 32, seed=3))


@pytest.mark.parametrize("width", [48, 21])
def test_sums_products_means_repetitions_and_gates(library: NativeLibrary, width: int) -> None:
    x, y = numbers(4, width), numbers(4, width, seed=1)
    agrees(Rig([width] * 4, [0, 1], 3).step(ADD, [0, 1, 0], [3]), library, x, y)
    agrees(Rig([width] * 3, [0, 1], 2).step(MUL, [0, 1], [2]), library, x, y)
    agrees(Rig([3 * width, width], [0], 1).step(MEAN, [0], [1], [3]), library, numbers(4, 3 * width))
    agrees(Rig([width, 3 * width], [0], 1).step(REPEAT, [0], [1], [3]), library, x)
    agrees(Rig([2 * width, width], [0], 1).step(GATED, [0], [1], [SILU]), library, numbers(4, 2 * width))


def test_copies_leave_the_rest(library: NativeLibrary) -> None:
    rig = Rig([20, 30, 30], [0, 1], 2)
    rig.step(ADD, [1, 1], [2]).step(COPY, [0], [2], [8, 3, 11]).step(COPY, [0], [2], [2, 0, 28])
    agrees(rig, library, numbers(3, 20), numbers(3, 30, seed=1))


def test_gelu_is_exact(library: NativeLibrary) -> None:
    """Within 2e-7 of the largest of 1 and x, in fp64."""
    x = np.concatenate([np.linspace(-12, 12, 4096), np.geomspace(1e-30, 1, 1024), [0.0, -100.0, 1e30]]).astype(np.float32)
    x = np.resize(x, (MOST_ROWS, 336))
    found = Rig([336, 336], [0], 1).step(ACTIVATE, [0], [1], [GELU]).open(library).run(x)
    wide = x.astype(np.float64)
    expected = wide * 0.5 * (1 + erf(wide / np.sqrt(2)))
    assert (np.abs(found - expected) / np.maximum(np.abs(wide), 1)).max() < 2e-7


@pytest.mark.parametrize("activation", [GELU_TANH, SILU])
def test_activations_over_their_whole_range(library: NativeLibrary, activation: int) -> None:
    x = np.concatenate([np.linspace(-100, 100, 2000), [0.0, -1e4, 1e4]]).astype(np.float32)[None]
    rig = Rig([2003, 2003], [0], 1).step(ACTIVATE, [0], [1], [activation])
    with np.errstate(over="ignore"):
        expected = rig.open(REFERENCE).run(x)
    np.testing.assert_allclose(rig.open(library).run(x), expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("activation", range(1, 5))
def test_activations_keep_nans(library: NativeLibrary, activation: int) -> None:
    x = np.array([[1.0, np.nan, -1.0]], np.float32)
    found = Rig([3, 3], [0], 1).step(ACTIVATE, [0], [1], [activation]).open(library).run(x)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(x))


@pytest.mark.parametrize(("dtype", "number"), [("float32", 0), ("uint8", 2), ("float16", 3)])
def test_tables(library: NativeLibrary, dtype: str, number: int) -> None:
    table = RNG.integers(0, 256, (50, 24)).astype(np.uint8) if dtype == "uint8" else numbers(50, 24).astype(dtype)
    if dtype == "float16":
        table[7, :4] = [6e-8, -65504, np.inf, 0.0]
    data = [table, RNG.uniform(0.1, 1, 50).astype(np.float32), numbers(30, 24, seed=1)]
    rig = Rig([1, 24], [0], 1, ids=[0]).step(EMBED, [0], [1], [number, 50, 24, 30, 1], data=data)
    agrees(rig, library, np.array([[7], [49], [0]]), index=[4, 5, 29], atol=0)
    several = Rig([3, 72], [0], 1, ids=[0]).step(EMBED, [0], [1], [number, 50, 24, 0, 3], data=data)
    agrees(several, library, np.array([[7, 1, 2], [49, 0, 3]]), atol=0)


def layers(form: str, count: int = 3, dim: int = 32) -> Rig:
    """A small Transformer with everything that a stage has: ids, layers, wanted rows, logits."""
    rng, heads, vocabulary = np.random.default_rng(0), 2, 40
    rig = Rig([1, dim, dim, 3 * dim, dim, 4 * dim, dim, vocabulary], [0], 7, ids=[0], caches=2 * count)
    ones, zeros = np.ones(dim, np.float32), np.zeros(dim, np.float32)
    number = {"fp32": 0, "int8": 1, "w8": 2, "w4": 3}[form]

    def product(k: int, n: int, source: int, target: int, activation: int = 0, added: int = -1) -> None:
        block = 0 if form in ("fp32", "int8") else 16
        rig.step(PRODUCT, [source, added], [target], [number, k, n, block, activation], [0.02], [packed(rng, form, k, n, 16)])

    rig.step(EMBED, [0], [1], [0, vocabulary, dim, 64, 1], data=[numbers(vocabulary, dim), None, numbers(64, dim)])
    for layer in range(count):
        rig.step(NORM, [1], [2], [0], [1e-5], [ones, zeros])
        product(dim, 3 * dim, 2, 3)
        cache = [2 * layer, 2 * layer + 1, heads, heads, dim // heads, dim // heads, 1]
        rig.step(ATTEND, [3], [4], cache, [(dim // heads) ** -0.5, 0.03, 0.03])
        product(dim, dim, 4, 1, added=1)
        rig.step(NORM, [1], [2], [0], [1e-5], [ones, zeros])
        product(dim, 4 * dim, 2, 5, activation=GELU)
        product(4 * dim, dim, 5, 1, added=1)
    rig.step(TAKE, [1], [6]).step(NORM, [6], [2], [0], [1e-5], [ones, zeros])
    product(dim, vocabulary, 2, 7)
    return rig


def empty_caches(rig: Rig) -> Caches:
    return Caches(*(np.zeros((1, 2, 64, 16), np.int8) for _ in range(rig.n_caches)))


@pytest.mark.parametrize("form", ["fp32", "int8", "w8", "w4"])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_a_text_is_the_same_bit_for_bit_however_it_is_cut(library: NativeLibrary, form: str, threads: int) -> None:
    rig = layers(form)
    opened, ids = rig.open(library, threads), np.random.default_rng(3).integers(0, 40, (40, 1))
    caches = empty_caches(rig)
    alone = np.concatenate([opened.run(ids[i : i + 1], index=[i], logit_rows=[0], caches=caches) for i in range(40)])
    for cuts in ([16, 32, 40], [1, 8, 9, 25, 40], [5, 18, 33, 36, 40]):
        caches, first, found = empty_caches(rig), 0, []
        for end in cuts:
            rows = range(end - first)
            found.append(opened.run(ids[first:end], index=range(first, end), logit_rows=list(rows), caches=caches))
            first = end
        np.testing.assert_array_equal(np.concatenate(found), alone)


def test_a_stage_is_what_its_steps_are(library: NativeLibrary) -> None:
    """Buffers are written several times, and read by steps of the same phase and of later ones."""
    rig, ids = layers("fp32"), np.random.default_rng(3).integers(0, 40, (12, 1))
    caches = empty_caches(rig)
    agrees(rig, library, ids, index=range(12), logit_rows=[11, 0, 5], caches=caches, atol=2e-2)


@pytest.mark.parametrize("threads", [1, 3])
def test_values_are_kept_over_phases(library: NativeLibrary, threads: int) -> None:
    """What a row step made is read behind products, and overwritten between them."""
    rng, width = np.random.default_rng(0), 48
    rig = Rig([width] * 5, [0, 1], 4)
    weights = [packed(rng, "fp32", width, width, 0) for _ in range(4)]
    rig.step(ADD, [0, 1], [2])  # 2 = a + b, read two products later
    rig.step(PRODUCT, [2], [3], [0, width, width], data=[weights[0]])
    rig.step(PRODUCT, [3, 2], [3], [0, width, width], data=[weights[1]])
    rig.step(ADD, [3, 2], [2])  # and overwritten by what reads it
    rig.step(PRODUCT, [2, 2], [2], [0, width, width], data=[weights[2]])
    rig.step(ADD, [2, 0], [4])  # the input is still there
    rig.step(PRODUCT, [4, 3], [4], [0, width, width], data=[weights[3]])
    rig.step(ADD, [4, 2, 1], [4])
    x, y = numbers(7, width), numbers(7, width, seed=1)
    found = rig.open(library, threads).run(x, y)
    np.testing.assert_allclose(found, rig.open(REFERENCE).run(x, y), rtol=0, atol=2e-4)


@pytest.mark.parametrize("parts", [1, 4])
def test_parts_of_rows_may_lie_apart(library: NativeLibrary, parts: int) -> None:
    """As the rows of several sequences do, and those of a window."""
    rig = Rig([64, 64], [0], 1, parts=parts, output_parts=parts).step(ADD, [0, 0], [1])
    x = numbers(5, 64)
    np.testing.assert_array_equal(rig.open(library).run(x), 2 * x)


def test_no_logits_wanted_still_writes_the_caches(library: NativeLibrary) -> None:
    rig = layers("w4")
    wanted, unwanted = empty_caches(rig), empty_caches(rig)
    ids = np.arange(6)[:, None]
    rig.open(library).run(ids, logit_rows=[5], caches=wanted)
    assert rig.open(library).run(ids, logit_rows=[], caches=unwanted).shape == (0, 40)
    for one, other in zip(wanted.arrays, unwanted.arrays, strict=True):
        np.testing.assert_array_equal(one, other)
