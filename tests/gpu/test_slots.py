"""Sequences that come and go, each at a position of its own."""

from __future__ import annotations

import numpy as np
import pytest
from gpu_outcomes import Recorder
from gpu_workshop import Made
from slots import Slots, everything

from foveal import ConfigError
from foveal.runtime import resident_batch

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("along", [False, True], ids=["that fire", "all"])
def test_slots_get_what_they_would_alone(made: Made, record: Recorder, along: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefilled, stepped, rewound and forked; stages run for those that fire, or for all that they may run for."""
    if along:
        monkeypatch.setattr(resident_batch, "ranges_of", everything)
    try:
        slots = Slots(made.engines.batch_decoder, [made.session() for _ in range(2)], 2 * made.tolerance)
    except ConfigError as refused:
        record("slots", f"none: {refused}")
        return
    random = np.random.default_rng(0)
    for slot in (0, 1):
        slots.prefill(slot, int(random.integers(3, 30)))
    for what, which, number in (
        ("step", 3, 9),
        ("rewind", 0, 3),
        ("step", 3, 5),
        ("fork", 0, 1),
        ("step", 2, 2),
        ("step", 3, 9),
    ):
        slots.take(what, which, number)
    slots.prefill(1, 3)
    record("largest error", slots.largest, "of the largest logit")
    record("recorded", slots.decoder.recorded, "CUDA graphs")
    slots.decoder.close()
