"""A copy of what a session has written, as an object and as bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

import msgspec

from ..errors import CapacityError, InputError
from .decoder import Written
from .packed import PackedArray, Versioned, opened, pack, sealed, unpack
from .rows import Array

_MAGIC = b"foveal snapshot\n"
_VERSION = 1


@dataclass(frozen=True)
class Snapshot:
    """A copy of everything a session had written up to `position`; opaque, restorable into any session of the same shape.

    Attributes:
        position: tokens that the session had seen.
        reached: how far it had gone before it was rewound, which limits how far back the copy can go.
        batch: sequences.
        bundle: what gave it: a hash of the stage graphs and engines; empty: of engines that stand in no bundle.
        tokens: the ids seen, int64 `[B, position]`.
        written: rows and caches, by stage, and boundaries, by clock.
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
        rows, caches, boundaries = pack(self.written)
        stored = _Stored(
            version=_VERSION,
            position=self.position,
            reached=self.reached,
            batch=self.batch,
            bundle=self.bundle,
            tokens=PackedArray.of(self.tokens),
            rows=rows,
            caches=caches,
            boundaries=boundaries,
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
        none = "the bytes are no snapshot of foveal; hand over what snapshot.to_bytes() gave"
        altered = "the bytes of the snapshot were cut short or altered (their checksum differs); make it again"
        return _decoded(opened(_MAGIC, data, none, altered))


@contextmanager
def room_for_copy(tokens: int) -> Iterator[None]:
    """Copy so many tokens' state in this block; raises CapacityError where memory does not suffice."""
    try:
        yield
    except MemoryError as error:
        raise CapacityError(f"a copy of {tokens:,} tokens' state finds no room ({error}); let go of older snapshots") from error


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
    return sealed(_MAGIC, payload)


class _Stored(Versioned, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the bytes hold after their checksum, as MessagePack."""

    position: int
    reached: int
    batch: int
    bundle: str
    tokens: PackedArray
    rows: list[PackedArray | None]
    caches: list[list[PackedArray]]
    boundaries: list[PackedArray] = msgspec.field(default_factory=list)


def _decoded(payload: memoryview) -> Snapshot:
    try:
        version = msgspec.msgpack.decode(payload, type=Versioned).version
        if version != _VERSION:
            _refuse_version(version)
        stored = msgspec.msgpack.decode(payload, type=_Stored)
        written, tokens = unpack(stored.rows, stored.caches, stored.boundaries), stored.tokens.array()
        if tokens.shape != (stored.batch, stored.position):
            raise ValueError(f"{stored.position} tokens of {stored.batch} sequences, and ids {list(tokens.shape)}")
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise InputError(f"the snapshot can't be read ({error}); make it again") from None
    return Snapshot(stored.position, stored.reached, stored.batch, stored.bundle, tokens, written)


def _refuse_version(version: int) -> NoReturn:
    raise InputError(
        f"the snapshot is of version {version}, this foveal reads {_VERSION}; make it again, or use the foveal that wrote it"
    )
