"""What the resident decoder asks of an engine library: engines whose every tensor stays at one address."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol, runtime_checkable

from ...contract import Limits, StageSpec
from ..device import Buffer

Phase = Literal["decode", "prefill"]
"""`decode`: one firing and one row of logits per call; `prefill`: any number within the engine's limits."""


class ResidentStage(Protocol):
    """An engine bound to addresses, for calls of one phase. Not thread-safe."""

    def bind(self, tensor: str, buffer: Buffer) -> None:
        """Let a tensor of `resident_contract_of` stand at an address, until it is bound again."""
        ...

    def run(self, firings: int, wanted: int, spans: Mapping[str, int] | None = None) -> None:
        """Queue a run for so many firings and rows of logits; raises DeviceError if the library refuses it.

        `spans`: what the letters M and P of its inputs stand for, if it reads any.
        """
        ...

    def check_recordable(self) -> None:
        """Raise DeviceError if what `run` did last can't be recorded now."""
        ...


@runtime_checkable
class TimedStage(Protocol):
    """A `ResidentStage` whose library times layers."""

    def profile(self) -> dict[str, float]:
        """Milliseconds of every layer, added up over the runs that follow."""
        ...


class ResidentProgram(Protocol):
    """A compiled graph whose every tensor stays at one address: a stage's engine, or what draws tokens."""

    def bind(self, phase: Phase, batch: int, beside: bool = False) -> ResidentStage:
        """Ready it for calls of one phase; every tensor must then be bound once.

        Only what is readied for runs `beside` others may run while others do.
        """
        ...

    def keep_compiled(self) -> None:
        """Called once a decoder is warm: keep for the next process what was compiled for this machine since."""
        ...


class ResidentEngine(ResidentProgram, Protocol):
    """One stage's engine in the resident form, shared by all sessions.

    Attributes:
        spec: the stage.
        limits: the largest shapes it takes; None: any, and its caches are as long as a session asks for.
        in_place: whether a cache may be read and written at the same address; else two take turns.
        replaces_in_place: whether a recurrent state may be, too.
        cache_widths, cache_dtype: of its caches, as it keeps them.
        own_positions: whether sequences of a batch may each stand at a position of their own.
        target: that it was built for.
    """

    @property
    def spec(self) -> StageSpec: ...
    @property
    def limits(self) -> Limits | None: ...
    @property
    def in_place(self) -> bool: ...
    @property
    def replaces_in_place(self) -> bool: ...
    @property
    def cache_widths(self) -> tuple[int, ...]: ...
    @property
    def cache_dtype(self) -> str: ...
    @property
    def own_positions(self) -> bool: ...
    @property
    def target(self) -> str: ...
