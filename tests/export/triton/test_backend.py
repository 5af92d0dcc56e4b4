"""The backend of an exported model, as a server runs it: each answer is held against the config (`fake_triton.py`)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_triton import Answer, Sender, Server, TritonError, check, triton_server
from specimens import Goldens, Zoo

import foveal
from foveal.export.triton import backend
from foveal.export.triton.repository import export_triton
from foveal.export.triton.settings import ServerSettings

GREEDY = {"temperature": 0, "max_new_tokens": 12}


def settings(**given: Any) -> str:
    """As a request has them."""
    return json.dumps({**GREEDY, **given})


def text_of(answer: list[dict[str, Any]]) -> str:
    """All text of a request."""
    return b"".join(one["text_output"][0] for one in answer).decode()


def ids_of(answer: list[dict[str, Any]]) -> list[int]:
    """All its tokens."""
    return [int(token) for one in answer for token in one["output_ids"]]


def reasons_of(answer: list[dict[str, Any]]) -> list[str]:
    """Of each response, why it was the last."""
    return [one["finish_reason"][0].decode() for one in answer]


def ending_of(sender: Sender) -> Answer | None:
    """The error that a request ended with."""
    try:
        list(sender.responses())
    except Answer as error:
        return error
    return None


@pytest.fixture(scope="module")
def model(goldens: Goldens) -> foveal.Model:
    """Of text; its ids are bytes."""
    return foveal.load(goldens["s4_naive_attn"], threads=1)


@pytest.fixture(scope="module")
def repository(model: foveal.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported model."""
    at = ServerSettings(slots=4, queue=4, threads=1, state_mb=64)
    return export_triton(model.bundle, tmp_path_factory.mktemp("repository"), name="text", settings=at)


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Server]:
    """With that model."""
    with triton_server(repository) as running:
        yield running


def test_a_text_comes_in_pieces_and_is_that_of_generate(server: Server, model: foveal.Model) -> None:
    """One response to a token; the last says why there are no more."""
    answer = server.ask(1, start=True, end=True, text_input="It was", sampling_parameters=settings(seed=1, temperature=0.8))
    alone = model.generate("It was", **{**GREEDY, "temperature": 0.8}, seed=1)
    assert (text_of(answer), ids_of(answer)) == ("".join(alone), alone.ids)
    assert reasons_of(answer)[-1] == alone.finish_reason == "length"
    assert not any(reasons_of(answer)[:-1])
    assert len(answer) >= 12


def test_ids_are_a_prompt_as_well(server: Server, model: foveal.Model) -> None:
    """The same tokens come."""
    ids = model.required_tokenizer().encode("It was")
    by_ids = server.ask(1, start=True, end=True, input_ids=ids, sampling_parameters=settings())
    assert ids_of(by_ids) == ids_of(server.ask(1, start=True, end=True, text_input="It was", sampling_parameters=settings()))


def test_a_sequence_goes_on_where_it_stood(server: Server, model: foveal.Model) -> None:
    """Three requests give what a session gives that is advanced by the same tokens; only the new ones are sent."""
    session, drawn = model.session(), []
    for number, prompt in enumerate(("It was", " a dark", " night")):
        answer = server.ask(7, number == 0, number == 2, text_input=prompt, sampling_parameters=settings())
        expected = list(drawn[-1:]) + model.required_tokenizer().encode(prompt)  # the last token drawn was not appended
        logits = session.advance([expected], last_only=True)
        drawn = []
        for _ in range(12):
            drawn.append(int(logits[0, -1].argmax()))
            if len(drawn) < 12:
                logits = session.advance([drawn[-1:]], last_only=True)
        assert ids_of(answer) == drawn


def test_sequences_of_differing_phases_decode_together(server: Server, model: foveal.Model) -> None:
    """Sixteen requests at once, more than slots and fewer than slots and queue hold twice over: each is as if it were alone."""
    prompts = ["It was", "The", "A", "Sea air", "Once", "He said so", "No", "Why"]
    senders = [
        server.send(100 + number, True, True, text_input=prompt, sampling_parameters=settings(seed=number, temperature=0.7))
        for number, prompt in enumerate(prompts)
    ]
    texts = [text_of(list(sender.responses())) for sender in senders]
    assert texts == ["".join(model.generate(p, **{**GREEDY, "temperature": 0.7}, seed=n)) for n, p in enumerate(prompts)]


