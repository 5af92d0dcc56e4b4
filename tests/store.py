"""What a whole run of the tests makes once, whichever of its processes asks first: small models, converted."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from foveal.files import sha256_of, write_atomically


class Store:
    """Directories by name, shared by all processes of a run; tests must not change what is in them, but may add to it.

    A run starts with an empty store, so nothing in it was made by other code than what is tested.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def once(self, name: str, make: Callable[[Path], object]) -> Path:
        """The directory of a name; where there is none yet, `make` fills it. Others who ask meanwhile wait for it.

        What `make` raises is raised, and the next who asks tries again.
        """
        made, whole = self.directory / name, self.directory / f"{name}.whole"
        if whole.exists():
            return made
        made.parent.mkdir(parents=True, exist_ok=True)
        with Path(f"{made}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed, or the process is gone
            if not whole.exists():
                shutil.rmtree(made, ignore_errors=True)  # of one that failed halfway
                made.mkdir()
                make(made)
                write_atomically(whole, json.dumps(_hashes(made)).encode())
        return made

    def changed(self) -> list[Path]:
        """Files that are not as they were made."""
        found = []
        for whole in sorted(self.directory.rglob("*.whole")):
            hashes, made = json.loads(whole.read_text()), whole.with_suffix("")
            found += [made / name for name, was in hashes.items() if _hash(made / name) != was]
        return found


def _hashes(directory: Path) -> dict[str, str | None]:
    """By path in the directory."""
    return {path.relative_to(directory).as_posix(): _hash(path) for path in sorted(directory.rglob("*")) if path.is_file()}


def _hash(file: Path) -> str | None:
    return sha256_of(file) if file.is_file() else None
