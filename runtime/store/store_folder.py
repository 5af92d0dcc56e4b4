"""The files of a store of sequences: one for each block, and one that says which of them a sequence is.

    DIRECTORY/IDENTITY/lock               held by the store that is open on it
    DIRECTORY/IDENTITY/sequences/KEY      of each sequence its key (of which KEY is a hash), tokens, and the sizes of its blocks
    DIRECTORY/IDENTITY/blocks/12/1234...  of each block what it wrote

IDENTITY is a hash of what the state is of, so that stores of several bundles may have one directory. A sequence's own file is
written last and removed first: a process that is killed leaves blocks that nobody needs, which the next store removes. All
files have a checksum, and hold the users' tokens: only the user who runs the process may read the folder.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Container, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from ...errors import ConfigError, InputError, StorageError
from ...files import clear_parts, write_atomically
from ...locks import hold
from ...storage import storage_errors
from ..decoder import Written
from ..packed import PackedArray, Versioned, opened, pack, sealed, unpack
from ..rows import Ids
from .blocks import BLOCK_TOKENS, Block, StoredSequence

_BLOCK, _SEQUENCE = b"foveal block\n", b"foveal sequence\n"
_VERSION = 1
_PER_ARRAY, _PER_FILE = 64, 512
"""At most so many bytes of a file are none of what was written."""


class Record(Versioned, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is written of a sequence beside its blocks."""

    identity: str
    key: str
    salt: str
    reached: int
    block_tokens: int
    tokens: PackedArray
    nbytes: list[int]
    file_bytes: list[int]

    def ids(self) -> Ids:
        """Of its tokens, `[B, T]`.

        Raises:
            InputError: they are none, or of a store whose blocks are of another length.
        """
        try:
            ids = self.tokens.array()
        except (ValueError, TypeError) as error:
            raise InputError(f'the tokens of "{self.key}" can\'t be read ({error})') from None
        if ids.ndim != 2 or ids.dtype != np.int64 or self.block_tokens != BLOCK_TOKENS:
            raise InputError(f'"{self.key}" was stored in blocks of {self.block_tokens} tokens, expected {BLOCK_TOKENS}')
        return ids


class _Block(Versioned, frozen=True, forbid_unknown_fields=True):
    name: str
    rows: list[PackedArray | None]
    caches: list[list[PackedArray]]
    boundaries: list[PackedArray] = msgspec.field(default_factory=list)


_Kind = TypeVar("_Kind", Record, _Block)


