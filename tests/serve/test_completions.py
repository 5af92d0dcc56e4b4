"""`/v1/completions` answers as OpenAI's does, with the texts of `Model.generate`."""

from __future__ import annotations

import math
from typing import Any

import pytest
from serving import Site

from foveal.runtime.model import Model

PROMPT = "It was"


def test_a_text_is_that_of_generate_and_its_tokens_are_counted(site: Site, model: Model) -> None:
    """With the same settings and seed; 16 tokens if it does not say how many."""
    found = site.complete(prompt=PROMPT, seed=3, temperature=0.7).json()
    choice = found["choices"][0]
    assert choice["text"] == "".join(model.generate(PROMPT, max_new_tokens=16, seed=3, temperature=0.7))
    assert (choice["index"], choice["logprobs"], choice["finish_reason"]) == (0, None, "length")
    usage = {"prompt_tokens": 6, "completion_tokens": 16, "total_tokens": 22, "prompt_tokens_details": {"cached_tokens": 0}}
    assert found["usage"] == usage
    assert (found["object"], found["model"]) == ("text_completion", "m")
    assert found["id"].startswith("cmpl-")


SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "greedy": ({"temperature": 0}, {"temperature": 0}),
    "filters": ({"top_p": 0.5, "top_k": 9, "min_p": 0.01}, {"top_p": 0.5, "top_k": 9, "min_p": 0.01}),
    "penalties": (
        {"presence_penalty": 2.0, "frequency_penalty": 1.5, "repetition_penalty": 1.2},
        {"presence_penalty": 2.0, "frequency_penalty": 1.5, "repetition_penalty": 1.2},
    ),
    "bias": ({"logit_bias": {"101": 100, "32": -100}}, {"logit_bias": {101: 100, 32: -100}}),
    "stop": ({"stop": "e"}, {"stop": "e"}),
    "stops": ({"stop": ["e", " "]}, {"stop": ["e", " "]}),
    "ends": ({"stop_token_ids": [101], "end": " ", "min_tokens": 3}, {"end": [101, " "], "min_tokens": 3}),
    "nulls": ({"top_p": None, "stop": None, "n": None, "logit_bias": None}, {}),
    "a seed below zero": ({"seed": -2}, {"seed": 2**64 - 2}),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_every_setting_reaches_the_model(site: Site, model: Model, kind: str) -> None:
    """As it is, or under the runtime's name."""
    sent, meant = SETTINGS[kind]
    expected = "".join(model.generate(PROMPT, **{"max_new_tokens": 30, "seed": 5, **meant}))
    assert site.text(**{"prompt": PROMPT, "max_tokens": 30, "seed": 5, **sent}) == expected


