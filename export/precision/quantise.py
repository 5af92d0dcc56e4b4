"""Weights to integers: numpy only, symmetric, so that zero stays zero and every compiler accepts it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
INT8_MAX = 127
_INT4_MAX = 7
BLOCK = 128
"""Preferred rows per block: longer ones cost fewer bytes and multiplications, shorter ones lose less."""
SMALLEST_BLOCK = 16
# A scale a little too small clips the largest weight and serves all the others better. Tried per block, the best is kept.
_SHRINK = (1.0, 0.95, 0.9, 0.85, 0.8)


class Quantised(NamedTuple):
    """Integers `[K, N]` and their scales: `[N]` by column, or `[K / block, N]` by block of rows."""

    values: npt.NDArray[np.int8]
    scales: Floats


def by_column(weight: Floats) -> Quantised:
    """8 bits, one scale per output column: `weight [K, N] ~ values * scales [N]`.

    The largest weight of a column is 127. Scales that clip it, searched as `by_block` does, would save 1 to 5 % of a squared
    error that is 5e-5 of the weight's square (the shipped Hourglass): not worth knowing the activations for.
    """
    scales = _positive(np.abs(weight).max(axis=0) / INT8_MAX)
    return Quantised(np.clip(np.rint(weight / scales), -INT8_MAX, INT8_MAX).astype(np.int8), scales)


def by_block(weight: Floats, block: int, importance: npt.NDArray[np.float64] | None = None) -> Quantised:
    """4 bits, one scale per `block` rows of a column, chosen for the least squared error.

    Args:
        weight: `[K, N]`, K a multiple of `block`.
        block: rows that share a scale.
        importance: `[K]` mean square of each input channel, which weighs the error; None: all alike.
    """
    rows, columns = weight.shape
    blocks = weight.reshape(rows // block, block, columns)
    cost = np.ones(rows) if importance is None else importance
    weights = cost.reshape(rows // block, block, 1).astype(np.float32)
    full = _positive(np.abs(blocks).max(axis=1, keepdims=True) / _INT4_MAX)
    best, best_error = full, np.full(full.shape, np.inf, np.float32)
    for shrink in _SHRINK:
        scales = (full * np.float32(shrink)).astype(np.float32)
        error = (weights * (_rounded(blocks, scales) * scales - blocks) ** 2).sum(axis=1, keepdims=True)
        best = np.where(error < best_error, scales, best)
        best_error = np.minimum(error, best_error)
    values = _rounded(blocks, best).astype(np.int8).reshape(rows, columns)
    return Quantised(values, best.reshape(rows // block, columns))


def block_for(rows: int) -> int | None:
    """The largest power of two, at most the preferred block, that divides `rows`; None if it would be below 16.

    There are two blocks at least, if there is room: TensorRT-RTX widens int4 weights as it multiplies if they have several
    blocks, and in a kernel of their own, to memory, if they have one.
    """
    block = BLOCK
    while rows % block or block == rows > SMALLEST_BLOCK:
        block //= 2
    return block if block >= SMALLEST_BLOCK else None


def migration(
    weight: Floats,
    absmax: Floats,
    mean_square: npt.NDArray[np.float64],
    clip: float = 1.0,
    alphas: tuple[float, ...] = (0.25, 0.5, 0.75),
) -> Floats | None:
    """Scales `[K]` to divide the input channels and multiply the weight's rows by, or None if none lowers the error.

    SmoothQuant (arXiv 2211.10438, equation 4): `absmax(x) ** a / absmax(w) ** (1 - a)`. Which a, and whether at all, is decided
    by the noise that rounding adds to the product: `step_x^2 / 12 * sum w^2 + step_w^2 / 12 * sum x^2`.

    Args:
        weight: `[K, N]`.
        absmax: `[K]` largest magnitude of each input channel.
        mean_square: `[K]` mean square of each input channel.
        clip: threshold of the activations as a share of their largest magnitude.
        alphas: which a to try.
    """
    best, least = None, _noise(weight, absmax, mean_square, clip)
    of_weight = np.abs(weight).max(axis=1)
    for alpha in alphas:
        scales = _positive(np.maximum(absmax, 1e-5) ** alpha / np.maximum(of_weight, 1e-5) ** (1 - alpha))
        noise = _noise(weight * scales[:, None], absmax / scales, mean_square / scales**2, clip)
        if noise < least:
            best, least = scales, noise
    return best


def _noise(weight: Floats, absmax: Floats, mean_square: npt.NDArray[np.float64], clip: float) -> float:
    step_x = float(absmax.max()) * clip / INT8_MAX
    step_w = np.abs(weight).max(axis=0) / INT8_MAX
    return step_x**2 * float((weight.astype(np.float64) ** 2).sum()) + float(mean_square.sum()) * float((step_w**2).sum())


def _rounded(blocks: Floats, scales: Floats) -> Floats:
    rounded: Floats = np.clip(np.rint(blocks / scales), -_INT4_MAX - 1, _INT4_MAX)
    return rounded


def _positive(scales: npt.NDArray[np.floating]) -> Floats:
    """A block of zeros gets scale 1: any serves, and compilers refuse 0."""
    result: Floats = np.where(scales > 0, scales, 1.0).astype(np.float32)
    return result
