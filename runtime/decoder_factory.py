"""What sessions and batches open their decoders with: engines in the host's memory, or a factory for memory it does not see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..contract import StageSpec
from .batches.batch_decoder import BatchDecoder
from .decoder import Decoder
from .engines.base import Engine
from .rows import TokenLog


class DecoderFactory(Protocol):
    """Engines that bring a decoder of their own, for memory that the host does not see."""

    specs: Sequence[StageSpec]
    overlap: bool
    """Whether stages that a decode step does not wait for run beside the others."""

    @property
    def capacity(self) -> int | None:
        """The most tokens that they hold; None: as many as are asked for."""
        ...

    def decoder(self, tokens: TokenLog, batch: int, capacity: int, copies_bytes: int) -> Decoder:
        """Allocate the state of `batch` sequences of at most `capacity` tokens; `copies_bytes`: for copies of recurrent state.

        Raises:
            ConfigError: more sequences than the engines were built for.
            CapacityError: more tokens than the engines were built for.
        """
        ...

    def batch_decoder(self, tokens: TokenLog, slots: int, capacity: int) -> BatchDecoder:
        """Allocate the state of so many sequences, each of which moves by itself.

        Raises:
            ConfigError, CapacityError: as `decoder`.
            ConfigError: the data decides when stages fire, and the engines have no clock for each sequence.
            EngineMismatchError: the engines were built when all sequences of a batch stood at the same position.
        """
        ...


Engines = Sequence[Engine] | DecoderFactory
