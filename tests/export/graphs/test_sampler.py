"""The sampler's graph draws what the host's sampler draws."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling_reference import is_drawn_right, shares_of

from foveal.contract import CANDIDATES, DRAWS, sampler_contract
from foveal.export.graphs.sampler import sampler_graph
from foveal.runtime.drawing import can_draw, settings_of, uniform_of
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
    dtypes = {"top_k": np.int64}
    return {
        "uniform": np.broadcast_to(uniform_of(uniform)[:, None], (DRAWS, batch)).copy(),
        **{name: np.array([value], dtypes.get(name, np.float32)) for name, value in settings_of(params).items()},
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


def drawn_from(session: onnxruntime.InferenceSession, logits: np.ndarray, params: SamplingParams, uniform: float) -> int:
    """One token, by one random number; the rest of the vocabulary is masked."""
    row = np.full((1, 1, VOCABULARY), -np.inf, np.float32)
    row[..., : len(logits)] = logits
    given = told(params, np.full(DRAWS, uniform))
    return int(session.run(None, {"logits": row, **at([np.zeros(1, np.int64)] * (STAGES + 1)), **given})[0].item())


LARGEST = float(np.finfo(np.float32).max)
any_logit = st.one_of(
    st.floats(-30, 30, width=32),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, 1.0, -1.0, -np.inf, LARGEST, -LARGEST, 1e-45, -1e-45]),
)


@settings(max_examples=300)
@given(
    st.fixed_dictionaries(
        {
            "temperature": st.floats(1e-30, 1e30) | st.sampled_from([1e-30, 0.01, 0.7, 1.0, 1e30]),
            "top_k": st.integers(1, CANDIDATES),
            "top_p": st.floats(0, 1, exclude_min=True) | st.sampled_from([5e-324, 1e-46, 1e-38, 0.5, 1 - 2.0**-53, 1.0]),
            "min_p": st.floats(0, 1) | st.sampled_from([5e-324, 1e-46, 0.3, 1.0]),
        }
    ),
    st.lists(any_logit, min_size=1, max_size=12).filter(lambda values: max(values) > -np.inf),
    st.floats(0, 1, exclude_max=True) | st.sampled_from([0.0, 5e-324, 0.5, 1 - 2.0**-24, 1 - 2.0**-25, 1 - 2.0**-53]),
)
def test_every_setting_draws_by_its_definition(
    session: onnxruntime.InferenceSession, chosen: dict[str, Any], values: list[float], uniform: float
) -> None:
    """To the ends of what a device draws by, against exact fractions: only its fp32 may round to the other side of a border."""
    params, logits = SamplingParams(**chosen), np.array(values, np.float32)
    assert can_draw(params)
    token = drawn_from(session, logits, params, uniform)
    if params.is_greedy:
        assert token == int(logits.argmax())
        return
    near = [replace(params, top_p=min(1.0, params.top_p * (1 + off)), min_p=params.min_p) for off in (0, 1e-5, -1e-5)]
    near += [replace(params, min_p=min(1.0, params.min_p * (1 + off))) for off in (1e-5, -1e-5)]
    assert any(is_drawn_right(token, uniform, *shares_of(logits, one), 1e-5) for one in near)


@pytest.mark.parametrize("broken", [[np.nan, 1.0], [np.inf, 1.0], [-np.inf, -np.inf]], ids=str)
@pytest.mark.parametrize("chosen", [{"temperature": 0}, {"top_k": 5}], ids=str)
def test_broken_logits_give_no_token(
    session: onnxruntime.InferenceSession, broken: list[float], chosen: dict[str, Any]
) -> None:
    """But -1, which the host takes for what it is."""
    assert drawn_from(session, np.array(broken, np.float32), SamplingParams(**chosen), 0.5) == -1


@pytest.mark.parametrize("uniform", [1 - 2.0**-24, 1 - 2.0**-25, 1 - 2.0**-26, 1 - 2.0**-53])
def test_a_random_number_next_to_1(session: onnxruntime.InferenceSession, uniform: float) -> None:
    """It draws nobody whose share is less than what is missing to 1."""
    logits = np.array([0, -40, -45, -50, -120, -np.inf], np.float32)  # shares of 1, 4e-18, ...
    assert drawn_from(session, logits, SamplingParams(top_k=CANDIDATES), uniform) == 0
