"""Writing files so that a reader never sees half of one, and what is left of a process that was killed goes away."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .locks import Held, hold, is_held
from .storage import storage_errors

_log = logging.getLogger("foveal")
_PART = ".foveal-part"
_SCRATCH = "foveal-scratch-"
NOWHERE = Path(os.devnull) / "foveal"
"""A folder that can't be made: the cache where no home directory is known."""
_WRITE_INTO = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EXDEV}
"""What a folder answers in which a file can be changed but not replaced: it is a mount point, or the folder is read-only."""


def write_atomically(path: Path, data: bytes, is_lasting: bool = True) -> None:
    """Write `data` beside `path`, then rename: after a crash the old file or the new one is there, whole.

    A link is kept, and what it leads to is replaced. A device or a pipe is written to; so is a file whose folder lets nothing
    be renamed. Of what can be had again, and is not `is_lasting`, nothing may be there when the machine itself fails within
    seconds: it is not waited for until the disk has it, which takes ten milliseconds.

    Raises:
        StorageError: the disk refuses; what was there is as it was.
    """
    with storage_errors(path), _told_of(path):
        path = Path(os.path.realpath(path))
        if path.exists() and not (path.is_file() or path.is_dir()):
            path.write_bytes(data)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _replace(path, data, is_lasting)
        except OSError as error:
            if error.errno not in _WRITE_INTO or not path.is_file() or not os.access(path, os.W_OK):
                raise
            path.write_bytes(data)


def require_place(path: Path) -> None:
    """See before long work that `write_atomically` will find a place for its result: raises StorageError if it won't."""
    with storage_errors(path), _told_of(path):
        path = Path(os.path.realpath(path))
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if path.exists() and os.access(path, os.W_OK):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    """What is refused to a temporary file beside `path` is told of `path`, which is the one that the user named."""
    try:
        yield
    except OSError as error:
        folder = Path(os.path.realpath(path)).parent
        if isinstance(error.filename, str) and Path(error.filename).parent == folder:
            error.filename = str(path)
            del error.filename2  # of a rename
        raise


def _replace(path: Path, data: bytes, is_lasting: bool) -> None:
    clear_parts(path.parent)
    part = _new_part(path)
    try:
        with part:
            _write_all(part.descriptor, data)
            with suppress(PermissionError):  # some network disks know no modes
                os.fchmod(part.descriptor, stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o644)
            if is_lasting:
                os.fsync(part.descriptor)
            os.replace(part.path, path)
    except BaseException:
        with suppress(OSError):
            part.path.unlink(missing_ok=True)
        raise


def _new_part(path: Path) -> Held:
    """A file beside `path` that is held, so that `clear_parts` of another process leaves it alone."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:200]}.", suffix=_PART)
        os.close(handle)
        if (held := hold(Path(name), create=False)) is not None:
            return held


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def clear_parts(directory: Path) -> None:
    """Remove what processes that were killed had written halfway in a folder."""
    for part in directory.glob(f".*{_PART}"):
        if not is_held(part):
            with suppress(OSError):
                part.unlink(missing_ok=True)


def keep(path: Path, data: bytes, what: str) -> bool:
    """Write what can be had again, such as a report or a cache; where it can't be written, say so and go on.

    Returns:
        Whether it was written.
    """
    try:
        write_atomically(path, data)
    except OSError as error:
        reason = "there is no home directory; set FOVEAL_CACHE" if NOWHERE in path.parents else error
        _log.warning("can't keep %s: %s", what, reason)
        return False
    return True


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """Yield a folder for temporary files that vanishes after the block; what killed processes left of theirs goes too."""
    parent = Path(tempfile.gettempdir())
    for lock in parent.glob(f"{_SCRATCH}*/lock"):
        if not is_held(lock):
            shutil.rmtree(lock.parent, ignore_errors=True)
    with storage_errors(parent):
        held = _new_scratch(parent)
    with held:
        try:
            yield held.path.parent
        finally:
            shutil.rmtree(held.path.parent, ignore_errors=True)


def _new_scratch(parent: Path) -> Held:
    while True:
        made = Path(tempfile.mkdtemp(dir=parent, prefix=_SCRATCH))
        with suppress(FileNotFoundError):  # another process cleared it before it was held
            if (held := hold(made / "lock")) is not None:
                return held


def cache_directory() -> Path:
    """Where foveal keeps what it can make again: `$FOVEAL_CACHE`, else `foveal` in the user's cache directory.

    Without a home directory it is a folder that can't be made: use `keep` to write there.
    """
    chosen = os.environ.get("FOVEAL_CACHE") or ""
    if chosen:
        return Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "foveal"
    except RuntimeError:  # no HOME, and a user that the system does not know
        return NOWHERE


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
