"""Ranges that profilers show: one for each stage that is queued, under NVIDIA's nvtx package where it is installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

try:
    import nvtx
except ImportError:  # a convenience for profiling, of no consequence to results
    nvtx = None


@contextmanager
def range(label: str) -> Iterator[None]:
    """Mark what is queued inside as `foveal <label>`."""
    if nvtx is None:
        yield
        return
    nvtx.push_range(f"foveal {label}", domain="foveal")
    try:
        yield
    finally:
        nvtx.pop_range(domain="foveal")
