"""Token ids as users have them: arrays, a line of numbers, or a file of them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from .given import shown

Ids = npt.NDArray[np.int64]
ID_FILES = (".npy", ".bin", ".ids")
"""Endings of files of ids: NumPy's, bare numbers in little-endian order, and numbers as text."""
_DTYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")


def checked_ids(given: npt.ArrayLike, vocab_size: int, name: str = "the ids") -> Ids:
    """One sequence of ids `[T]`, as int64.

    Raises:
        InputError: no integers, ragged or of more dimensions than one, or an id outside the vocabulary.
    """
    try:
        ids = np.asarray(given)
    except ValueError as error:  # ragged
        raise InputError(f"{name} are no array ({error}); expected one sequence of integers") from error
    if ids.ndim != 1:
        raise InputError(f"{name} have shape {list(ids.shape)}, expected one sequence, [T]; give one at a time")
    if ids.size == 0:
        return np.empty(0, np.int64)
    if ids.dtype.kind == "O" and all(type(one) is int for one in ids):
        largest = shown(max(ids, key=abs))
        raise InputError(f"{name} hold {largest}, which is outside the vocabulary; expected 0 <= id < {vocab_size}")
    if ids.dtype.kind not in "iu":
        raise InputError(f"{name} have dtype {ids.dtype}, expected integers; convert them, for instance with ids.astype(int)")
    lowest, highest = int(ids.min()), int(ids.max())
    if lowest < 0 or highest >= vocab_size:
        wrong = lowest if lowest < 0 else highest
        raise InputError(f"{name} hold {wrong}, which is outside the vocabulary; expected 0 <= id < {vocab_size}")
    return ids.astype(np.int64)


def read_id_file(path: Path) -> npt.NDArray[np.generic]:
    """The array in a `.npy` file, the numbers of a `.bin` file or the text of any other.

    A `.bin` holds uint16 in little-endian order, as trainers write their data, or what its name says, as in `song.uint8.bin`.

    Raises:
        InputError: the file can't be read, or holds something else.
    """
    try:
        if path.suffix == ".npy":
            array: npt.NDArray[np.generic] = np.load(path, allow_pickle=False)
            return array
        if path.suffix == ".bin":
            return _bare_numbers(path)
        return parse_ids(path.read_text(encoding="utf-8-sig"), str(path))
    except (OSError, ValueError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} can't be read as ids: {error}") from error


def written_id(text: str) -> int | None:
    """The id that some digits are; None for anything else, and for more digits than any model's ids have."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def parse_ids(text: str, name: str = "the ids") -> Ids:
    """Whole numbers between spaces, commas or line ends; brackets around them are allowed.

    Raises:
        InputError: something that is no number.
    """
    words = re.split(r"[\s,]+", text.strip().removeprefix("[").removesuffix("]").strip())
    words = [word for word in words if word]
    for word in words:
        if written_id(word.removeprefix("-")) is None:
            files = ", ".join(f"*{ending}" for ending in ID_FILES)
            raise InputError(f'{name}: "{word[:40]}" is no id; expected whole numbers such as "17 4 99", or a file {files}')
    return np.asarray([int(word) for word in words], np.int64)


def _bare_numbers(path: Path) -> npt.NDArray[np.generic]:
    stated = Path(path.stem).suffix.removeprefix(".")
    if stated not in _DTYPES and re.fullmatch(r"(u?int|b?float|bool|complex)\d*", stated):
        raise InputError(f"{path} holds {stated} by its name, expected one of {', '.join(_DTYPES)}")
    dtype = np.dtype(stated if stated in _DTYPES else "uint16").newbyteorder("<")
    data = path.read_bytes()
    if len(data) % dtype.itemsize:
        raise InputError(
            f"{path} has {len(data)} bytes, which are no whole number of {dtype.name}; "
            "say what it holds in its name, as in song.uint8.bin or song.uint32.bin"
        )
    return np.frombuffer(data, dtype)
