"""Decode steps that are recorded once and launched as a whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from exactness import check_shared_addresses, decoder_of, distance
from gpu_outcomes import Recorder
from gpu_workshop import Made
from specimens import random_ids

from foveal.bench.decode import DecodeSamples, Load, measure_round
from foveal.runtime.resident import ResidentEngines

pytestmark = pytest.mark.gpu


class Unrecorded:
    """A device on which every decode step is queued anew."""

    has_graphs = False

    def __init__(self, device: Any) -> None:
        self._device = device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)


def unrecorded(engines: Any) -> ResidentEngines:
    """The same engines on it."""
    assert isinstance(engines, ResidentEngines)
    device: Any = Unrecorded(engines.device)
    return ResidentEngines(engines.engines, device, engines.dim, engines.vocab_size)


def test_every_firing_set_is_recorded_when_a_session_opens(made: Made, record: Recorder) -> None:
    """There are as many as scales where state is in place, and decoding adds none."""
    has_graphs = made.engines.device.has_graphs  # type: ignore[union-attr]
    with made.session() as session:
        recorded, scales = decoder_of(session).recorded, len({spec.stride for spec in session.specs})
        record("recorded", recorded, "CUDA graphs")
        record("scales", scales)
        if not check_shared_addresses(session):
            assert recorded >= scales
            return
        assert recorded == (scales if has_graphs else 0)
        for token in range(2 * max(spec.stride for spec in session.specs)):
            session.advance([[token % session.model.vocab_size]])
        assert decoder_of(session).recorded == recorded


def test_recorded_steps_compute_what_queued_ones_do(made: Made, record: Recorder) -> None:
    """And how much faster they are."""
    ids, load = random_ids(1, 40, made.bundle.manifest.model.vocab_size), Load(8, 64)
    logits, speeds = [], []
    for engines in (made.engines, unrecorded(made.engines)):
        with made.session(engines=engines) as session:
            logits.append(np.concatenate([session.advance(ids[:, place : place + 1]) for place in range(40)], 1))
            samples = DecodeSamples()
            for kept in (None, samples, samples, samples):
                measure_round(session, load, kept)
            speeds.append(float(np.median(samples.round_tokens_per_s)))
    record("largest difference", distance(*logits), "of the largest logit")
    record("recorded", speeds[0], "tokens/s")
    record("queued", speeds[1], "tokens/s")
    assert distance(*logits) <= made.tolerance
