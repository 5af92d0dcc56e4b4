"""When a text may end, and when it must: least and most tokens, deadlines, full contexts."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from foveal import InputError, SamplingParams, Service
from foveal.runtime.model import Model

PROMPT = "It was"


def ids_of(text: Any) -> list[int]:
    """All of them."""
    list(text)
    return text.ids


def test_no_end_token_comes_too_early(model: Model) -> None:
    """It is not drawn before there are so many; what comes in its place is the likeliest of the others."""
    plain = ids_of(model.generate(PROMPT, temperature=0, max_new_tokens=12))
    end = plain[0]
    assert ids_of(model.generate(PROMPT, temperature=0, max_new_tokens=12, end=end)) == []
    for least in (1, 4):
        text = model.generate(PROMPT, temperature=0, max_new_tokens=12, end=end, min_tokens=least)
        ids = ids_of(text)
        assert len(ids) >= least
        assert end not in ids
        forbidden = model.generate(PROMPT, temperature=0, max_new_tokens=least, logit_bias={end: -np.inf})
        assert ids[:least] == ids_of(forbidden)


def test_no_stop_string_is_looked_for_too_early(model: Model, written) -> None:
    """What comes before is text; one that comes later ends it, and none is made of what was given out."""
    ids = list(b"ab.cd.ef.gh")
    for least, expected in ((0, "ab"), (2, "ab"), (3, "ab"), (4, "ab.cd"), (7, "ab.cd.ef"), (11, "ab.cd.ef.gh")):
        text = model.generate(PROMPT, stop=".", min_tokens=least, **written(len(PROMPT), ids))
        assert "".join(text) == expected, least
        assert text.finish_reason == ("length" if least == 11 else "stop")


def test_min_tokens_holds_for_every_prompt(model: Model) -> None:
    """Of many, and in a service."""
    plain = ids_of(model.generate(PROMPT, temperature=0, max_new_tokens=6))
    settings: dict[str, Any] = {"temperature": 0, "max_new_tokens": 6, "end": plain[0], "min_tokens": 3}
    expected = ids_of(model.generate(PROMPT, **settings))
    many = model.generate_many([PROMPT] * 3, slots=2, **settings)
    list(many)
    assert list(many.ids.values()) == [expected] * 3
    with Service(model, slots=2) as service:
        assert [event.token for event in service.submit(PROMPT, **settings) if event.token is not None] == expected


def slow(seconds: float) -> Any:
    """A hook that takes its time."""

    def hook(ids: np.ndarray, logits: np.ndarray) -> np.ndarray:
        time.sleep(seconds)
        return logits

    return hook


def test_a_deadline_ends_what_it_has(model: Model) -> None:
    """After the token that is late; the same for many prompts and a service, and for ids."""
    settings: dict[str, Any] = {"max_seconds": 0.1, "logits_hook": slow(0.02), "max_new_tokens": 100, "seed": 1}
    text = model.generate(PROMPT, **settings)
    assert 1 <= len(ids_of(text)) < 20
    assert text.finish_reason == "deadline"
    ids = model.generate_ids(PROMPT, SamplingParams(**settings))
    assert 1 <= len(list(ids)) < 20
    assert ids.finish_reason == "deadline"
    many = model.generate_many([PROMPT] * 2, slots=2, **settings)
    list(many)
    assert set(many.finish_reasons.values()) == {"deadline"}
    with Service(model, slots=1) as service:
        streams = [service.submit(PROMPT, **settings) for _ in range(2)]
        counts = [sum(event.token is not None for event in stream) for stream in streams]
        assert [stream.finish_reasons for stream in streams] == [{0: "deadline"}] * 2
        assert counts[0] >= 1
        assert counts[1] <= 1, "it had no slot before it was late"


def test_a_deadline_that_is_not_reached_changes_nothing(model: Model) -> None:
    """Neither tokens nor the reason."""
    text = model.generate(PROMPT, seed=1, max_new_tokens=5, max_seconds=1000)
    assert ids_of(text) == ids_of(model.generate(PROMPT, seed=1, max_new_tokens=5))
    assert text.finish_reason == "length"


def test_settings_that_the_model_can_not_follow(model: Model) -> None:
    """At the call: for one prompt, for ids, for many and in a service."""
    wrong = {"logit_bias": {256: 1.0}}
    with Service(model, slots=1) as service:
        for call in (
            lambda: model.generate(PROMPT, **wrong),
            lambda: model.generate_ids(PROMPT, SamplingParams(**wrong)),
            lambda: model.generate_many([PROMPT], **wrong),
            lambda: model.generate_many(iter([PROMPT]), **wrong),
            lambda: service.submit(PROMPT, **wrong),
        ):
            with pytest.raises(InputError, match="logit_bias has id 256, expected ids below 256"):
                call()
        with pytest.raises(InputError, match="stop strings are of text, and ids have none"):
            service.submit(PROMPT, as_text=False, stop="x")


def test_settings_that_there_are_not(model: Model) -> None:
    """Those that there are come with the error."""
    with pytest.raises(
        InputError,
        match='there is no setting "max_tokens"; there are: constraint, draft, draft_tokens, end, end_rules, frequency',
    ):
        model.generate(PROMPT, max_tokens=5)  # type: ignore[call-arg]
    with pytest.raises(InputError, match="got json_schema and regex, expected at most one of them"):
        model.generate(PROMPT, json_schema="{}", regex="a")


def test_a_hook_that_fails_ends_its_own_text_alone(model: Model) -> None:
    """The others of a batch go on; the error names the prompt."""

    def hook(ids: np.ndarray, logits: np.ndarray) -> np.ndarray:
        raise RuntimeError("boo")

    many = model.generate_many([PROMPT, "x", PROMPT], slots=2, logits_hook=[None, hook, None], seed=1, max_new_tokens=6)
    errors, texts = [], {}
    while True:
        try:
            index, piece = next(many)
            texts[index] = texts.get(index, "") + piece
        except InputError as error:
            errors.append(str(error))
        except StopIteration:
            break
    assert errors == ["prompt 1: the logits_hook raised RuntimeError: boo"]
    expected = "".join(model.generate(PROMPT, seed=1, max_new_tokens=6))
    assert texts == {0: expected, 2: expected}
