"""Bytes of one matrix of weights in each precision, scales included."""

from __future__ import annotations

_LARGEST_W4, _SMALLEST_W4 = 128, 16
_LARGEST_W8, _SMALLEST_W8 = 256, 16


def product_bytes(rows: int, columns: int, precision: str, on_gpu: bool) -> float:
    """What reading a matrix `[rows, columns]` takes, as engines hold it (docs/precision.md).

    w8 on GPUs has a scale per column, as int8; on CPUs one per block of rows. A matrix whose rows no block of w4 divides stays
    fp32. fp16 is widened by CPU engines as they load it.
    """
    numbers = rows * columns
    if precision == "fp16":
        return numbers * (2 if on_gpu else 4)
    if precision == "int8" or (precision == "w8" and on_gpu):
        return numbers + 4 * columns
    if precision == "w8":
        block = next((size for size in _halved(_LARGEST_W8, _SMALLEST_W8) if rows % size == 0), _SMALLEST_W8)
        return numbers + 4 * columns * -(-rows // block)
    if precision == "w4":
        dividing = [size for size in _halved(_LARGEST_W4, _SMALLEST_W4) if rows % size == 0]
        several = [size for size in dividing if size < rows or size == _SMALLEST_W4]
        return numbers / 2 + 4 * columns * (rows // several[0]) if several else 4 * numbers
    return 4 * numbers


def _halved(largest: int, smallest: int) -> list[int]:
    sizes = [largest]
    while sizes[-1] > smallest:
        sizes.append(sizes[-1] // 2)
    return sizes
