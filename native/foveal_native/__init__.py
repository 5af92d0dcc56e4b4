"""Where the shared library of native steps is; foveal loads it with ctypes (its C ABI: src/api.h)."""

from __future__ import annotations

from pathlib import Path

LIBRARY = "libfoveal_native.so"


def path() -> Path:
    """The library that was built with this package."""
    return Path(__file__).parent / LIBRARY
