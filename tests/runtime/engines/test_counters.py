"""What the host counts for a CPU engine."""

from __future__ import annotations

import ctypes

import numpy as np
import numpy.typing as npt
import pytest

from foveal.runtime.engines.counters import FEW_ROWS, Counters


def rows_of(counters: Counters, first: int | npt.NDArray[np.int64], firings: int) -> list[list[int]]:
    """What an engine reads at the address that it is given."""
    address, shape = counters.rows(first, firings)
    numbers = (ctypes.c_int64 * (shape[0] * shape[1])).from_address(address)
    return np.array(numbers).reshape(shape).tolist()


@pytest.mark.parametrize(("rows", "is_chunk"), [(1, False), (2, False), (FEW_ROWS, False), (FEW_ROWS + 1, True), (100, True)])
def test_a_few_rows_go_the_way_of_one(rows: int, is_chunk: bool) -> None:
    counters = Counters(1, 200)
    counters.set(50, rows)
    assert counters.fixed["is_chunk"] == is_chunk


def test_a_chunk_is_counted_by_its_first_and_last_row() -> None:
    counters = Counters(2, 200)
    counters.set(50, 3)
    assert counters.fixed["position"].tolist() == [50, 50]
    assert counters.fixed["last_row"].tolist() == [52, 52]
    assert counters.fixed["total"].tolist() == [53]
    assert rows_of(counters, 50, 3) == [[50, 51, 52]] * 2


def test_sequences_may_stand_each_at_a_firing_of_its_own() -> None:
    counters = Counters(3, 200)
    firsts = np.array([7, 0, 150])
    counters.set(firsts, 1)
    assert counters.fixed["last_row"].tolist() == [7, 0, 150]
    assert counters.fixed["total"].tolist() == [151]
    assert rows_of(counters, firsts, 1) == [[7], [0], [150]]
