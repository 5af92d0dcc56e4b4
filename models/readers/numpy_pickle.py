"""Arrays out of a pickle, without running anything that the pickle asks for.

A pickle is a program that may call whatever can be imported. The unpickler here imports nothing: the few names that numpy's
arrays are pickled with stand for functions of this module, made anew for every file; any other name is refused.
"""

from __future__ import annotations

import gzip
import math
import pickle
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from ...errors import CheckpointError, reason_of

Array = npt.NDArray[Any]

_NUMBERS = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}
_GZIP = b"\x1f\x8b"


def read_pickle(path: Path) -> Any:
    """What a pickle, gzipped or not, holds: containers, numbers, text, and `PickledArray` for arrays.

    Raises:
        CheckpointError: it asks for something else, which is named and was not run; or it is no pickle.
    """
    try:
        with opened(path) as stream:
            return _Unpickler(stream).load()
    except CheckpointError as error:
        raise CheckpointError(f"{path} {error}") from None
    except Exception as error:  # the unpickler raises whatever the broken file provokes
        reason = reason_of(error)
        raise CheckpointError(f"{path} could not be read as a pickle of arrays: {reason}") from error


def opened(path: Path) -> BinaryIO:
    """A file to read, decompressed if it is gzipped."""
    with path.open("rb") as file:
        is_gzip = file.read(2) == _GZIP
    return cast(BinaryIO, gzip.open(path)) if is_gzip else path.open("rb")


class PickledArray:
    """An array while it is being unpickled, and afterwards."""

    __slots__ = ("array",)

    def __init__(self) -> None:
        self.array: Array = np.empty(0, np.float32)

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Type, bool, bytes]) -> None:
        _, shape, kind, is_fortran, data = state
        self.array = _array(data, kind, shape, "F" if is_fortran else "C")


class _Type:
    """A numpy dtype while it is being unpickled."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def dtype(self) -> np.dtype[Any]:
        if self.code not in _NUMBERS or self.order not in ("<", ">", "=", "|"):
            raise CheckpointError(f'holds an array of type "{self.order}{self.code}", expected numbers')
        return np.dtype(self.code).newbyteorder("=" if self.order == "|" else self.order)  # type: ignore[arg-type]


def _array(data: bytes | bytearray, kind: _Type, shape: tuple[int, ...], order: str) -> Array:
    dtype = kind.dtype()
    if not isinstance(data, (bytes, bytearray)) or len(data) != math.prod(shape) * dtype.itemsize:
        raise CheckpointError(f"holds an array of shape {shape} whose data has another size")
    flat = np.frombuffer(bytes(data), dtype)
    return flat.astype(dtype.newbyteorder("=")).reshape(shape, order="F" if order == "F" else "C")


class _Unpickler(pickle.Unpickler):
    """Admits the names below and no other."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream)
        self._admitted = _stand_ins()

    def find_class(self, module: str, name: str) -> Any:
        found = self._admitted.get((module.replace("numpy._core", "numpy.core"), name))
        if found is None:
            raise CheckpointError(
                f"wants to import {module}.{name}, expected a pickle of arrays and containers alone; it was not imported. "
                "If you trust the file, load it where it was made and save the arrays by themselves"
            )
        return found


def _stand_ins() -> dict[tuple[str, str], Any]:
    """What the names that may occur stand for. A pickle can set attributes of what it is given, so no two files share any."""

    def dtype(code: str, align: bool = False, copy: bool = False) -> _Type:
        return _Type(code)

    def reconstruct(kind: object, shape: object, code: object) -> PickledArray:
        return PickledArray()

    def from_buffer(
        data: bytes, kind: _Type, shape: tuple[int, ...], order: str, axes: tuple[int, ...] | None = None
    ) -> PickledArray:
        result = PickledArray()
        result.array = _array(data, kind, shape, order)
        if order == "K" and axes is not None:
            result.array = result.array.transpose(axes)
        return result

    def scalar(kind: _Type, data: bytes) -> PickledArray:
        return from_buffer(data, kind, (), "C")

    def jax_array(make: Callable[..., PickledArray], arguments: tuple[Any, ...], state: Any, _: object) -> PickledArray:
        if make not in (reconstruct, from_buffer):
            raise CheckpointError("holds a jax array that is made of no numpy array")
        result = make(*arguments)
        if state is not None:
            result.__setstate__(state)
        return result

    return {
        ("numpy", "dtype"): dtype,
        **{("numpy", name): type(name, (), {}) for name in ("ndarray", "int32", "int64", "float32")},
        ("numpy.core.multiarray", "_reconstruct"): reconstruct,
        ("numpy.core.numeric", "_frombuffer"): from_buffer,
        ("numpy.core.multiarray", "scalar"): scalar,
        ("jax._src.array", "_reconstruct_array"): jax_array,
        ("collections", "OrderedDict"): OrderedDict,
        ("collections", "defaultdict"): defaultdict,
        ("builtins", "list"): list,
        ("trax.shapes", "ShapeDtype"): type("ShapeDtype", (), {}),
    }


def arrays_in(tree: Any) -> Iterator[Array]:
    """The arrays of nested tuples, lists and dicts, in order.

    Raises:
        CheckpointError: something else is among them.
    """
    if isinstance(tree, PickledArray):
        yield tree.array
    elif isinstance(tree, (tuple, list)):
        for part in tree:
            yield from arrays_in(part)
    elif isinstance(tree, dict):
        yield from arrays_in(list(tree.values()))
    elif tree is not None:
        raise CheckpointError(f"a {type(tree).__name__} is among the arrays")
