"""From engines to the decoder of a batch: what they can work on, and room for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

from ...bundle import ModelInfo
from ...contract import StageSpec
from ...errors import ConfigError, EngineMismatchError
from ..capacity import capacity_for, room_for_state
from ..decoder_factory import Engines
from ..engines.base import Engine, SlotsEngine
from ..rows import TokenLog
from ..session import token_log
from .batch_decoder import BatchDecoder
from .host_batch import HostBatchDecoder


class Slots(NamedTuple):
    """A decoder, the ids that it reads, the stages it fires, and the tokens that each slot has room for."""

    decoder: BatchDecoder
    tokens: TokenLog
    specs: Sequence[StageSpec]
    capacity: int


def open_slots(engines: Engines, model: ModelInfo, slots: int, capacity: int | None) -> Slots:
    """State for so many sequences.

    Raises:
        ConfigError, CapacityError, EngineMismatchError: as `Batch`.
    """
    if slots < 1:
        raise ConfigError(f"slots must be at least 1, got {slots}")
    capacity = capacity_for(engines, model, capacity)
    with room_for_state(slots, capacity):
        if isinstance(engines, Sequence):
            specs = [engine.spec for engine in engines]
            tokens = token_log(specs, slots, capacity)
            return Slots(HostBatchDecoder(_of_slots(engines, slots), tokens, slots, capacity), tokens, specs, capacity)
        tokens = token_log(engines.specs, slots, capacity)
        return Slots(engines.batch_decoder(tokens, slots, capacity), tokens, engines.specs, capacity)


def _of_slots(engines: Sequence[Engine], slots: int) -> list[SlotsEngine]:
    found = [cast(SlotsEngine, engine) for engine in engines]
    for engine in found:
        if slots > 1 and not engine.takes_each:
            raise EngineMismatchError(
                f'the engine of stage "{engine.spec.name}" was built by a foveal whose batches moved in step: it takes one '
                f"position for all {slots} sequences; build it again (foveal build BUNDLE --target cpu), or ask for slots=1"
            )
    return found
