"""Bytes of a matrix, as docs/precision.md has them."""

from __future__ import annotations

import pytest

from foveal.forecast.product_bytes import product_bytes


@pytest.mark.parametrize(
    ("precision", "on_gpu", "expected"),
    [
        ("fp32", False, 4 * 512 * 64),
        ("fp16", True, 2 * 512 * 64),
        ("fp16", False, 4 * 512 * 64),  # widened as it is loaded
        ("int8", False, 512 * 64 + 4 * 64),
        ("w8", True, 512 * 64 + 4 * 64),
        ("w8", False, 512 * 64 + 4 * 64 * 2),  # blocks of 256
        ("w4", False, 512 * 64 / 2 + 4 * 64 * 4),  # blocks of 128
    ],
)
def test_a_matrix_of_512_rows_and_64_columns(precision: str, on_gpu: bool, expected: float) -> None:
    """Weights, and fp32 scales."""
    assert product_bytes(512, 64, precision, on_gpu) == expected


@pytest.mark.parametrize(("rows", "blocks"), [(128, 2), (96, 3), (48, 3), (16, 1)])
def test_blocks_of_w4_divide_the_rows_and_are_several_where_they_can(rows: int, blocks: int) -> None:
    """Of 128 rows two of 64; of 96 three of 32."""
    assert product_bytes(rows, 10, "w4", False) == rows * 10 / 2 + 4 * 10 * blocks


def test_rows_that_no_block_divides_stay_fp32() -> None:
    """As a build leaves them."""
    assert product_bytes(20, 10, "w4", False) == 4 * 200