def test_a_stream_holds_the_same_text_in_pieces(site: Site) -> None:
    """The last has the reason, and then come the counts, if they were asked for."""
    whole = site.complete(prompt=PROMPT, seed=3, max_tokens=80).json()
    chunks = site.chunks(prompt=PROMPT, seed=3, max_tokens=80, stream_options={"include_usage": True})
    assert len(chunks) > 2  # what comes while a piece is written is one piece
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks[:-1]) == whole["choices"][0]["text"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["length"]
    assert [chunk["usage"] for chunk in chunks] == [None] * (len(chunks) - 1) + [whole["usage"]]
    assert chunks[-1]["choices"] == []
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_prompts_may_be_texts_ids_or_lists_of_them(site: Site) -> None:
    """Texts of a list come in its order, those of each prompt together."""
    one, other = site.text(prompt="It", seed=1), site.text(prompt="was", seed=1)
    assert one == site.text(prompt=list(b"It"), seed=1)
    for prompts in (["It", "was"], [list(b"It"), list(b"was")]):
        found = site.complete(prompt=prompts, seed=1).json()
        assert [choice["text"] for choice in found["choices"]] == [one, other]
        assert found["usage"]["prompt_tokens"] == 5


@pytest.mark.parametrize("streams", [False, True])
def test_several_texts_of_several_prompts(site: Site, model: Model, streams: bool) -> None:
    """Each with a seed of its own; prompts count once."""
    asked = {"prompt": ["It", "was"], "n": 2, "seed": 4, "max_tokens": 8}
    expected = ["".join(model.generate(prompt, max_new_tokens=8, seed=4 + k)) for prompt in ("It", "was") for k in (0, 1)]
    if streams:
        found = [""] * 4
        for chunk in site.chunks(**asked):
            found[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
        assert found == expected
        return
    answer = site.complete(**asked).json()
    assert [choice["text"] for choice in answer["choices"]] == expected
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (5, 32)


def test_log_probabilities_are_given_with_every_token(site: Site) -> None:
    """Its own, those of the likeliest, and where it begins in the text."""
    found = site.complete(prompt=PROMPT, seed=3, max_tokens=10, logprobs=2).json()["choices"][0]
    logprobs = found["logprobs"]
    assert all(len(values) == 10 for values in logprobs.values())
    assert all(value < 0 for value in logprobs["token_logprobs"])
    for token, own, top in zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True):
        assert top[token] == own
        assert len(top) in (2, 3)
    for token, offset in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
        assert token.startswith(("bytes:", "token_id:")) or found["text"][offset:].startswith(token)


def test_log_probabilities_of_a_stream_are_those_of_the_whole(site: Site) -> None:
    """Piece by piece."""
    asked = {"prompt": PROMPT, "seed": 3, "max_tokens": 10, "logprobs": 1, "echo": True}
    whole = site.complete(**asked).json()["choices"][0]
    found: dict[str, list[Any]] = {}
    for chunk in site.chunks(**asked):
        for name, values in chunk["choices"][0]["logprobs"].items():
            found.setdefault(name, []).extend(values)
    assert found["tokens"] == whole["logprobs"]["tokens"]
    assert found["text_offset"] == whole["logprobs"]["text_offset"]
    assert found["token_logprobs"][1:] == pytest.approx(whole["logprobs"]["token_logprobs"][1:], abs=1e-4)


def test_echo_gives_the_prompt_back(site: Site) -> None:
    """As it was given, before the text."""
    plain = site.text(prompt=PROMPT, seed=1)
    assert site.text(prompt=PROMPT, seed=1, echo=True) == PROMPT + plain
    assert site.text(prompt=list(PROMPT.encode()), seed=1, echo=True) == PROMPT + plain
    assert "".join(chunk["choices"][0]["text"] for chunk in site.chunks(prompt=PROMPT, seed=1, echo=True)) == PROMPT + plain


def test_a_text_can_be_scored_without_generating(site: Site, model: Model) -> None:
    """`max_tokens` 0 with echo: what evaluation harnesses send."""
    answer = site.complete(prompt="It was", max_tokens=0, echo=True, logprobs=1).json()
    found = answer["choices"][0]
    assert found["text"] == "It was"
    assert found["logprobs"]["tokens"] == list("It was")
    assert found["logprobs"]["token_logprobs"][0] is None
    assert found["logprobs"]["text_offset"] == [0, 1, 2, 3, 4, 5]
    logits = model.session().advance([list(b"It was")])[0]
    below = logits[0] - logits[0].max()
    expected = below[ord("t")] - math.log(sum(math.exp(one) for one in below))
    assert found["logprobs"]["token_logprobs"][1] == pytest.approx(expected, abs=1e-4)
    assert answer["usage"]["completion_tokens"] == 0


def test_reasons_are_openais_and_the_real_one_is_told_who_asks(site: Site) -> None:
    """A full context and a length are both `length`; a stop string and an end token both `stop`."""
    text = site.text(prompt=PROMPT, seed=3)
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"max_tokens": 2}, "length", "length"),
        ({"max_tokens": 1000}, "length", "capacity"),
        ({"stop": text[4]}, "stop", "stop"),
        ({"stop_token_ids": list(range(256)), "max_tokens": 5}, "stop", "end"),
        ({"max_seconds": 1e-9, "max_tokens": 5}, "length", "deadline"),
    ]
    for asked, said, real in cases:
        found = site.complete(prompt=PROMPT, seed=3, foveal=True, **asked).json()["choices"][0]
        assert (found["finish_reason"], found["foveal"]["finish_reason"]) == (said, real), asked


def test_who_asks_is_told_how_each_token_came(site: Site, model: Model) -> None:
    """Its position, which stages fired, and how long it took; nobody else is."""
    chunks = site.chunks(prompt=PROMPT, seed=3, max_tokens=6, foveal=True)
    tokens = [token for chunk in chunks for token in chunk["foveal"].get("tokens", ())]
    assert [token["position"] for token in tokens] == list(range(6, 12))
    assert all(token["seconds"] >= 0 for token in tokens)
    names = [spec.name for spec in model.specs]
    for token in tokens:
        due = [spec.name for spec in model.specs if spec.firings(token["position"] - 1, 1)]
        assert token["fired"] == due
        assert set(due) <= set(names)
    assert chunks[-1]["foveal"]["session"] is None
    assert all("foveal" not in chunk for chunk in site.chunks(prompt=PROMPT))
    assert "foveal" not in site.complete(prompt=PROMPT).json()["choices"][0]
