"""Places: directories that are replaced as a whole, by one writer at a time, and never lost (docs/adr/0020-places.md).

What a writer needs lies in one hidden work folder: `.NAME.foveal` beside the directory, from where it is renamed into place, or
`.foveal` inside it, where the directory can't be renamed (a mount point, the current directory, a parent that is read-only) or
holds other people's files. A work folder holds

    lock       held while its writer lives
    new/       what is being written
    leaving/   in place: the old contents, on their way out
    old/       the old contents, all of them; `new` is whole

Whoever holds the lock and finds more than that is looking at what a killed writer left: `settle` finishes it or takes it back.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import takewhile
from pathlib import Path

from .errors import StorageError
from .locks import Held, hold, is_held
from .storage import storage_errors

_SYSTEM_FOLDERS = {"lost+found"}
"""What a fresh file system holds."""
_REFUSES_RENAMES = {errno.EXDEV, errno.EBUSY}
"""What overlays and mount points answer."""
_REFUSES_NEW_FOLDERS = {errno.EACCES, errno.EPERM, errno.EROFS}
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_SWAP_SECONDS = 5.0
"""Replacing contents takes milliseconds."""


@contextmanager
def new_directory(
    path: Path,
    own: Sequence[str] = (),
    check: Callable[[Path], None] = lambda _: None,
    on_wait: Callable[[], None] = lambda: None,
) -> Iterator[Path]:
    """Yield an empty directory whose contents become those of `path` when the block ends well, and vanish when it does not.

    All that can be known is known before the block begins. A link is kept, and what it leads to is replaced. Beside the
    yielded directory there is room for other temporary files.

    Args:
        path: the directory to write.
        own: the names in it that belong to what is written, the one that makes it whole first; the rest is left alone. None:
            all of it is replaced.
        check: raises if what is at `path` must not be replaced.
        on_wait: called once if another process is writing there: this one goes on when that is done.

    Raises:
        StorageError: the place can't be written.
        Others: as `check`.
    """
    path = resolve(path)
    with storage_errors(path), ExitStack() as stack:
        if not _inner(path).is_dir():
            check(path)
        stack.enter_context(_parents(path))
        work = _take(path, own, stack, on_wait)
        check(path)
        new = work / "new"
        new.mkdir()
        yield new
        _sync(new)
        _put_in_place(path, new, own)


def resolve(path: str | Path) -> Path:
    """Where a path leads: absolute, through links.

    Raises:
        StorageError: it leads in a circle, or nowhere.
    """
    with storage_errors(path):
        real = Path(os.path.realpath(path))
        if real.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        return real


def settle(path: str | Path, own: Sequence[str]) -> None:
    """Finish or take back what a killed writer left at a place, and remove its work folder; a living writer is left alone.

    It costs two questions to the file system where there is nothing to do. Where nothing may be written, nothing is done.

    Raises:
        StorageError: the place is half replaced, and can't be mended.
    """
    real = Path(os.path.realpath(path))
    for work in (_outer(real), _inner(real)):
        if work.is_dir():
            _settle(real, work, own)


def is_being_written(path: str | Path) -> bool:
    """Whether a living process is writing a directory there."""
    real = Path(os.path.realpath(path))
    return any((work / "lock").exists() and is_held(work / "lock") for work in (_outer(real), _inner(real)))


def _settle(path: Path, work: Path, own: Sequence[str]) -> None:
    deadline = time.monotonic() + _SWAP_SECONDS
    while (work / "lock").exists() and is_held(work / "lock") and os.access(work / "lock", os.W_OK):
        is_whole = (path / own[0]).exists() or not _is_half_replaced(work)
        if is_whole or time.monotonic() > deadline:
            return
        time.sleep(0.01)
    try:
        with _working_in(path, work, own):
            pass
    except OSError as error:
        if _is_half_replaced(work) and not (path / own[0]).exists():
            raise StorageError(
                f"{path} was being replaced when its writer was killed, and can't be mended here ({error}); "
                f"run `foveal inspect {path}` where it may be written"
            ) from error


def _is_half_replaced(work: Path) -> bool:
    return (work / "leaving").exists() or (work / "old").exists()


def what_is_in(directory: Path) -> list[Path]:
    """What somebody put into a directory: all but the file system's own folders and the work folder."""
    return [entry for entry in directory.iterdir() if entry.name not in {*_SYSTEM_FOLDERS, _inner(directory).name}]


def _outer(path: Path) -> Path:
    return path.parent / f".{path.name}.foveal"


def _inner(path: Path) -> Path:
    return path / ".foveal"


def _take(path: Path, own: Sequence[str], stack: ExitStack, on_wait: Callable[[], None]) -> Path:
    """Shut other writers out, mend what a killed one left, and return the work folder to work in.

    The directory itself is held too: who sees it through another mount does not see the work folder beside it.
    """
    outer = None
    if not _is_mount(path):
        try:
            _outer(path).mkdir(exist_ok=True)
            outer = stack.enter_context(_working_in(path, _outer(path), own, on_wait))
        except OSError as error:
            if error.errno not in _REFUSES_NEW_FOLDERS or not path.is_dir():
                raise
    if path.is_dir() and (held := hold(path, create=False, on_wait=on_wait)) is not None:
        stack.enter_context(held)
    if outer is not None and _inner(path).is_dir():
        with _working_in(path, _inner(path), own, on_wait):
            pass
    if outer is not None and not (_others(path, own) or _is_current(path)):
        return outer
    return stack.enter_context(_working_in(path, _inner(path), own, on_wait))


