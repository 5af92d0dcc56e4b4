"""Decode steps that are recorded once and launched as a whole."""

from __future__ import annotations

import time

import numpy as np
import pytest
from exactness import check_shared_addresses, decoder_of, distance
from gpu_outcomes import Recorder
from gpu_workshop import Made
from specimens import random_ids

from foveal import SamplingParams
from foveal.bench.decode import DecodeSamples, Load, measure_round
from foveal.runtime.generation.generate import generate_ids
from foveal.runtime.resident import ResidentEngines

pytestmark = pytest.mark.gpu
DRAWS = SamplingParams(temperature=0, max_new_tokens=64), SamplingParams(top_k=40, seed=1, max_new_tokens=64)


def test_every_firing_set_is_recorded_when_a_session_opens(made: Made, record: Recorder) -> None:
    """There are as many as scales where state is in place, and decoding adds none."""
    with made.session() as session:
        recorded, scales = decoder_of(session).recorded, len({spec.stride for spec in session.specs})
        record("recorded", recorded, "CUDA graphs")
        record("scales", scales)
        if not check_shared_addresses(session):
            assert recorded >= scales
            return
        assert recorded == (scales if made.engines.records else 0)
        for token in range(2 * max(spec.stride for spec in session.specs)):
            session.advance([[token % session.model.vocab_size]])
        assert decoder_of(session).recorded == recorded


def test_recorded_steps_compute_what_queued_ones_do(made: Made, record: Recorder) -> None:
    """And how much faster they are."""
    compare(made, record, {"recorded": made.engines, "queued": made.engines_but(records=False)})


def test_stages_beside_compute_what_stages_in_turn_do(made: Made, record: Recorder) -> None:
    """And whether that is faster; where no stage is late, or the target has one stream, there is nothing to compare."""
    record("stages beside", "some" if made.engines.overlap else "none")
    if made.engines.overlap:
        compare(made, record, {"late stages beside": made.engines, "all in turn": made.engines_but(overlap=False)})


def compare(made: Made, record: Recorder, ways: dict[str, ResidentEngines]) -> None:
    """Two ways to run the same engines: logits must be the same, speeds are told."""
    ids, load = random_ids(1, 40, made.bundle.manifest.model.vocab_size), Load(8, 64)
    logits, speeds = [], {}
    for way, engines in ways.items():
        with made.session(engines=engines) as session:
            logits.append(np.concatenate([session.advance(ids[:, place : place + 1]) for place in range(40)], 1))
            samples = DecodeSamples()
            for kept in (None, samples, samples, samples):
                measure_round(session, load, kept)
            speeds[way] = float(np.median(samples.round_tokens_per_s))
    record("largest difference", distance(*logits), "of the largest logit")
    for way, speed in speeds.items():
        record(way, speed, "tokens/s")
    assert distance(*logits) <= made.tolerance


@pytest.mark.parametrize("params", DRAWS, ids=["greedy", "sampled"])
def test_the_device_draws_what_the_host_draws(made: Made, record: Recorder, params: SamplingParams) -> None:
    """From logits of the same engines, which then need not leave the device."""
    prompt = made.prompt()[0].tolist()
    texts, speeds = [], []
    for engines in (made.engines, made.engines_but(sampler=None)):
        with made.session(engines=engines) as session:
            assert session.draws == (engines is made.engines)
            for _ in range(2):  # the first records what is not recorded yet
                session.reset()
                began = time.perf_counter()
                texts.append(list(generate_ids(session, prompt, params)))
                speeds.append(len(texts[-1]) / (time.perf_counter() - began))
    for name, speed in (("device", speeds[1]), ("host", speeds[3])):
        record(
            f"drawn on the {name}",
            speed,
            "tokens/s, prompt included",
            of="temperature 0" if params.temperature == 0 else "top 40",
        )
    assert all(text == texts[-1] for text in texts)
