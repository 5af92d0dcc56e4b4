"""What TensorRT-RTX compiled for this GPU when an engine first ran, kept on disk for the next process."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ...files import cache_directory, keep

_log = logging.getLogger(__name__)


class RuntimeCache:
    """One engine's cache, shared by its execution contexts. Only TensorRT-RTX has one; for others it does nothing.

    The library itself checks that a file fits: version, GPU, driver and system. One that does not is written anew.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._cache, self._kept = path, None, b""  # type: Path, Any, bytes

    @classmethod
    def of(cls, engine_sha256: str) -> RuntimeCache:
        """The cache of the engine with that hash, in the user's cache directory."""
        return cls(cache_directory() / "rtx-kernels" / f"{engine_sha256}.cache")

    def attach(self, config: Any) -> None:
        """Let a context that is about to be created use it. `config` is the engine's `IRuntimeConfig`."""
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            self._load()
        config.set_runtime_cache(self._cache)

    def _load(self) -> None:
        try:
            kept = self.path.read_bytes()
        except OSError:  # the first time there is none
            return
        if self._cache.deserialize(kept):
            self._kept = kept
        else:
            _log.info("%s is of another GPU, driver or version; its kernels are compiled anew", self.path)

    def save(self) -> None:
        """Write down what was compiled since; what can't be written is compiled again next time."""
        compiled = b"" if self._cache is None else bytes(self._cache.serialize())
        if compiled == self._kept:
            return
        keep(self.path, compiled, "the kernels that TensorRT-RTX compiled")
        self._kept = compiled