def test_requests_of_a_sequence_wait_for_each_other(server: Server) -> None:
    """Sent without waiting, they are answered as if one had waited."""
    waited = [server.ask(8, n == 0, n == 3, text_input="It", sampling_parameters=settings()) for n in range(4)]
    senders = [server.send(9, n == 0, n == 3, text_input="It", sampling_parameters=settings()) for n in range(4)]
    assert [ids_of(list(sender.responses())) for sender in senders] == [ids_of(answer) for answer in waited]


def test_a_start_begins_anew(server: Server) -> None:
    """Also where the sequence of that number had not ended."""
    first = server.ask(10, start=True, text_input="It was", sampling_parameters=settings())
    again = server.ask(10, start=True, text_input="It was", sampling_parameters=settings())
    assert ids_of(first) == ids_of(again)
    assert ids_of(server.ask(10, end=True, text_input="It was", sampling_parameters=settings())) != ids_of(again)


def test_an_end_without_a_prompt_only_ends(server: Server) -> None:
    """Nothing is generated; what the sequence held is forgotten."""
    server.ask(11, start=True, text_input="It was", sampling_parameters=settings())
    (only,) = server.ask(11, end=True)
    assert (only["text_output"][0], list(only["output_ids"]), only["finish_reason"][0]) == (b"", [], b"end")
    assert server._backend._service.sessions.position("sequence 11") is None


def test_what_ended_is_forgotten(server: Server) -> None:
    """No sequence of the tests above is kept."""
    store = server._backend._store
    server.ask(12, start=True, text_input="It was", sampling_parameters=settings())
    held = len(store)
    server.ask(12, end=True, text_input=" so", sampling_parameters=settings())
    assert len(store) == held - 1


REFUSED = [
    ({}, "the request has no prompt; give text_input or input_ids"),
    ({"text_input": "a", "input_ids": [1]}, "got both text_input and input_ids, expected one of them"),
    ({"text_input": ""}, "the prompt is empty"),
    ({"input_ids": []}, "empty"),
    ({"input_ids": [256]}, "the prompt's ids"),
    ({"input_ids": [-1]}, "the prompt's ids"),
    ({"text_input": b"It\xff"}, "text_input is no UTF-8: byte 2 is 0xff; send text in UTF-8"),
    ({"text_input": "a" * 5000}, "a sequence of this service room for"),
    ({"text_input": "a", "sampling_parameters": "{"}, "sampling_parameters is no JSON"),
    ({"text_input": "a", "sampling_parameters": "[1]"}, "sampling_parameters is list, expected a JSON object"),
    ({"text_input": "a", "sampling_parameters": '{"top_q": 1}'}, 'there is no setting "top_q"; there are: '),
    ({"text_input": "a", "sampling_parameters": '{"n": 2}'}, 'there is no setting "n"'),
    ({"text_input": "a", "sampling_parameters": '{"session": "b"}'}, 'there is no setting "session"'),
    (
        {"text_input": "a", "sampling_parameters": '{"logprobs": 1}'},
        '"logprobs" can\'t be had here: it is not among the outputs',
    ),
    ({"text_input": "a", "sampling_parameters": '{"top_p": 0}'}, "top_p is 0.0, expected more than 0"),
    ({"text_input": "a", "sampling_parameters": '{"temperature": NaN}'}, "sampling_parameters is no JSON"),
    ({"text_input": "a", "sampling_parameters": '{"logit_bias": {"x": 1}}'}, "logit_bias"),
]


@pytest.mark.parametrize(("inputs", "sentence"), REFUSED, ids=[sentence for _, sentence in REFUSED])
def test_what_can_not_be_is_said_in_a_sentence(inputs: dict[str, Any], sentence: str, server: Server) -> None:
    """As an invalid argument, in the only response; the server goes on."""
    with pytest.raises(Answer, match=".*") as caught:
        server.ask(20, start=True, end=True, **inputs)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.code == TritonError.INVALID_ARG


