"""A copy of what a session has written, as an object and as bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NoReturn

import msgspec
import numpy as np

from ..errors import CapacityError, InputError
from .decoder import Written
from .rows import Array

_MAGIC = b"foveal snapshot\n"
_VERSION = 1
_DIGEST = 32


@dataclass(frozen=True)
class Snapshot:
    """A copy of everything a session had written up to `position`; opaque, restorable into any session of the same shape.

    Attributes:
        position: tokens that the session had seen.
        reached: how far it had gone before it was rewound, which limits how far back the copy can go.
        batch: sequences.
        bundle: what gave it: a hash of the stage graphs and engines; empty: of engines that stand in no bundle.
        tokens: the ids seen, int64 `[B, position]`.
        written: rows and caches, by stage.
    """

    position: int
    reached: int
    batch: int
    bundle: str
    tokens: Array
    written: Written

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.tokens.nbytes + self.written.nbytes

    def to_bytes(self) -> bytes:
        """For a file or another process: as many bytes as it holds and a few hundred more, with a checksum (SHA-256)."""
        stored = _Stored(
            version=_VERSION,
            position=self.position,
            reached=self.reached,
            batch=self.batch,
            bundle=self.bundle,
            tokens=_Array.of(self.tokens),
            rows=[None if rows is None else _Array.of(rows) for rows in self.written.rows],
            caches=[[_Array.of(cache) for cache in caches] for caches in self.written.caches],
        )
        return checked(msgspec.msgpack.encode(stored))

    @classmethod
    def from_bytes(cls, data: bytes) -> Snapshot:
        """What `to_bytes` gave.

        Raises:
            InputError: bytes of something else, of another version of foveal, cut short or altered.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise InputError(f"expected the bytes of a snapshot, got {type(data).__name__}; hand over what to_bytes gave")
        view = memoryview(data).cast("B")
        if bytes(view[: len(_MAGIC)]) != _MAGIC:
            raise InputError("the bytes are no snapshot of foveal; hand over what snapshot.to_bytes() gave")
        digest, payload = view[len(_MAGIC) : len(_MAGIC) + _DIGEST], view[len(_MAGIC) + _DIGEST :]
        if hashlib.sha256(payload).digest() != bytes(digest):
            raise InputError("the bytes of the snapshot were cut short or altered (their checksum differs); make it again")
        return _decoded(payload)


def check_restorable(snapshot: Snapshot, bundle: str, batch: int, capacity: int, whose: str) -> None:
    """Raise unless a snapshot can be restored where there is so much room.

    Args:
        snapshot: what was handed over.
        bundle: what the engines are of; empty: of no bundle.
        batch: sequences.
        capacity: tokens of each.
        whose: what the message calls it, such as `this session`.

    Raises:
        InputError: no snapshot, one of another bundle, or one of another batch.
        CapacityError: it holds more tokens.
    """
    if not isinstance(snapshot, Snapshot):
        raise InputError(f"expected what session.snapshot() gave, got {type(snapshot).__name__}; hand that over")
    if snapshot.bundle and bundle and snapshot.bundle != bundle:
        raise InputError(
            "the snapshot is of another bundle or target, whose rows mean nothing to this model; "
            "restore it into a session of the bundle that gave it, or append the tokens again"
        )
    if snapshot.batch != batch:
        raise InputError(f"the snapshot has batch {snapshot.batch}, {whose} {batch}; use a session of the same batch")
    if snapshot.position > capacity:
        raise CapacityError(f"the snapshot holds {snapshot.position} tokens, {whose} at most {capacity}; give it more capacity")


def checked(payload: bytes) -> bytes:
    """What stands in a file: which kind of file it is, the payload's checksum, and the payload."""
    return b"".join((_MAGIC, hashlib.sha256(payload).digest(), payload))


class _Array(msgspec.Struct, array_like=True, frozen=True):
    """An array: its name of numpy's for the dtype, its shape, and its bytes in C order."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, array: Array) -> _Array:
        return cls(array.dtype.name, array.shape, array.tobytes())

    def array(self) -> Array:
        """A copy that can be written to, as those of `Session.snapshot` can."""
        return np.frombuffer(self.data, np.dtype(self.dtype)).reshape(self.shape).copy()


class _Version(msgspec.Struct, frozen=True):
    version: int


class _Stored(_Version, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the bytes hold after their checksum, as MessagePack."""

    position: int
    reached: int
    batch: int
    bundle: str
    tokens: _Array
    rows: list[_Array | None]
    caches: list[list[_Array]]


def _decoded(payload: memoryview) -> Snapshot:
    try:
        version = msgspec.msgpack.decode(payload, type=_Version).version
        if version != _VERSION:
            _refuse_version(version)
        stored = msgspec.msgpack.decode(payload, type=_Stored)
        rows = tuple(None if given is None else given.array() for given in stored.rows)
        caches = tuple(tuple(given.array() for given in of_stage) for of_stage in stored.caches)
        tokens = stored.tokens.array()
        if tokens.shape != (stored.batch, stored.position):
            raise ValueError(f"{stored.position} tokens of {stored.batch} sequences, and ids {list(tokens.shape)}")
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise InputError(f"the snapshot can't be read ({error}); make it again") from None
    return Snapshot(stored.position, stored.reached, stored.batch, stored.bundle, tokens, Written(rows, caches))


def _refuse_version(version: int) -> NoReturn:
    raise InputError(
        f"the snapshot is of version {version}, this foveal reads {_VERSION}; make it again, or use the foveal that wrote it"
    )
