"""Drafts change nothing but the time it takes: of every setting, the text that comes is the one that comes without them."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
from drafts import FreeCosts, KnowingDrafter, LenientDrafter, check_drafts, check_drafts_of, continued
from fake_cuda import FakeGpu
from hypothesis import given, settings
from hypothesis import strategies as st
from resident_engines import ort_engines, session_of, tensorrt_engines
from specimens import ZOO, Goldens, Zoo, random_ids

from foveal import Constraint, InputError, SamplingParams, load
from foveal.runtime.model import Model
from foveal.runtime.session import Session
from foveal.runtime.speculation.drafting import Drafting

PROMPT = random_ids(1, 9)[0].tolist()
SETTINGS: list[dict[str, Any]] = [
    {"temperature": 0},
    {"temperature": 0.6},
    {"temperature": 1.5, "top_k": 5},
    {"top_p": 0.7},
    {"min_p": 0.2, "temperature": 3.0},
    {"repetition_penalty": 1.5},
    {"frequency_penalty": 0.8, "presence_penalty": -0.3},
    {"logit_bias": {3: 4.0, 7: -float("inf")}, "temperature": 0},
    {"logprobs": 3},
]


@pytest.fixture(scope="module", params=sorted(ZOO))
def model(request: pytest.FixtureRequest, zoo: Zoo) -> Model:
    return load(zoo[request.param].bundle, threads=1)


@pytest.mark.parametrize("choice", SETTINGS, ids=str)
def test_of_every_setting(choice: dict[str, Any], model: Model) -> None:
    """To the end of the context, and so to the last phase."""
    check_drafts(model, PROMPT, SamplingParams(**choice, seed=3, max_new_tokens=200), capacity=64)


@given(st.integers(1, 30), st.integers(1, 60), st.integers(0, 2**32), st.floats(0, 3))
@settings(deadline=None)
def test_of_every_length(zoo: Zoo, prompt: int, new: int, seed: int, temperature: float) -> None:
    """Of prompts and of what is asked for."""
    model = load(zoo["nested"].bundle, threads=1)
    ids = random_ids(1, prompt, seed=seed % 1000)[0].tolist()
    check_drafts(model, ids, SamplingParams(temperature=temperature, seed=seed, max_new_tokens=new), 64, seed)


@pytest.mark.parametrize("library", ["onnxruntime", "tensorrt-rtx"])
def test_on_devices(library: str, zoo: Zoo, gpu: FakeGpu) -> None:
    """Where tokens could be drawn on the device, drafts are drawn on the host: the text is the same."""
    specimen = zoo["nested"]

    def opened() -> Session:
        engines = (
            ort_engines(specimen, "modern", gpu=gpu) if library == "onnxruntime" else tensorrt_engines(specimen, library, gpu)
        )
        return session_of(engines, specimen)

    for params in (SamplingParams(temperature=0, max_new_tokens=40), SamplingParams(top_k=12, seed=3, max_new_tokens=200)):
        check_drafts_of(opened, PROMPT, params)


def test_log_probabilities_are_those_without(zoo: Zoo) -> None:
    """Of each token, and of the likeliest beside it."""
    model, params = load(zoo["linear"].bundle, threads=1), SamplingParams(seed=1, logprobs=2, prompt_logprobs=1)
    plain = continued(model.session(), PROMPT, params)
    ids = list(plain)
    found = continued(model.session(), PROMPT, params, [*PROMPT, *ids])
    list(found)
    for one, other in zip(found.logprobs, plain.logprobs, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
        assert [token for token, _ in one.top] == [token for token, _ in other.top]
    assert [one.logprob for one in found.prompt_logprobs] == [one.logprob for one in plain.prompt_logprobs]


@pytest.fixture(scope="module")
def bytes_model(goldens: Goldens) -> Model:
    return load(goldens["s4_naive_attn"], threads=1)


class TestAsText:
    """Of a model of bytes."""

    def both(self, model: Model, **choices: Any) -> tuple[Any, Any]:
        """Without drafts, and with some that are known to come; both read."""
        prompt = "It was"
        plain = model.generate(prompt, **choices)
        plain_pieces = list(plain)
        whole, size = [*prompt.encode(), *plain.ids, *[0] * 8], model.manifest.model.vocab_size
        drafting = Drafting(lambda sampler: LenientDrafter(whole, Random(0), size), FreeCosts())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(model, "_drafting", lambda draft, most, observer=None: drafting)
            drafted = model.generate(prompt, **choices)
            pieces = list(drafted)
        assert "".join(pieces) == "".join(plain_pieces)
        assert drafted.ids == plain.ids
        assert (drafted.finish_reason, drafted.end_rule) == (plain.finish_reason, plain.end_rule)
        return plain, drafted

    def test_stop_strings_and_end_tokens(self, bytes_model: Model) -> None:
        """Also where they come within a draft."""
        plain = bytes_model.generate("It was", seed=5, max_new_tokens=40)
        text = "".join(plain)
        for choices in ({"stop": text[9:12]}, {"end": plain.ids[11]}, {"end": plain.ids[11], "min_tokens": 20}):
            _, drafted = self.both(bytes_model, seed=5, max_new_tokens=40, **choices)
            assert drafted.finish_reason in ("stop", "end", "length")

    def test_constraints(self, bytes_model: Model) -> None:
        """A text that has to follow one ends where nothing may follow."""
        _, drafted = self.both(bytes_model, seed=1, max_new_tokens=60, constraint=Constraint("regex", "( [a-z]{2,5}){3}\\."))
        assert drafted.finish_reason == "complete"

    def test_hooks_see_the_text_alone(self, bytes_model: Model) -> None:
        """And none of what was drafted behind it; each position once."""
        seen: list[list[int]] = []

        def hook(ids: np.ndarray, logits: np.ndarray) -> np.ndarray:
            seen.append(ids.tolist())
            return logits

        plain, _ = self.both(bytes_model, seed=1, max_new_tokens=30, logits_hook=hook)
        assert len(seen) == 60
        assert seen[:30] == seen[30:]
        assert seen[-1] == [*b"It was", *plain.ids[:-1]]


def test_who_stops_early_leaves_the_session_at_the_last_token(zoo: Zoo) -> None:
    """Drafts behind it are taken back; `close` at any token."""
    model, params = load(zoo["nested"].bundle, threads=1), SamplingParams(seed=4, max_new_tokens=30)
    ids = list(continued(model.session(), PROMPT, params))
    for taken in range(1, 30):
        session = model.session()
        going = continued(session, PROMPT, params, [*PROMPT, *ids], seed=taken)
        assert [next(going) for _ in range(taken)] == ids[:taken]
        going.close()
        assert session.tokens[0].tolist() == [*PROMPT, *ids[: taken - 1]]
        assert list(continued(session, ids[taken - 1 : taken], SamplingParams(temperature=0, max_new_tokens=3)))


def test_an_error_while_drawing_closes_the_drafter(zoo: Zoo) -> None:
    """And is the one that comes without drafts."""
    model, opened = load(zoo["nested"].bundle, threads=1), list[KnowingDrafter]()

    def broken(ids: np.ndarray, logits: np.ndarray) -> np.ndarray:
        return logits if len(ids) < 14 else logits[:3]

    def open_drafter(sampler: Any) -> KnowingDrafter:
        opened.append(LenientDrafter([0] * 60, Random(0), 41))
        return opened[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "_drafting", lambda draft, most, observer=None: Drafting(open_drafter, FreeCosts()))
        with pytest.raises(InputError, match="the logits_hook gave"):
            list(model.generate_ids(PROMPT, SamplingParams(logits_hook=broken)))
    assert opened[0].is_closed
