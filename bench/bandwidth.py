"""How fast this machine reads memory: the roof under which every decode step lives."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .environment import usable_cpus

_BYTES = 512 << 20  # far beyond any last-level cache
_READS = 4
_PARTS = 16  # per thread, so that a thread that was held up does not hold up the read


class MemoryReader:
    """Reads 512 MiB over all usable CPUs; as a context manager it frees them at the end.

    The reader is BLAS's dot product of a block with itself: one stream, two flops per element, nothing written.
    """

    def __init__(self) -> None:
        threads = usable_cpus()
        self._parts = np.array_split(np.ones(_BYTES // 4, np.float32), _PARTS * threads)
        self._pool = ThreadPoolExecutor(threads)

    def gb_s(self) -> float:
        """The best of a few reads, in GB/s (1e9 bytes)."""
        best = float("inf")
        for _ in range(_READS):
            began = time.perf_counter()
            list(self._pool.map(lambda part: np.dot(part, part), self._parts))
            best = min(best, time.perf_counter() - began)
        return _BYTES / best / 1e9

    def __enter__(self) -> MemoryReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._parts = []
        self._pool.shutdown()
