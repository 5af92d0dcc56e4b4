"""Ranges of activations against plain numpy, and in memory that does not grow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxruntime.quantization.calibrate import HistogramCollector

from foveal.calibration.ranges import BINS, METHODS, CacheRanges, ProductRanges

Floats = npt.NDArray[np.float32]
CHANNELS = 5
PERCENTILES = (50.5, 90.0, 99.0, 99.9, 99.99, 100.0)


def rows(count: int, seed: int = 0, spread: float = 1.0) -> Floats:
    """Long-tailed activations `[count, CHANNELS]`, each channel of its own size."""
    rng = np.random.default_rng(seed)
    drawn = rng.standard_t(3, (count, CHANNELS)) * np.array([0.1, 0.5, 1, 2, 7]) * spread
    return drawn.astype(np.float32)


def ranges_of(*chunks: Floats) -> ProductRanges:
    """What these chunks of rows show, given one after the other; the product is thrice its input."""
    ranges = ProductRanges.empty(chunks[0].shape[1])
    for chunk in chunks:
        ranges.add(chunk, 3 * chunk)
    return ranges


def cut(x: Floats, places: Sequence[int]) -> list[Floats]:
    """Rows cut at some places, without empty chunks."""
    return [chunk for chunk in np.split(x, sorted(places)) if len(chunk)]


def exact_quantile(x: Floats, percentile: float) -> float:
    """The smallest magnitude that this share of all magnitudes does not exceed."""
    return float(np.quantile(np.abs(x), percentile / 100, method="inverted_cdf"))


def test_by_channel() -> None:
    """Largest magnitude and mean square of each input channel, and the largest magnitude of the product."""
    x = rows(500)
    ranges = ranges_of(x)
    np.testing.assert_array_equal(ranges.absmax, np.abs(x).max(axis=0))
    np.testing.assert_allclose(ranges.mean_square, np.square(x, dtype=np.float64).mean(axis=0), rtol=1e-12)
    assert ranges.output_absmax == np.abs(3 * x).max()
    assert ranges.rows == 500
    assert ranges.histogram.sum() == x.size


def test_minmax_clips_nothing() -> None:
    """The threshold is the largest magnitude of all."""
    x = rows(300)
    assert ranges_of(x).threshold("minmax") == np.abs(x).max()


@given(st.integers(0, 1000), st.integers(1, 400), st.sampled_from(PERCENTILES))
def test_percentile_is_numpys_within_one_bin(seed: int, count: int, percentile: float) -> None:
    """Never below it, so that no less is kept than was asked for."""
    x = rows(count, seed)
    ranges = ranges_of(x)
    found, exact = ranges.threshold("percentile", percentile), exact_quantile(x, percentile)
    rounding = 1e-6 * np.abs(x).max()
    assert exact - rounding <= found <= exact + ranges.bin_width + rounding


def test_entropy_is_onnxruntimes() -> None:
    """On a distribution that is symmetric, where theirs and ours are the same histogram."""
    x = np.concatenate([rows(400), -rows(400)])
    collector = HistogramCollector("entropy", True, 1024, 128, 99.99, "same")
    collector.collect({"x": x})
    expected = float(collector.compute_collection_result()["x"][1])
    assert expected < np.abs(x).max()
    assert ranges_of(x).threshold("entropy") == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("outlier", [0.5, 20, 80])
def test_entropy_gives_up_outliers_but_not_the_bulk(outlier: float) -> None:
    """Between an eighth of the largest magnitude, where the search begins, and all of it."""
    x = np.random.default_rng(0).normal(size=(1000, CHANNELS)).astype(np.float32)
    x[0, 0] = outlier
    ranges = ranges_of(x)
    largest, found = ranges.threshold("minmax"), ranges.threshold("entropy")
    assert largest / 8 <= found <= largest
    assert np.mean(np.abs(x) <= found) > 0.99


@given(st.integers(0, 1000), st.lists(st.integers(0, 200), max_size=6), st.sampled_from(PERCENTILES))
def test_it_does_not_matter_how_rows_are_cut(seed: int, places: list[int], percentile: float) -> None:
    """Every count and extreme is the same; only the bins may be wider, and so the percentile coarser."""
    x = rows(200, seed)
    whole, parts = ranges_of(x), ranges_of(*cut(x, places))
    np.testing.assert_array_equal(parts.absmax, whole.absmax)
    np.testing.assert_allclose(parts.mean_square, whole.mean_square, rtol=1e-12)
    assert (parts.rows, parts.output_absmax) == (whole.rows, whole.output_absmax)
    assert parts.histogram.sum() == whole.histogram.sum()
    assert parts.threshold("minmax") == whole.threshold("minmax")
    assert whole.bin_width / (1 + 1e-6) <= parts.bin_width < 2 * whole.bin_width
    difference = abs(parts.threshold("percentile", percentile) - whole.threshold("percentile", percentile))
    assert difference <= max(parts.bin_width, whole.bin_width) * 1.001


def test_bins_are_merged_when_larger_magnitudes_come() -> None:
    """Widths double, nothing is lost, and the quantiles stay within a bin, also over twelve orders of magnitude."""
    chunks = [rows(200, seed, spread) for seed, spread in enumerate((1e-6, 1e-3, 1.0, 1e6))]
    ranges, x = ranges_of(*chunks), np.concatenate(chunks)
    first = ranges_of(chunks[0]).bin_width
    assert np.log2(ranges.bin_width / first) % 1 == 0
    assert ranges.bin_width * BINS / 2 < np.abs(x).max() <= ranges.bin_width * BINS
    assert ranges.histogram.sum() == x.size
    for percentile in PERCENTILES:
        exact = exact_quantile(x, percentile)
        assert exact * (1 - 1e-6) <= ranges.threshold("percentile", percentile) <= exact + ranges.bin_width


def test_memory_does_not_grow() -> None:
    """Neither with rows nor with magnitudes."""
    few, many = ranges_of(rows(10)), ranges_of(*(rows(1000, seed, 10.0**seed) for seed in range(12)))
    for name in ("absmax", "square_sum", "histogram"):
        assert getattr(few, name).shape == getattr(many, name).shape
    assert many.histogram.shape == (BINS,)


@pytest.mark.parametrize("method", METHODS)
def test_an_input_that_was_always_zero(method: str) -> None:
    """Any scale serves it, but none may be zero."""
    ranges = ranges_of(np.zeros((7, CHANNELS), np.float32), np.zeros((3, CHANNELS), np.float32))
    assert ranges.threshold(method) == 1.0
    assert ranges.output_absmax == 0.0


def test_zeros_before_anything_else_are_counted() -> None:
    """They are in the lowest bin once there are bins."""
    zeros, x = np.zeros((300, CHANNELS), np.float32), rows(100)
    ranges = ranges_of(zeros, x)
    assert ranges.histogram.sum() == zeros.size + x.size
    assert ranges.histogram[0] >= zeros.size
    assert ranges.threshold("percentile", 60) <= ranges.bin_width


@pytest.mark.parametrize("smallest", [1e-45, 1e-38, 1e-30])
@pytest.mark.filterwarnings("error")
def test_magnitudes_at_the_edge_of_fp32(smallest: float) -> None:
    """The least there are, and then ones whose squares overflow."""
    tiny, huge = np.full((4, 1), smallest, np.float32), np.full((4, 1), 1e30, np.float32)
    assert ranges_of(tiny).threshold("percentile") == tiny[0, 0]
    ranges = ranges_of(tiny, huge)
    assert ranges.threshold("percentile") == huge[0, 0]
    assert ranges.mean_square == pytest.approx([float(huge[0, 0]) ** 2 / 2])
    assert ranges.histogram.sum() == 8


def test_caches() -> None:
    """Largest magnitudes of keys and of values, over everything appended."""
    keys, values, ranges = rows(20, 1), rows(20, 2), CacheRanges()
    for start in (0, 10):
        ranges.add(keys[start : start + 10], values[start : start + 10])
    assert ranges == CacheRanges(float(np.abs(keys).max()), float(np.abs(values).max()))