def test_settings_that_json_writes_otherwise(server: Server, model: foveal.Model) -> None:
    """Keys of a bias are texts in JSON, and lists are lists."""
    likeliest = ids_of(server.ask(21, start=True, end=True, text_input="It", sampling_parameters=settings(max_new_tokens=1)))[0]
    bias = settings(max_new_tokens=1, logit_bias={str(likeliest): -1e9})
    assert ids_of(server.ask(21, start=True, end=True, text_input="It", sampling_parameters=bias)) != [likeliest]
    ended = server.ask(21, start=True, end=True, text_input="It", sampling_parameters=settings(end=[likeliest]))
    assert (ids_of(ended), reasons_of(ended)[-1]) == ([], "end")


def test_a_sequence_that_is_not_kept_says_so(server: Server) -> None:
    """Its first request failed: it is not begun silently from nothing."""
    with pytest.raises(Answer):
        server.ask(30, start=True, text_input="It", sampling_parameters="{")
    with pytest.raises(Answer, match="sequence 30 is not kept here: .*; begin it again, with all of its text") as caught:
        server.ask(30, text_input=" was", sampling_parameters=settings())
    assert caught.value.code == TritonError.NOT_FOUND
    server.ask(30, end=True)


def test_a_full_service_is_unavailable(server: Server) -> None:
    """What comes beyond slots and queue is refused at once, and what was taken is answered."""
    senders = [
        server.send(200 + n, True, True, text_input="It", sampling_parameters=settings(max_new_tokens=60)) for n in range(12)
    ]
    answers = [ending_of(sender) for sender in senders]
    refused = [error for error in answers if error is not None]
    assert len(refused) == 4
    assert {error.code for error in refused} == {TritonError.UNAVAILABLE}
    assert all("the service is full: it holds 4 texts that decode and 4 that wait" in str(error) for error in refused)


def test_what_a_client_no_longer_wants_is_cancelled(server: Server) -> None:
    """Its slot is free soon; the last response is sent all the same, as Triton asks for."""
    sender = server.send(40, True, True, text_input="It", sampling_parameters=settings(max_new_tokens=80))
    next(sender.responses())
    sender.is_wanted = False
    rest = list(sender.responses())
    assert reasons_of(rest)[-1] in ("cancelled", "length", "capacity")
    assert server._backend._service.statistics.running == 0


