"""Log probabilities are those of the model itself: log_softmax of the full forward's logits, whatever tokens are drawn by."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from specimens import Zoo, full_forward, random_ids

from foveal import InputError, SamplingParams, Service, load
from foveal.runtime.generation.generate import generate_ids
from foveal.runtime.logprobs import TokenLogprobs, likeliest, token_logprobs
from foveal.runtime.model import Model
from foveal.runtime.sampling import Sampler
from foveal.runtime.scoring import append_scored

TOLERANCE = 1e-4
PROMPT = random_ids(1, 21)[0].tolist()


@pytest.fixture(scope="module")
def nested(zoo: Zoo) -> Model:
    """Three scales, 41 ids, 96 positions, no tokenizer."""
    return load(zoo["nested"].bundle, threads=1)


def expected_of(zoo: Zoo, ids: list[int]) -> torch.Tensor:
    """Of every token after each of the ids, `[T, V]`, by torch."""
    return torch.log_softmax(torch.from_numpy(full_forward(zoo["nested"].model, np.array([ids])))[0].double(), -1)


def check(found: TokenLogprobs, row: torch.Tensor, token: int, top: int) -> None:
    """One token's against its row by torch."""
    assert found.token == token
    assert found.logprob == pytest.approx(float(row[token]), abs=TOLERANCE)
    assert found.rank == pytest.approx(int((row > row[token]).sum()) + 1, abs=1)  # two may be as near as the tolerance
    values = torch.topk(row, top).values.tolist() if top else []
    assert [value for _, value in found.top] == pytest.approx(values, abs=TOLERANCE)
    assert all(float(row[one]) == pytest.approx(value, abs=TOLERANCE) for one, value in found.top)


@given(st.lists(st.integers(-6, 6) | st.just(-math.inf), min_size=1, max_size=9), st.integers(0, 12), st.data())
def test_they_are_a_log_softmax(values: list[float], top: int, data: st.DataObject) -> None:
    """With the likeliest tokens, ties by the lower id; a token that can't come has minus infinity."""
    if max(values) == -math.inf:
        values[0] = 0
    token = data.draw(st.integers(0, len(values) - 1))
    found = token_logprobs(np.array(values, np.float32), token, top)
    row = torch.log_softmax(torch.tensor(values, dtype=torch.float64), 0)
    assert found.logprob == pytest.approx(float(row[token]))
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))[:top]
    assert [one for one, _ in found.top] == order
    assert [value for _, value in found.top] == pytest.approx([float(row[one]) for one in order])
    assert found.rank == sum(value > values[token] for value in values) + 1
    assert likeliest(np.array(values, np.float32), top).tolist() == order


SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "sampled": {"temperature": 2.0, "top_k": 3, "top_p": 0.8},
    "changed": {"logit_bias": {3: 9.0}, "frequency_penalty": 1.0, "repetition_penalty": 1.5},
    "hooked": {"logits_hook": lambda ids, logits: -logits},
}


@pytest.mark.parametrize("top", [0, 3, 100])
@pytest.mark.parametrize("kind", SETTINGS)
def test_of_new_tokens(kind: str, top: int, nested: Model, zoo: Zoo) -> None:
    """Before temperature, filters, penalties, bias and hook."""
    params = SamplingParams(seed=2, max_new_tokens=8, logprobs=top, **SETTINGS[kind])
    new = nested.generate_ids(PROMPT, params)
    ids = list(new)
    rows = expected_of(zoo, [*PROMPT, *ids])[len(PROMPT) - 1 :]
    assert len(new.logprobs) == len(ids) == 8
    for found, row, token in zip(new.logprobs, rows, ids, strict=False):
        check(found, row, token, min(top, 41))


