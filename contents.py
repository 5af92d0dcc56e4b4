"""Whether the files of a bundle hold what its manifest says: each is hashed once, before it is used.

With `verify="once"` large files that were whole are remembered:

    checked/<key>.json    in `files.cache_directory()`: a `_Seen`, by path and SHA-256

Such a file is hashed again when its place, size or either of its times is another. That finds whatever was written to it since,
and not a disk that gives other bytes for the same file.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec

from .errors import BundleError
from .files import cache_directory, sha256_of, write_atomically
from .json_files import decode
from .parallel import together

_log = logging.getLogger("foveal")

Verify = Literal["used", "all", "once"]
"""Which files of a bundle are hashed: those that are used, before they are; all; or those used, but large ones once only."""
VERIFY: tuple[Verify, ...] = ("used", "all", "once")
_REMEMBERED_BYTES = 1 << 20
"""Smaller files are hashed always: that takes less than to look them up."""
_SETTLED_SECONDS = 2.0
"""A file that was written later than this ago may be written again within the same tick of its clock."""
_LONGEST_BYTES = 1 << 16


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Size and hash of one file."""

    bytes: int
    sha256: str


class Contents:
    """The files of a bundle, by name. Any thread may ask, and no file is hashed twice.

    Args:
        directory: of the bundle.
        files: their sizes and hashes.
        remembers: take large files as whole that this machine has hashed, and that nobody wrote to since.
    """

    def __init__(self, directory: Path, files: Mapping[str, FileEntry], remembers: bool = False) -> None:
        self._directory, self._files, self._remembers = directory, files, remembers
        self._turns = {name: threading.Lock() for name in files}
        self._whole: set[str] = set()

    def check(self, name: str) -> None:
        """Hash a file that the manifest names, if that was not done.

        Raises:
            BundleError: it is missing, truncated or altered.
            StorageError: it can't be read.
        """
        with self._turns[name]:
            if name not in self._whole:
                check_size(self._directory, name, self._files[name])
                self._check_hash(self._directory / name, self._files[name])
                self._whole.add(name)

    def check_all(self, names: Collection[str]) -> None:
        """As `check`, of several at once; of several that are not whole, the first by name is said."""
        ordered = sorted(names)
        together([partial(self.check, name) for name in ordered], [self._files[name].bytes for name in ordered])

    def _check_hash(self, path: Path, entry: FileEntry) -> None:
        remembers = self._remembers and entry.bytes >= _REMEMBERED_BYTES
        seen = _Seen.of(path, entry.sha256) if remembers else None
        if seen is not None and seen.is_kept():
            _log.info("%s: hashed before, and not written to since", path)
            return
        if sha256_of(path) != entry.sha256:
            raise BundleError(f"{path} was altered: its SHA-256 differs from the manifest's; copy the bundle again")
        if seen is not None and seen.is_settled() and seen == _Seen.of(path, entry.sha256):
            seen.keep()


def check_size(directory: Path, name: str, entry: FileEntry) -> None:
    """Raise BundleError unless a file is there, of its size."""
    path = directory / name
    if not path.is_file():
        raise BundleError(f"{path} is missing; copy the bundle again")
    size = path.stat().st_size
    if size != entry.bytes:
        raise BundleError(f"{path} has {size} bytes, expected {entry.bytes}; it is truncated or altered: copy the bundle again")


class _Seen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file as it was when its contents were hashed. `changed_ns` is set by the system at every write and rename."""

    path: str
    sha256: str
    device: int
    inode: int
    bytes: int
    written_ns: int
    changed_ns: int

    @staticmethod
    def of(path: Path, sha256: str) -> _Seen:
        """As it is now; of a link, what it leads to."""
        found = path.stat()
        return _Seen(
            os.path.realpath(path), sha256, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
        )

    def is_settled(self) -> bool:
        """Whether a write from now on would show in its times."""
        return abs(time.time() - max(self.written_ns, self.changed_ns) / 1e9) > _SETTLED_SECONDS

    def is_kept(self) -> bool:
        """Whether it was hashed in just this state; what can't be read was not."""
        try:
            path = self._place()
            if not path.is_file() or path.stat().st_size > _LONGEST_BYTES:
                return False
            return decode(path.read_bytes(), _Seen) == self
        except (OSError, RuntimeError, ValueError):
            return False

    def keep(self) -> None:
        """For the next process; where that can't be written, it hashes again."""
        try:
            path = self._place()
            if not path.exists() or path.is_file():  # to write to a pipe would wait for a reader
                write_atomically(path, msgspec.json.encode(self), is_lasting=False)
        except (OSError, RuntimeError) as error:
            _log.info("can't keep that %s is whole: %s; it is hashed again next time", self.path, error)

    def _place(self) -> Path:
        key = hashlib.sha256(f"{self.sha256} {self.path}".encode("utf-8", "surrogateescape")).hexdigest()
        return cache_directory() / "checked" / f"{key}.json"