def test_an_error_of_no_kind_that_is_known_is_answered_too(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is never told anything would wait for ever."""

    def submit(*_: object, **__: object) -> None:
        raise RuntimeError("the roof fell in")

    monkeypatch.setattr(server._backend._service, "submit", submit)
    with pytest.raises(Answer, match="the request failed: RuntimeError: the roof fell in") as caught:
        server.ask(50, True, True, text_input="It")
    assert caught.value.code == TritonError.INTERNAL


def test_without_sequences_every_request_stands_for_itself(model: foveal.Model, tmp_path: Path) -> None:
    """Its config has no sequence batching, so a request needs no number, and Triton's HTTP endpoint streams it."""
    made = export_triton(model.bundle, tmp_path, name="alone", settings=ServerSettings(slots=2, threads=1), sequences=None)
    with triton_server(made) as server:
        answer = server.ask(text_input="It was", sampling_parameters=settings())
        assert text_of(answer) == "".join(model.generate("It was", **GREEDY))


def test_a_model_of_ids(zoo: Zoo, tmp_path: Path) -> None:
    """It takes ids, gives ids, and has no text anywhere."""
    bundle = zoo["vanilla"].bundle
    made = export_triton(bundle, tmp_path, name="ids", settings=ServerSettings(slots=2, threads=1))
    alone = list(foveal.load(bundle, threads=1).generate_ids([3, 1, 4], foveal.SamplingParams(**GREEDY)))
    with triton_server(made) as server:
        answer = server.ask(1, True, True, input_ids=[3, 1, 4], sampling_parameters=settings())
        assert ids_of(answer) == alone
        assert set(answer[0]) == {"output_ids", "finish_reason"}
        with pytest.raises(Answer, match="stop strings are of text"):
            server.ask(1, True, True, input_ids=[3], sampling_parameters=settings(stop="x"))


def test_sequences_beyond_the_memory_are_forgotten_and_say_so(model: foveal.Model, tmp_path: Path) -> None:
    """Those used least recently."""
    made = export_triton(model.bundle, tmp_path, name="small", settings=ServerSettings(slots=2, threads=1, state_mb=1))
    with triton_server(made) as server:
        long = "It was a dark and stormy night. "
        for number in range(1, 60):
            server.ask(number, start=True, text_input=f"{number} {long}", sampling_parameters=settings(max_new_tokens=1))
        assert server._backend._store.statistics.memory_bytes <= 1_000_000
        with pytest.raises(Answer, match="sequence 1 is not kept here"):
            server.ask(1, text_input="x", sampling_parameters=settings())
        server.ask(59, text_input="x", sampling_parameters=settings())


def test_closing_ends_what_is_being_generated(model: foveal.Model, tmp_path: Path) -> None:
    """With what it has; `triton_server` sees that all requests were answered."""
    made = export_triton(model.bundle, tmp_path, name="closing", settings=ServerSettings(slots=1, threads=1))
    with triton_server(made) as server:
        sender = server.send(1, True, True, text_input="It", sampling_parameters=settings(max_new_tokens=90))
        waiting = server.send(2, True, True, text_input="It", sampling_parameters=settings(max_new_tokens=90))
        next(sender.responses())
    assert reasons_of(list(sender.responses()))[-1] in ("cancelled", "length", "capacity")
    assert reasons_of(list(waiting.responses()))[-1] in ("cancelled", "length", "capacity")
    assert not server._backend._looking.is_alive()


def test_a_config_that_somebody_altered_is_held_to_the_bundle(zoo: Zoo, model: foveal.Model, tmp_path: Path) -> None:
    """Parameters that mean nothing, and text where there is no tokenizer."""
    made = export_triton(model.bundle, tmp_path, name="altered", settings=ServerSettings(slots=2, threads=1))
    config = made / "config.pbtxt"
    right = config.read_text()
    config.write_text(right.replace('string_value: "2"', 'string_value: "two"'))
    with pytest.raises(foveal.ConfigError, match='the parameter slots of config.pbtxt is "two"'), triton_server(made):
        pass
    ids = export_triton(zoo["vanilla"].bundle, tmp_path, name="ids")
    (ids / "config.pbtxt").write_text(right.replace('"altered"', '"ids"'))
    with pytest.raises(foveal.ConfigError, match="config.pbtxt has text_output, and .* no tokenizer"), triton_server(ids):
        pass


@pytest.mark.parametrize(
    ("before", "device", "after"), [(None, "1", "1"), ("4,5", "1", "5"), ("GPU-a,GPU-b", "0", "GPU-a"), ("", "0", "")]
)
def test_an_instance_sees_its_own_gpu_alone(
    before: str | None, device: str, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton numbers those that it sees itself."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if before is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
    backend._show_only(device)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == after


def test_the_server_of_these_tests_is_strict(server: Server) -> None:
    """It takes no other types and shapes than the config's, no tensor that is missing, and nothing after the last response."""
    wrong = [
        {"text_output": np.array([b""], np.object_), "output_ids": np.array([1], np.int64)},
        {"text_output": np.array([b""], np.object_), "output_ids": np.array([1], np.int32)},
        {"text_output": np.array([""], np.object_), "output_ids": np.array([1], np.int64)},
        {"text_output": np.array([[b""]], np.object_), "output_ids": np.array([1], np.int64)},
        {"text_output": np.array([b""], np.object_), "ids": np.array([1], np.int64)},
    ]
    for number, arrays in enumerate(wrong):
        full = arrays if number == 0 else {**arrays, "finish_reason": np.array([b""], np.object_)}
        with pytest.raises(AssertionError):
            check(full, server.config["output"])
    sender = server.send(60, True, True, text_input="It", sampling_parameters=settings(max_new_tokens=1))
    list(sender.responses())
    with pytest.raises(AssertionError, match="a response after the last one"):
        sender.send(flags=1)
