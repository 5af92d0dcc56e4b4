"""The sampler's graph draws what the host's sampler draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.contract import CANDIDATES, DRAWS, sampler_contract
from foveal.export.graphs.sampler import sampler_graph
from foveal.runtime.sampling import Sampler, SamplingParams

VOCABULARY, STAGES = 97, 3


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    """The graph in ONNX Runtime."""
    proto = ir.to_proto(sampler_graph(STAGES, VOCABULARY))
    onnx.checker.check_model(proto, full_check=True)
    return onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])


def told(params: SamplingParams, uniform: np.ndarray, batch: int = 1) -> dict[str, np.ndarray]:
    """What the graph is given of sampling settings."""
    greedy = params.temperature == 0
    return {
        "uniform": np.broadcast_to(uniform.astype(np.float32)[:, None], (DRAWS, batch)).copy(),
        "inverse_temperature": np.array([1 if greedy else 1 / params.temperature], np.float32),
        "top_k": np.array([1 if greedy else params.top_k]),
        "top_p": np.array([params.top_p], np.float32),
        "min_p": np.array([params.min_p], np.float32),
        "fired": np.array([1, 0, 1, 1]),
    }


def at(positions: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Positions, by name."""
    return {f"position_{place}": position for place, position in enumerate(positions)}


def test_the_graph_is_its_contract(session: onnxruntime.InferenceSession) -> None:
    """Names and shapes of what it takes and gives."""
    contract = sampler_contract(STAGES, VOCABULARY)
    for values, tensors in ((session.get_inputs(), contract.inputs), (session.get_outputs(), contract.outputs)):
        assert {value.name: tuple(value.shape) for value in values} == {tensor.name: tensor.shape for tensor in tensors}


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32),
    st.fixed_dictionaries(
        {
            "temperature": st.sampled_from([0.0, 0.3, 1.0, 2.0]),
            "top_k": st.integers(1, CANDIDATES),
            "top_p": st.sampled_from([0.2, 0.77, 0.95, 1.0]),
            "min_p": st.sampled_from([0.0, 0.03, 0.4]),
        }
    ),
)
def test_it_draws_what_the_host_draws(session: onnxruntime.InferenceSession, seed: int, chosen: dict[str, Any]) -> None:
    """Sixteen tokens one after the other, with the numbers of the same seed."""
    params = SamplingParams(**chosen, seed=seed)
    host, logits_of = Sampler(params), np.random.default_rng(seed)
    given = told(params, np.random.default_rng(seed).random(DRAWS))
    positions = [np.zeros(1, np.int64)] * (STAGES + 1)
    for _ in range(16):
        logits = logits_of.normal(0, 3, VOCABULARY).astype(np.float32)
        ids, *positions = session.run(None, {"logits": logits[None, None], **at(positions), **given})
        assert ids.shape == (1, 1)
        assert ids[0, 0] == host.sample(logits, np.zeros(0, np.int64))
    assert [position.item() for position in positions] == [16, 0, 16, 16]


def test_sequences_draw_for_themselves(session: onnxruntime.InferenceSession) -> None:
    """Each has its own logits and its own numbers."""
    logits = np.random.default_rng(0).normal(0, 3, (5, 1, VOCABULARY)).astype(np.float32)
    given = told(SamplingParams(temperature=0), np.zeros(DRAWS), batch=5)
    ids, *_ = session.run(None, {"logits": logits, **at([np.full(5, 7)] * (STAGES + 1)), **given})
    assert ids[:, 0].tolist() == logits[:, 0].argmax(-1).tolist()
