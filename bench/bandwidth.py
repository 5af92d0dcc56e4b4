"""How fast this machine reads memory: the roof under which every decode step lives."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .environment import usable_cpus

_BYTES = 512 << 20  # far beyond any last-level cache
_ROUNDS = 5


def read_bandwidth_gb_s() -> float:
    """Best GB/s (1e9 bytes) of reading 512 MiB once, over 1 to all usable CPUs.

    The reader is BLAS's dot product of a block with itself: one stream, two flops per element, nothing written.
    """
    data = np.ones(_BYTES // 4, np.float32)
    return max(_read(data, threads) for threads in sorted({1, usable_cpus()}))


def _read(data: np.ndarray, threads: int) -> float:
    parts = np.array_split(data, 16 * threads)
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(_ROUNDS):
            began = time.perf_counter()
            list(pool.map(lambda part: np.dot(part, part), parts))
            best = min(best, time.perf_counter() - began)
    return data.nbytes / best / 1e9
