"""How many tokens a session or a batch has room for, and what is said where memory has not."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..bundle import ModelInfo
from ..errors import CapacityError, ConfigError, FovealError, InputError
from .decoder_factory import Engines
from .given import shown


def whole(name: str, value: object, refused: type[ConfigError | InputError]) -> int:
    """An integer of whatever kind; a bool is a slip. Raises the error given for anything else."""
    try:
        if not isinstance(value, bool):
            return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        pass
    raise refused(f"{name} must be an integer, got {shown(value)}")


def capacity_for(engines: Engines, model: ModelInfo, asked: int | None) -> int:
    """What is asked for; None: the model's context, or as much of it as the engines hold.

    Raises:
        ConfigError: no integer.
        CapacityError: below 1 or beyond the model's positions.
    """
    if asked is None:
        most = None if isinstance(engines, Sequence) else engines.capacity
        return model.context if most is None else min(model.context, most)
    capacity = whole("capacity", asked, ConfigError)
    if capacity < 1:
        raise CapacityError(f"capacity must be at least 1 token, got {capacity}")
    if model.max_positions is not None and capacity > model.max_positions:
        raise CapacityError(
            f"the model has {model.max_positions} positions, got a capacity of {capacity}; ask for no more than it has"
        )
    return capacity


@contextmanager
def room_for_state(sequences: int, capacity: int) -> Iterator[None]:
    """Allocate in this block; raises CapacityError where memory does not suffice."""
    try:
        yield
    except (MemoryError, ValueError) as error:  # numpy's, of arrays beyond all bounds
        if isinstance(error, FovealError):
            raise
        raise CapacityError(
            f"the state of {sequences} sequences of {capacity:,} tokens finds no room ({error}); "
            "ask for a smaller batch or capacity (docs/devices.md says what takes how much)"
        ) from error