@pytest.mark.parametrize("length", [2, 21, 96])
def test_of_the_prompt(length: int, nested: Model, zoo: Zoo) -> None:
    """All but the first; and what is drawn is what is drawn without asking for them."""
    prompt = random_ids(1, length, seed=3)[0].tolist()
    params = {"seed": 2, "max_new_tokens": 4}
    new = nested.generate_ids(prompt, SamplingParams(prompt_logprobs=2, **params))
    rows = expected_of(zoo, prompt)
    assert len(new.prompt_logprobs) == length - 1
    for found, row, token in zip(new.prompt_logprobs, rows, prompt[1:], strict=False):
        check(found, row, token, 2)
    assert list(new) == list(nested.generate_ids(prompt, SamplingParams(**params)))
    assert nested.generate_ids(prompt, SamplingParams(**params)).prompt_logprobs == []


def test_of_a_single_token(nested: Model) -> None:
    """Nothing says how likely it was."""
    new = nested.generate_ids([5], SamplingParams(prompt_logprobs=0, max_new_tokens=1))
    assert (len(list(new)), new.prompt_logprobs) == (1, [])


def test_of_a_session_that_goes_on(nested: Model, zoo: Zoo) -> None:
    """Of what is appended now, by all that was there before."""
    session = nested.session()
    session.advance([PROMPT])
    more = random_ids(1, 9, seed=8)[0].tolist()
    new = generate_ids(session, more, SamplingParams(prompt_logprobs=1, logprobs=1, max_new_tokens=3, seed=0))
    ids = list(new)
    rows = expected_of(zoo, [*PROMPT, *more, *ids])[len(PROMPT) :]
    for found, row, token in zip([*new.prompt_logprobs, *new.logprobs], rows, [*more[1:], *ids], strict=False):
        check(found, row, token, 1)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 12))
def test_of_chunks(nested: Model, zoo: Zoo, sizes: list[int], first: int) -> None:
    """However a text is cut into calls, and wherever scoring begins."""
    ids, session = random_ids(1, sum(sizes), seed=6)[0].tolist(), nested.session()
    rows, start = expected_of(zoo, ids), 0
    for size in sizes:
        part = ids[start : start + size]
        found, logits = append_scored(session, part, 2, first=first)
        assert len(found) == max(len(part) - first, 0)
        for offset, one in enumerate(found, start + first):
            check(one, rows[offset - 1], ids[offset], 2)
        start += len(part)
        np.testing.assert_allclose(torch.log_softmax(torch.from_numpy(logits).double(), 0), rows[start - 1], atol=TOLERANCE)


def test_of_the_many_texts_of_a_batch(nested: Model, zoo: Zoo) -> None:
    """Each as it is alone, prompts included; by a service without a tokenizer."""
    prompts = [random_ids(1, length, seed=length)[0].tolist() for length in (3, 40, 17)]
    settings = {"seed": 4, "max_new_tokens": 5, "logprobs": 2, "prompt_logprobs": 2}
    with Service(nested, slots=2, prefill_seconds=1e-6) as service:
        streams = [service.submit(prompt, as_text=False, **settings) for prompt in prompts]
        for prompt, stream in zip(prompts, streams, strict=True):
            events = [event for event in stream if event.token is not None]
            ids = [event.token for event in events]
            rows = expected_of(zoo, [*prompt, *ids])
            logprobs = [*stream.prompt_logprobs, *(event.logprobs for event in events)]
            for found, row, token in zip(logprobs, rows, [*prompt[1:], *ids], strict=False):
                check(found, row, token, 2)


def test_logits_that_are_no_numbers_are_refused(nested: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whoever scores a text; a sampler finds out by itself."""
    session = nested.session()
    advance = session.advance

    def broken(*arguments: Any, **more: Any) -> np.ndarray:
        logits = advance(*arguments, **more)
        logits[0, -1, 0] = np.nan
        return logits

    monkeypatch.setattr(session, "advance", broken)
    with pytest.raises(InputError, match="can't say how likely ids 0 to 3 are: the largest logit of some is no finite number"):
        append_scored(session, [1, 2, 3], 0)
    assert math.isnan(token_logprobs(np.array([0, np.nan], np.float32), 0, 0).logprob)
    with pytest.raises(InputError, match="can't sample: the largest logit is nan"):
        Sampler(SamplingParams(logprobs=1)).sample(np.array([0, np.nan], np.float32), np.zeros(0, np.int64))
