"""The library foveal-native: found, loaded and asked for its version; its C functions, and pools of threads."""

from __future__ import annotations

import ctypes
import importlib
import threading
from ctypes import POINTER, c_char_p, c_float, c_int, c_int32, c_void_p
from pathlib import Path

from ...errors import BackendUnavailable, install

ABI = 1
"""Of `native/src/api.h`."""


class FvStep(ctypes.Structure):
    """`struct fv_step`."""

    _fields_ = (
        ("kind", c_int32),
        ("inputs", c_int32 * 4),
        ("outputs", c_int32 * 2),
        ("n", c_int32 * 12),
        ("f", c_float * 6),
        ("data", c_void_p * 8),
    )


class NativeLibrary:
    """The functions of a shared library.

    Raises:
        BackendUnavailable: it can't be loaded, or is of another version than this foveal.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            library = ctypes.CDLL(str(path))
            found = int(library.fv_abi())
        except (OSError, AttributeError) as error:
            raise BackendUnavailable(f"foveal-native can't be loaded from {path}: {error}; {install('native')}") from error
        if found != ABI:
            raise BackendUnavailable(
                f"foveal-native at {path} has version {found} of its interface, expected {ABI}; {install('native')}"
            )
        library.fv_isa.restype = c_char_p
        self.isa = library.fv_isa().decode("ascii", "replace")
        """Which instructions of this CPU it uses."""
        self.pool_open = library.fv_pool_open
        self.pool_open.argtypes, self.pool_open.restype = [c_int], c_void_p
        self.pool_close = library.fv_pool_close
        self.pool_close.argtypes, self.pool_close.restype = [c_void_p], None
        self.open = library.fv_open
        # pool; steps, n; widths of buffers, n; most rows; the buffer of each input (-1: ids), n; the buffer of the output
        self.open.argtypes = [c_void_p, POINTER(FvStep), c_int, POINTER(c_int32), c_int, c_int, POINTER(c_int32), c_int, c_int]
        self.open.restype = c_void_p
        self.close = library.fv_close
        self.close.argtypes, self.close.restype = [c_void_p], None
        self.run = library.fv_run
        """Without `argtypes`: callers give pointers and `c_int64` that stay as they are, and ints that are 32 bits wide."""
        self.run.restype = c_int


_lock = threading.Lock()
_loaded: NativeLibrary | BackendUnavailable | None = None


def native_library() -> NativeLibrary:
    """The library of the installed distribution foveal-native, loaded once.

    Raises:
        BackendUnavailable: it is not installed, or as `NativeLibrary`.
    """
    global _loaded
    with _lock:
        if _loaded is None:
            try:
                _loaded = NativeLibrary(_installed())
            except BackendUnavailable as error:
                _loaded = error
        if isinstance(_loaded, BackendUnavailable):
            raise _loaded
        return _loaded


def _installed() -> Path:
    try:
        return Path(importlib.import_module("foveal_native").path())
    except ImportError as error:
        raise BackendUnavailable(f"foveal-native is not installed; {install('native')}") from error


class Pool:
    """Threads that stages of this process share, the caller being the first of them."""

    def __init__(self, library: NativeLibrary, threads: int) -> None:
        self._library, self.threads = library, threads
        self.handle = library.pool_open(threads)
        if not self.handle:
            raise BackendUnavailable(f"foveal-native can't start {threads} threads; ask for fewer: threads=1")

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self._library.pool_close(self.handle)
