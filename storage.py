"""What a file system refused, in one line: which path, why, and what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import FovealError, StorageError

_REMEDIES = {
    errno.ENOSPC: "free some space, or choose a path on another disk",
    errno.EDQUOT: "free some of your quota, or choose a path on another disk",
    errno.EFBIG: "raise the limit on file sizes, or choose a path on another disk",
    errno.EROFS: "choose a path on a disk that is mounted for writing",
    errno.EACCES: "give yourself permission there, or choose another path",
    errno.EPERM: "give yourself permission there, or choose another path",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of the path is a file; choose another path",
    errno.EISDIR: "it is a directory, expected a file; choose another path",
    errno.EEXIST: "something is there already; choose another path",
    errno.ENOTEMPTY: "something is there already; choose another path",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.ELOOP: "the path is a circle of links; choose another path",
    errno.EXDEV: "choose a path that is on one disk with its folder",
    errno.EBUSY: "it is in use, or a mount point; choose a path inside it",
    errno.ETXTBSY: "a running program uses it; stop it, or choose another path",
    errno.EIO: "the disk may be failing: check it, and choose a path on another",
    errno.ESTALE: "the network disk lost it; mount it again and repeat the command",
    errno.EMFILE: "raise the limit on open files: ulimit -n",
    errno.ENFILE: "close other programs: the system has no open files left",
    errno.ENOMEM: "free some memory and repeat the command",
}


@contextmanager
def storage_errors(path: str | Path | None = None) -> Iterator[None]:
    """Turn an OSError inside the block (or the function it decorates) into a StorageError; `path` is named if it names none."""
    try:
        yield
    except (FovealError, ConnectionError, InterruptedError):  # a closed pipe is no disk
        raise
    except OSError as error:
        raise named(error, path) from error


def named(error: OSError, path: str | Path | None = None) -> StorageError:
    """The StorageError for an OSError."""
    found = StorageError(f"{said(error, path)}; {_REMEDIES.get(error.errno or 0, 'check the path and the disk')}")
    found.errno, found.strerror, found.filename = error.errno, error.strerror, error.filename or path
    return found


def said(error: OSError, path: str | Path | None = None) -> str:
    """Which path, and why; in one line."""
    if isinstance(error, StorageError):
        return str(error)
    paths = [error.filename if error.filename is not None else path, error.filename2]
    where = " to ".join(os.fsdecode(path) for path in paths if path is not None and not isinstance(path, int))
    reason = " ".join((error.strerror or str(error) or type(error).__name__).split())
    return f"{where}: {reason}" if where else reason


def innermost(error: BaseException) -> BaseException:
    """The error that others were raised from."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error
