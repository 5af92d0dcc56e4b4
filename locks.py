"""Files that are held: as long as their process lives, on whatever machine or in whatever container it runs.

A number of a process says nothing outside its machine, and comes again; the kernel lets go of `flock` when a process dies.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

try:
    import fcntl
except ImportError:  # Windows: nothing is held, and nothing is cleared
    fcntl = None  # type: ignore[assignment]

_log = logging.getLogger("foveal")
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF}


@dataclass
class Held:
    """A file that this process holds; `is_certain` says whether the file system does know locks."""

    path: Path
    descriptor: int
    is_certain: bool

    def is_still_there(self) -> bool:
        """Whether it is the file at its path."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self.descriptor))
        except FileNotFoundError:
            return False

    def __enter__(self) -> Held:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self.descriptor)


def hold(path: Path, *, create: bool = True, on_wait: Callable[[], None] | None = None) -> Held | None:
    """Hold a file or a directory, after whoever holds it now; None: it is not there (any more) and was not to be made.

    Args:
        path: the file; its folder exists.
        create: make it if it is not there.
        on_wait: called once if somebody else holds it.

    Raises:
        OSError: it can't be opened.
    """
    while True:
        try:
            descriptor = os.open(path, (os.O_CREAT if create else 0) | _flags(path), 0o666)
        except FileNotFoundError:
            if create:
                raise
            return None
        try:
            held = Held(path, descriptor, _lock(descriptor, on_wait))
            if not held.is_certain or held.is_still_there():
                return held
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # whoever held it removed it


def is_held(path: Path) -> bool:
    """Whether a living process holds a file; also where nobody can tell."""
    try:
        descriptor = os.open(path, _flags(path))
    except OSError:
        return True
    try:
        return fcntl is None or not _try(descriptor)
    except OSError:
        return True
    finally:
        os.close(descriptor)


def _flags(path: Path) -> int:
    """Directories can be held as well, but not on network disks, which lock only what is open for writing."""
    return os.O_CLOEXEC | (os.O_RDONLY if path.is_dir() else os.O_RDWR)


def _lock(descriptor: int, on_wait: Callable[[], None] | None) -> bool:
    if fcntl is None:
        return False
    try:
        if not _try(descriptor):
            if on_wait is not None:
                on_wait()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        _log.warning("this file system knows no locks (%s): let no two commands write to one bundle", error.strerror)
        return False
    return True


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
