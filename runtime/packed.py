"""Arrays in bytes that say what they are, and that notice when they were cut short or altered."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec
import numpy as np

from ..errors import InputError
from .decoder import Written
from .rows import Array

_DIGEST = 32


def sealed(magic: bytes, payload: bytes) -> bytes:
    """What stands in a file: which kind of file it is, the payload's SHA-256, and the payload."""
    return b"".join((magic, hashlib.sha256(payload).digest(), payload))


def opened(magic: bytes, data: bytes | bytearray | memoryview, none: str, altered: str) -> memoryview:
    """The payload of what `sealed` gave.

    Args:
        magic: as given to `sealed`.
        data: the bytes.
        none: what to say of bytes that are of another kind.
        altered: what to say of bytes that were cut short or altered.

    Raises:
        InputError: either of the two.
    """
    view = memoryview(data).cast("B")
    if bytes(view[: len(magic)]) != magic:
        raise InputError(none)
    digest, payload = view[len(magic) : len(magic) + _DIGEST], view[len(magic) + _DIGEST :]
    if hashlib.sha256(payload).digest() != bytes(digest):
        raise InputError(altered)
    return payload


class Versioned(msgspec.Struct, frozen=True):
    """What every payload begins with: of what is of another version, nothing else is looked at."""

    version: int


class PackedArray(msgspec.Struct, array_like=True, frozen=True):
    """An array: its name of numpy's for the dtype, its shape, and its bytes in C order."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, array: Array) -> PackedArray:
        """A copy of an array."""
        return cls(array.dtype.name, array.shape, array.tobytes())

    def array(self) -> Array:
        """A copy that can be written to, as those of `Session.snapshot` can; raises ValueError or TypeError for nonsense."""
        return np.frombuffer(self.data, np.dtype(self.dtype)).reshape(self.shape).copy()


def pack(written: Written) -> tuple[list[PackedArray | None], list[list[PackedArray]], list[PackedArray]]:
    """Rows and caches, by stage, and boundaries, by clock."""
    rows = [None if rows is None else PackedArray.of(rows) for rows in written.rows]
    caches = [[PackedArray.of(cache) for cache in caches] for caches in written.caches]
    return rows, caches, [PackedArray.of(made) for made in written.boundaries]


def unpack(rows: list[PackedArray | None], caches: list[list[PackedArray]], boundaries: Sequence[PackedArray] = ()) -> Written:
    """What `pack` was given; raises ValueError or TypeError for nonsense."""
    return Written(
        tuple(None if given is None else given.array() for given in rows),
        tuple(tuple(given.array() for given in of_stage) for of_stage in caches),
        tuple(given.array() for given in boundaries),
    )
