"""What a matrix product's activations are like: gathered in bounded memory, whatever the length of the text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Method = Literal["minmax", "percentile", "entropy"]
METHODS = get_args(Method)
BINS = 2048
_ENTROPY_BINS = 1024  # the search for the threshold is quadratic in them
_QUANTISED_BINS = 128
_TINY = 1e-30  # a histogram up to less would have bins whose reciprocal fp32 can't hold


@dataclass
class CacheRanges:
    """Largest magnitudes of the keys and of the values that an attention keeps."""

    key_absmax: float = 0.0
    value_absmax: float = 0.0

    def add(self, keys: Floats, values: Floats) -> None:
        """Count rows `[rows, H * Dh]`, all finite."""
        self.key_absmax = max(self.key_absmax, float(np.abs(keys).max()))
        self.value_absmax = max(self.value_absmax, float(np.abs(values).max()))


@dataclass
class ProductRanges:
    """Statistics of one product's input x `[rows, K]` and of its output.

    Attributes:
        rows: rows seen.
        absmax: `[K]` largest magnitude of each input channel.
        square_sum: `[K]` float64, sum of squares of each input channel.
        histogram: `[BINS]` int64, magnitudes of x from 0 in steps of `bin_width`.
        bin_width: doubles, and pairs of bins are merged, whenever a larger magnitude comes.
        output_absmax: largest magnitude of the product, bias included.
    """

    absmax: Floats
    square_sum: npt.NDArray[np.float64]
    rows: int = 0
    histogram: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    bin_width: float = 0.0
    output_absmax: float = 0.0

    @classmethod
    def empty(cls, channels: int) -> ProductRanges:
        """Nothing seen yet of an input of so many channels."""
        return cls(np.zeros(channels, np.float32), np.zeros(channels, np.float64))

    def add(self, x: Floats, y: Floats) -> None:
        """Count rows x `[rows, K]`, all finite, and the product y `[rows, N]` they gave."""
        magnitudes = np.abs(x)
        self.rows += len(x)
        self.absmax = np.maximum(self.absmax, magnitudes.max(axis=0))
        self.square_sum += np.einsum("rk,rk->k", x, x, dtype=np.float64)
        self.output_absmax = max(self.output_absmax, float(np.abs(y).max()))
        self._widen(float(magnitudes.max()))
        if self.bin_width > 0:
            bins = np.minimum((magnitudes.ravel() * np.float32(1 / self.bin_width)).astype(np.int64), BINS - 1)
            self.histogram += np.bincount(bins, minlength=BINS)
        else:
            self.histogram[0] += magnitudes.size

    def _widen(self, largest: float) -> None:
        if self.bin_width == 0:
            self.bin_width = max(largest, _TINY) / BINS if largest > 0 else 0.0
        while largest > self.bin_width * BINS:
            merged = self.histogram.reshape(-1, 2).sum(axis=1)
            self.histogram = np.concatenate([merged, np.zeros(BINS // 2, np.int64)])
            self.bin_width *= 2

    @property
    def mean_square(self) -> npt.NDArray[np.float64]:
        """`[K]` mean square of each input channel."""
        return self.square_sum / max(self.rows, 1)

    def threshold(self, method: Method, percentile: float = 99.99) -> float:
        """The magnitude that the largest quantised value should stand for; never 0.

        `minmax` clips nothing; `percentile` clips so that this share of all values is kept; `entropy` loses least information
        (Kullback-Leibler divergence of the quantised histogram, onnxruntime.quantization's search).
        """
        largest = float(self.absmax.max(initial=0.0))
        if largest == 0.0:
            return 1.0  # an input that was always zero: any scale serves
        if method == "minmax":
            return largest
        found = self._entropy() if method == "entropy" else self._percentile(percentile)
        return min(found, largest)

    def _percentile(self, percentile: float) -> float:
        kept = np.cumsum(self.histogram) >= percentile / 100 * self.histogram.sum()
        return float((np.argmax(kept) + 1) * self.bin_width)

    def _entropy(self) -> float:
        from onnxruntime.quantization.calibrate import HistogramCollector

        half = self.histogram.reshape(_ENTROPY_BINS // 2, -1).sum(axis=1)
        edge = self.bin_width * BINS
        edges = np.linspace(-edge, edge, _ENTROPY_BINS + 1, dtype=np.float32)
        # Mirrored, as it is only known by magnitude; what was 2 n values of one side is n of each.
        histogram: tuple[Any, ...] = (np.concatenate([half[::-1], half]), edges, np.float32(-edge), np.float32(edge), edge)
        collector = HistogramCollector("entropy", True, _ENTROPY_BINS, _QUANTISED_BINS, 99.99, "same")
        return float(abs(collector.get_entropy_threshold(histogram, _QUANTISED_BINS)[1]))
