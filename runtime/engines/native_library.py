"""The library foveal-native: found, loaded and asked for its version; its C functions, and pools of threads."""

from __future__ import annotations

import ctypes
import importlib
import threading
from ctypes import POINTER, c_char_p, c_float, c_int32, c_int64, c_void_p
from pathlib import Path
from weakref import WeakValueDictionary

from ...errors import BackendUnavailable

ABI = 1
"""Of `native/src/api.h`."""
SPIN_US = 50
"""How long a thread that waits for work watches for it before it sleeps: from step to step it need not be woken."""


INSTALL = "pip install ./native in foveal's folder, which takes a C++ compiler, or its wheel"


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


class FvInput(ctypes.Structure):
    """`struct fv_input`."""

    _fields_ = (("buffer", c_int32), ("is_ids", c_int32), ("parts", c_int32))


class FvProgram(ctypes.Structure):
    """`struct fv_program`."""

    _fields_ = (
        ("steps", POINTER(FvStep)),
        ("n_steps", c_int32),
        ("n_buffers", c_int32),
        ("widths", POINTER(c_int32)),
        ("inputs", POINTER(FvInput)),
        ("n_inputs", c_int32),
        ("n_caches", c_int32),
        ("output", c_int32),
        ("output_parts", c_int32),
        ("most_rows", c_int32),
        ("reserved", c_int32),
    )


class FvRows(ctypes.Structure):
    """`struct fv_rows`."""

    _fields_ = (("data", c_void_p), ("row_bytes", c_int64), ("part_bytes", c_int64))


class FvCache(ctypes.Structure):
    """`struct fv_cache`."""

    _fields_ = (("data", c_void_p), ("slot_bytes", c_int64), ("head_bytes", c_int64), ("rows", c_int64))


class FvCall(ctypes.Structure):
    """`struct fv_call`."""

    _fields_ = (
        ("rows", c_int32),
        ("logit_count", c_int32),
        ("row_index", c_void_p),
        ("slot", c_void_p),
        ("logit_rows", c_void_p),
        ("inputs", POINTER(FvRows)),
        ("caches", POINTER(FvCache)),
        ("output", FvRows),
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
            raise BackendUnavailable(f"foveal-native can't be loaded from {path}: {error}; {INSTALL}") from error
        if found != ABI:
            raise BackendUnavailable(f"foveal-native at {path} has version {found} of its interface, expected {ABI}; {INSTALL}")
        library.fv_isa.restype = c_char_p
        self.version = _version()
        self.isa = library.fv_isa().decode("ascii", "replace")
        """Which instructions of this CPU it uses."""
        self.pool_open = library.fv_pool_open
        self.pool_open.argtypes, self.pool_open.restype = [c_int32, c_int32], c_void_p
        self.pool_close = library.fv_pool_close
        self.pool_close.argtypes, self.pool_close.restype = [c_void_p], None
        self.open = library.fv_open
        self.open.argtypes, self.open.restype = [c_void_p, POINTER(FvProgram)], c_void_p
        self.close = library.fv_close
        self.close.argtypes, self.close.restype = [c_void_p], None
        self.run = library.fv_run
        """Of a stage, a `c_void_p`, and a call, a `byref`; no `argtypes` look at them in every call."""
        self.run.restype = c_int32
        self._error = library.fv_error
        self._error.restype = c_char_p

    def error(self) -> str:
        """What went wrong in the last call of this thread that failed."""
        return (self._error() or b"").decode("utf-8", "replace")


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
        raise BackendUnavailable(f"foveal-native is not installed; {INSTALL}") from error


_pools: WeakValueDictionary[tuple[int, int], Pool] = WeakValueDictionary()


def pool_of(library: NativeLibrary, threads: int) -> Pool:
    """The pool of so many threads, which all stages of this process share that ask for as many."""
    with _lock:
        pool = _pools.get((id(library), threads))
        if pool is None:
            pool = _pools[id(library), threads] = Pool(library, threads)
        return pool


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # here, as it takes 8 ms: only where there is a library

    try:
        return version("foveal-native")
    except PackageNotFoundError:
        return "of no distribution"


class Pool:
    """Threads that stages of this process share, the caller being the first of them."""

    def __init__(self, library: NativeLibrary, threads: int) -> None:
        self._library, self.threads = library, threads
        self.handle = library.pool_open(threads, SPIN_US)
        if not self.handle:
            raise BackendUnavailable(f"foveal-native can't start {threads} threads; ask for fewer: threads=1")

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self._library.pool_close(self.handle)