class StoreFolder:
    """The folder of what one store keeps on disk.

    Raises:
        ConfigError: another store is open on it.
        StorageError: it can't be made.
    """

    def __init__(self, directory: Path, identity: str) -> None:
        self._identity, self._name = identity, hashlib.sha256(identity.encode()).hexdigest()[:32]
        self.path, self.directory = directory / self._name, directory
        self._sequences, self._blocks = self.path / "sequences", self.path / "blocks"
        with storage_errors(directory):
            for folder in (self.path, self._sequences, self._blocks):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            held = hold(self.path / "lock", on_wait=self._refuse)
        if held is None:  # which `hold` says only of files that it was not to make
            self._refuse()
        else:
            self._held = held

    def _refuse(self) -> None:
        raise ConfigError(
            f"another store, of this process or another, keeps sequences of this bundle in {self.directory}; "
            "close it, or give each store a directory of its own"
        )

    @property
    def others(self) -> int:
        """Folders beside it: of other bundles or targets."""
        with storage_errors(self.directory):
            return sum((path / "sequences").is_dir() and path.name != self._name for path in self.directory.iterdir())

    def records(self) -> Iterator[tuple[Path, Record | InputError]]:
        """The sequences there are, those used first first; or why one can't be had."""
        with storage_errors(self._sequences):
            clear_parts(self._sequences)
            files = [path for path in self._sequences.iterdir() if not path.name.startswith(".")]
            for path in sorted(files, key=lambda path: path.stat().st_mtime_ns):
                try:
                    record = _decoded(path, _SEQUENCE, path.read_bytes(), Record)
                    if record.identity != self._identity or self._record_file(record.key) != path:
                        raise InputError(f"{path} is of another bundle or another key")
                    yield path, record
                except InputError as error:
                    yield path, error

    def write_record(self, sequence: StoredSequence) -> int:
        """Say which blocks a sequence is, all of which are there; its file's size is returned.

        Raises:
            StorageError: the disk refuses; what was there is as it was.
        """
        record = Record(
            version=_VERSION,
            identity=self._identity,
            key=sequence.key,
            salt=sequence.salt,
            reached=sequence.reached,
            block_tokens=BLOCK_TOKENS,
            tokens=PackedArray.of(sequence.tokens),
            nbytes=[block.nbytes for block in sequence.path],
            file_bytes=[block.file_bytes for block in sequence.path],
        )
        data = sealed(_SEQUENCE, msgspec.msgpack.encode(record))
        write_atomically(self._record_file(sequence.key), data)
        return len(data)

    def remove_record(self, key: str) -> None:
        """A sequence is no more; its blocks are still there. Raises StorageError where the disk refuses."""
        self.remove(self._record_file(key))

    def touch(self, key: str) -> None:
        """Let a sequence be among those used last, for the store that finds it."""
        now = time.time_ns()  # finer than what the system notes by itself
        with suppress(OSError):
            os.utime(self._record_file(key), ns=(now, now))

    def write_block(self, name: str, written: Written) -> int:
        """Keep what a block wrote; its file's size is returned. Raises StorageError where the disk refuses."""
        data = sealed(_BLOCK, msgspec.msgpack.encode(_Block(_VERSION, name, *pack(written))))
        write_atomically(self._block_file(name), data)
        return len(data)

    def read_block(self, name: str) -> Written:
        """What `write_block` was given.

        Raises:
            InputError: the file is not there any more, cut short or altered.
            StorageError: the disk refuses.
        """
        path = self._block_file(name)
        try:
            with storage_errors(path):
                block = _decoded(path, _BLOCK, path.read_bytes(), _Block)
                if block.name != name:
                    raise InputError(f"{path} is another block's")
            return unpack(block.rows, block.caches, block.boundaries)
        except StorageError as error:
            if error.errno != errno.ENOENT:
                raise
            raise InputError(f"{path} was removed") from None
        except (ValueError, TypeError) as error:
            raise error if isinstance(error, InputError) else InputError(f"{path} can't be read ({error})") from None

    def size_of_block(self, name: str) -> int | None:
        """Of its file; None: there is none."""
        try:
            return self._block_file(name).stat().st_size
        except OSError:
            return None

    def remove_block(self, name: str) -> None:
        """Nobody needs it. Raises StorageError where the disk refuses."""
        self.remove(self._block_file(name))

    def remove(self, path: Path) -> None:
        """Remove a file, if it is there. Raises StorageError where the disk refuses."""
        with storage_errors(path):
            path.unlink(missing_ok=True)

    def keep_blocks(self, names: Container[str]) -> None:
        """Remove all other blocks, and what killed processes were writing. Raises StorageError where the disk refuses."""
        with storage_errors(self._blocks):
            for folder in self._blocks.iterdir():
                clear_parts(folder)
                for path in folder.iterdir():
                    if path.name not in names and not path.name.startswith("."):
                        path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let another store have it."""
        os.close(self._held.descriptor)

    def _record_file(self, key: str) -> Path:
        return self._sequences / hashlib.sha256(key.encode()).hexdigest()

    def _block_file(self, name: str) -> Path:
        return self._blocks / name[:2] / name


def block_file_bytes(block: Block, arrays: int) -> int:
    """At most so many has the file of a block that wrote so many arrays."""
    return block.nbytes + arrays * _PER_ARRAY + _PER_FILE


def record_file_bytes(sequence: StoredSequence) -> int:
    """At most so many has a sequence's own file."""
    numbers = sequence.batch * sequence.position + 3 * len(sequence.path)
    return 2 * len(sequence.key.encode()) + 9 * numbers + _PER_FILE


def _decoded(path: Path, magic: bytes, data: bytes, kind: type[_Kind]) -> _Kind:
    none, altered = f"{path} is nothing that a store wrote", f"{path} was cut short or altered (its checksum differs)"
    payload = opened(magic, data, none, altered)
    try:
        version = msgspec.msgpack.decode(payload, type=Versioned).version
        if version != _VERSION:
            raise InputError(f"{path} is of version {version}, this foveal reads {_VERSION}")
        return msgspec.msgpack.decode(payload, type=kind)
    except msgspec.MsgspecError as error:
        raise InputError(f"{path} can't be read ({error})") from None