@contextmanager
def _working_in(path: Path, work: Path, own: Sequence[str], on_wait: Callable[[], None] | None = None) -> Iterator[Path]:
    """Hold a work folder, and mend what was left in it; the same at the end, after which it is removed."""
    with _held(work, on_wait) as lock:
        if lock.is_certain:
            _recover(path, work, own)
        try:
            yield work
        finally:
            if lock.is_still_there():  # else it left with the directory that it was in
                _recover(path, work, own)
                with suppress(OSError):
                    lock.path.unlink()
                    work.rmdir()


def _held(work: Path, on_wait: Callable[[], None] | None) -> Held:
    while True:
        work.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):  # whoever held it removed the folder too
            if (lock := hold(work / "lock", on_wait=on_wait)) is not None:
                return lock


def _clear(work: Path) -> None:
    with suppress(OSError):  # the next command does it
        for entry in list(work.iterdir()):
            if entry.name != "lock":
                remove(entry)


def remove(path: Path) -> None:
    """Remove a file or a tree, also one of folders that are read-only, as far as it goes."""
    if path.is_symlink() or not path.is_dir():
        with suppress(OSError):
            path.unlink()
        return
    for folder, _, _ in os.walk(path):
        with suppress(OSError):
            os.chmod(folder, 0o700)
    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _parents(path: Path) -> Iterator[None]:
    """Make the folders above `path`; those that were made go again if nothing came of it."""
    missing = list(takewhile(lambda parent: not parent.exists(), path.parents))
    nearest = path.parents[len(missing)]
    if not nearest.is_dir():
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(nearest))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for parent in missing:
            with suppress(OSError):
                parent.rmdir()


def _others(path: Path, own: Sequence[str]) -> list[Path]:
    if not own or not path.is_dir():
        return []
    return [entry for entry in path.iterdir() if entry.name not in {*own, _inner(path).name}]


def _is_current(path: Path) -> bool:
    try:
        return os.path.samefile(path, os.curdir)
    except OSError:
        return False


def _is_mount(path: Path) -> bool:
    """Also of a folder of the same disk, which `os.path.ismount` does not see."""
    if path == path.parent or os.path.ismount(path):
        return True
    try:
        table = Path("/proc/self/mountinfo").read_bytes()
    except OSError:
        return False
    escaped = b"".join(b"\\%03o" % byte if byte in b"\\ \t\n" else bytes([byte]) for byte in os.fsencode(path))
    return any(line.split(b" ")[4] == escaped for line in table.splitlines())


def _sync(directory: Path) -> None:
    """To the disk, so that a power cut after the renaming finds the contents."""
    for path in (directory, *directory.rglob("*")):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _put_in_place(path: Path, new: Path, own: Sequence[str]) -> None:
    if new.parent == _inner(path):
        _replace_contents(path, new.parent, own)
        return
    try:
        _replace_directory(path, new)
    except OSError as error:
        if error.errno not in _REFUSES_RENAMES:
            raise
        with _working_in(path, _inner(path), own) as inner:
            os.rename(new, inner / "new")
            _replace_contents(path, inner, own)


def _replace_directory(path: Path, new: Path) -> None:
    """In one step where the system has one (Linux); else there is nothing at `path` for a moment, and `old` beside it."""
    if not path.exists():
        os.rename(new, path)
        return
    os.chmod(new, path.stat().st_mode & 0o7777)
    if _exchange(new, path):
        return
    old = new.with_name("old")
    os.rename(path, old)
    try:
        os.rename(new, path)
    except BaseException:
        os.rename(old, path)
        raise


def _exchange(new: Path, path: Path) -> bool:
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    if rename is None:
        return False
    given = (_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(path), _RENAME_EXCHANGE)
    if rename(*given) == 0:
        return True
    number = ctypes.get_errno()
    if number in _REFUSES_RENAMES:
        raise OSError(number, os.strerror(number), str(path))
    return False


def _replace_contents(path: Path, work: Path, own: Sequence[str]) -> None:
    """What makes a directory whole leaves first and comes last, so that a mixture is never taken for either."""
    leaving = work / "leaving"
    leaving.mkdir()
    for name in own or [entry.name for entry in what_is_in(path)]:
        _move(path / name, leaving / name)
    os.rename(leaving, work / "old")
    _move_in(work / "new", path, own)


def _move_in(source: Path, path: Path, own: Sequence[str]) -> None:
    last = own[0] if own else ""
    for entry in sorted(source.iterdir(), key=lambda entry: entry.name == last):
        _move(entry, path / entry.name)


def _move(source: Path, target: Path) -> None:
    """File by file, as overlays rename no folders of their lower layers; what was moved already stays moved."""
    if source.is_dir() and not source.is_symlink():
        target.mkdir(parents=True, exist_ok=True)
        for entry in list(source.iterdir()):
            _move(entry, target / entry.name)
        source.rmdir()
    elif os.path.lexists(source):
        os.rename(source, target)


def _recover(path: Path, work: Path, own: Sequence[str]) -> None:
    """Take the old directory back, or finish the new one; then remove the rest."""
    old, leaving = work / "old", work / "leaving"
    if work == _outer(path):
        if old.is_dir() and (not path.exists() or (path.is_dir() and not any(path.iterdir()))):
            os.rename(old, path)
    elif leaving.is_dir():
        _move_in(leaving, path, own)
    elif old.is_dir() and (work / "new").is_dir():
        _move_in(work / "new", path, own)
    _clear(work)
