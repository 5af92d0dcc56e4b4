"""What can't be followed is refused in OpenAI's form, before anything is generated; nothing is an error of the server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import Site, error_of

JSON = {"content-type": "application/json"}
MALFORMED = {
    "nothing": b"",
    "half an object": b'{"model": "m", "prompt": "a"',
    "two objects": b'{"model": "m", "prompt": "a"} {}',
    "a list": b"[]",
    "null": b"null",
    "invalid UTF-8": b'{"model": "m", "prompt": "\xff\xfe"}',
    "half a pair": b'{"model": "m", "prompt": "\\ud800"}',
    "NaN": b'{"model": "m", "prompt": "a", "temperature": NaN}',
    "infinity": b'{"model": "m", "prompt": "a", "temperature": 1e999}',
    "a huge integer": b'{"model": "m", "prompt": "a", "max_tokens": ' + b"9" * 400 + b"}",
    "a huge id": b'{"model": "m", "prompt": [' + b"9" * 400 + b"]}",
    "a huge seed": b'{"model": "m", "prompt": "a", "seed": ' + b"9" * 400 + b"}",
    "deep lists": b'{"model": "m", "prompt": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "deep objects": b'{"model": "m", "prompt": "a", "json_schema": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}",
    "a key of the bias that is none": b'{"model": "m", "prompt": "a", "logit_bias": {"\xd9\xa3": 1}}',
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_bodies_are_refused(site: Site, kind: str) -> None:
    """With 400, whatever is wrong with them; numbers beyond every limit mean as much as the limit, or are refused."""
    answer = site.client.post("/v1/completions", content=MALFORMED[kind], headers=JSON)
    if kind == "a huge integer" and answer.status_code == 200:
        assert answer.json()["choices"][0]["finish_reason"] == "length"
        return
    error_of(answer, 400)


REFUSED: dict[str, tuple[dict[str, Any], str | None]] = {
    "an unknown field": ({"temperatur": 1}, "temperatur"),
    "an unknown field inside": ({"stream": True, "stream_options": {"usage": True}}, "stream_options.usage"),
    "a text for a number": ({"temperature": "1"}, "temperature"),
    "a truth value for a number": ({"max_tokens": True}, "max_tokens"),
    "a fraction for a whole number": ({"max_tokens": 1.5}, "max_tokens"),
    "an empty prompt": ({"prompt": ""}, "prompt"),
    "a prompt of no ids": ({"prompt": []}, "prompt"),
    "a mixture of prompts": ({"prompt": ["a", 1]}, "prompt"),
    "an id that there is not": ({"prompt": [256]}, "prompt"),
    "an id below zero": ({"prompt": [-1]}, "prompt"),
    "a truth value as id": ({"prompt": [True]}, "prompt"),
    "too many prompts": ({"prompt": ["a"] * 65}, "prompt"),
    "a prompt longer than the context": ({"prompt": "a" * 129}, "prompt"),
    "a temperature below zero": ({"temperature": -1}, "temperature"),
    "a top_p of zero": ({"top_p": 0}, "top_p"),
    "no texts": ({"n": 0}, "n"),
    "more texts than there may be": ({"n": 65}, "n"),
    "more texts than slots and queue hold": ({"n": 13}, "n"),
    "no tokens": ({"max_tokens": 0}, "max_tokens"),
    "fewer": ({"max_tokens": -1}, "max_tokens"),
    "more tokens at least than at most": ({"min_tokens": 5, "max_tokens": 3}, "min_tokens"),
    "too many log probabilities": ({"logprobs": 6}, "logprobs"),
    "the best of several": ({"best_of": 2}, "best_of"),
    "a suffix": ({"suffix": "x"}, "suffix"),
    "an empty stop string": ({"stop": ""}, "stop"),
    "too many stop strings": ({"stop": ["a"] * 17}, "stop"),
    "a long stop string": ({"stop": "a" * 1001}, "stop"),
    "a bias for what is no id": ({"logit_bias": {"a": 1}}, "logit_bias"),
    "a bias for an id that there is not": ({"logit_bias": {"300": 1}}, "logit_bias"),
    "an end token that there is not": ({"end": ["<|nothing|>"]}, "end"),
    "an end token with an id that there is not": ({"stop_token_ids": [300]}, "end"),
    "an end token of an id beyond all": ({"end": 10**30}, "end"),
    "an end rule that there is not": ({"end_rules": "piece"}, "end_rules"),
    "a schema of no type": ({"json_schema": {"type": "foo"}}, "json_schema"),
    "answers that are kept": ({"store": True}, "store"),
    "a service tier": ({"service_tier": "priority"}, "service_tier"),
    "options of a stream that is none": ({"stream_options": {"include_usage": True}}, "stream_options"),
    "a position of no session": ({"position": 0}, "position"),
    "a session's name that is none": ({"session": "../a"}, "session"),
    "several prompts for a session": ({"session": "a", "prompt": ["a", "b"]}, "prompt"),
    "an unknown format": ({"response_format": {"type": "xml"}}, "response_format.type"),
}


@pytest.mark.parametrize(
    ("field", "number"), [("temperature", b"1e999"), ("max_tokens", b"9" * 5000), ("seed", b"-1e308"), ("n", b"1e308")]
)
def test_numbers_beyond_all_are_refused_with_their_field(site: Site, field: str, number: bytes) -> None:
    """In a few words, however long they are."""
    body = b'{"model": "m", "prompt": "a", "%b": %b}' % (field.encode(), number)
    error = error_of(site.client.post("/v1/completions", content=body, headers=JSON), 400)
    assert error["param"] == field
    assert len(error["message"]) < 700


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("streams", [False, True])
def test_what_cannot_be_followed_is_refused_and_named(site: Site, kind: str, streams: bool) -> None:
    """With 400, also if a stream was asked for."""
    fields, param = REFUSED[kind]
    asked = {"prompt": "a", **fields}
    if streams and "stream_options" not in fields:
        asked["stream"] = True
    error = site.refusal(400, **asked)
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param


def test_models_are_looked_up_and_nothing_else(site: Site) -> None:
    """Names that would be paths are names that there are not."""
    for name in ("n", "", "../m", "/etc/passwd", "m/../m", "m\x00", "M", "m" * 10_000):
        assert site.refusal(404, prompt="a", model=name)["code"] == "model_not_found"
    for path in ("n", "..%2Fm", "%2e%2e%2fetc%2fpasswd", "m%00"):
        error_of(site.client.get(f"/v1/models/{path}"), 404)


def test_paths_methods_and_types_that_there_are_not(site: Site) -> None:
    """In the same form."""
    error_of(site.client.get("/v1/engines"), 404)
    error = site.client.get("/v1/completions")
    error_of(error, 405)
    assert error.headers["allow"] == "POST"
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        error_of(
            site.client.post("/v1/completions", content=b'{"model":"m","prompt":"a"}', headers={"content-type": kind}), 415
        )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = [
    *(
        "prompt",
        "max_tokens",
        "temperature",
        "top_p",
        "n",
        "stream",
        "stream_options",
        "stop",
        "presence_penalty",
        "logit_bias",
    ),
    *("seed", "user", "response_format", "top_k", "min_p", "min_tokens", "stop_token_ids", "end", "max_seconds", "session"),
    *("position", "foveal", "logprobs", "echo", "best_of", "suffix", "repetition_penalty", "frequency_penalty"),
]


@given(st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=4))
def test_no_body_is_an_error_of_the_server(site: Site, fields: dict[str, Any]) -> None:
    """Whatever its fields hold."""
    body = json.dumps({"prompt": "a", "max_tokens": 2, **fields, "model": "m"}).encode()
    answer = site.client.post("/v1/completions", content=body, headers=JSON)
    assert answer.status_code in (200, 400, 409), answer.text


@given(st.binary(max_size=60))
def test_no_bytes_are_an_error_of_the_server(site: Site, body: bytes) -> None:
    """Neither."""
    error_of(site.client.post("/v1/completions", content=body, headers=JSON), 400)
