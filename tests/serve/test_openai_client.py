"""OpenAI's own client, as it is: what it sends, what it makes of answers and of errors, and when it asks again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import openai
import pydantic
import pytest
from served import Hold
from serving import Site, listening, opened_site

from foveal.runtime.model import Model
from foveal.serve.chat_template import ChatTemplate
from foveal.serve.settings import ServeSettings

MESSAGES: Any = [{"role": "system", "content": "It"}, {"role": "user", "content": [{"type": "text", "text": " was"}]}]


@pytest.fixture(scope="module")
def place(model: Model) -> Iterator[tuple[Site, str]]:
    """A server with chats and sessions, and its address."""
    template = ChatTemplate("{% for message in messages %}{{ message.content }}{% endfor %}")
    with (
        opened_site(model, ServeSettings(tokens=("right",)), store=True, template=template, slots=1, queue=1) as site,
        listening(site.app) as (address, _),
    ):
        yield site, f"{address}/v1"


@pytest.fixture
def client(place: tuple[Site, str]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=place[1], api_key="right", max_retries=0) as client:
        yield client


def test_streams_count_tokens_if_they_are_asked_to(client: openai.OpenAI) -> None:
    """In a last chunk of no choices, as the client's types say; the others have a usage of None then."""
    stream = client.completions.create(
        model="m", prompt="It was", max_tokens=5, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = list(stream)
    assert [chunk.usage for chunk in chunks] == [None] * len(chunks)
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.total_tokens) == (6, 5, 11)


def test_the_client_that_gathers_a_stream_gets_the_whole(client: openai.OpenAI) -> None:
    """The helper of chats hands out events, and in the end the message, its reason to end and its count."""
    create = client.chat.completions.create
    text = create(model="m", messages=MESSAGES, seed=1, max_completion_tokens=9).choices[0].message.content or ""
    stop = max(text, key=text.index)  # what comes first as late as can be
    whole = create(model="m", messages=MESSAGES, seed=1, max_completion_tokens=9, stop=stop)
    with client.chat.completions.stream(
        model="m",
        messages=MESSAGES,
        seed=1,
        max_completion_tokens=9,
        stop=stop,
        stream_options={"include_usage": True},
    ) as stream:
        kinds = {event.type for event in stream}
        found = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert found.choices[0].message.content == whole.choices[0].message.content
    assert found.choices[0].message.role == "assistant"
    assert found.choices[0].finish_reason == "stop"
    assert found.usage == whole.usage


class Verdict(pydantic.BaseModel):
    """What a model is to say."""

    word: Literal["yes", "no"]


def test_answers_are_what_a_class_describes(client: openai.OpenAI) -> None:
    """The helper that makes a schema of a class gets an object of it back."""
    found = client.chat.completions.parse(
        model="m", messages=MESSAGES, seed=1, max_completion_tokens=100, response_format=Verdict, temperature=0
    )
    assert found.choices[0].message.parsed in (Verdict(word="yes"), Verdict(word="no"))


def test_raw_answers_have_headers(client: openai.OpenAI) -> None:
    """Among them the id by which the log knows the request."""
    raw = client.completions.with_raw_response.create(
        model="m", prompt="a", max_tokens=2, extra_headers={"X-Request-Id": "mine-1"}
    )
    assert raw.headers["x-request-id"] == "mine-1"
    assert raw.parse()._request_id == "mine-1"
    with client.completions.with_streaming_response.create(model="m", prompt="a", max_tokens=2, stream=True) as streamed:
        assert streamed.headers["content-type"].startswith("text/event-stream")
        assert list(streamed.iter_lines())[-2:] == ["data: [DONE]", ""]


def test_many_streams_of_the_asynchronous_client(place: tuple[Site, str]) -> None:
    """Each is what the same request gives alone; those that find no room ask again by themselves until they do."""

    async def go() -> list[str]:
        async with openai.AsyncOpenAI(base_url=place[1], api_key="right", max_retries=10) as client:

            async def one(seed: int) -> str:
                stream = await client.completions.create(model="m", prompt="It was", seed=seed, max_tokens=20, stream=True)
                return "".join([chunk.choices[0].text async for chunk in stream])

            return [*await asyncio.gather(one(0), one(1)), await one(0)]

    first, second, again = asyncio.run(go())
    assert first == again != second


def test_a_stream_that_is_left_frees_its_slot(place: tuple[Site, str], client: openai.OpenAI) -> None:
    """By closing it, as leaving a `with` does."""
    with client.completions.create(model="m", prompt="a", max_tokens=120, stream=True) as stream:
        next(iter(stream))
    _until(lambda: not place[0].served.service._worker.texts)


def test_errors_are_the_clients_own(place: tuple[Site, str], client: openai.OpenAI) -> None:
    """By their status, with the field that is wrong, a code, and the id of the request."""
    create = client.completions.create
    with pytest.raises(openai.AuthenticationError) as wrong_token:
        client.with_options(api_key="wrong").completions.create(model="m", prompt="a")
    assert wrong_token.value.code == "invalid_api_key"
    with pytest.raises(openai.NotFoundError) as no_model:
        create(model="n", prompt="a")
    assert (no_model.value.code, no_model.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as wrong:
        create(model="m", prompt="a", top_p=7)
    assert (wrong.value.param, wrong.value.type) == ("top_p", "invalid_request_error")
    assert wrong.value.request_id
    with pytest.raises(openai.BadRequestError) as too_long:
        create(model="m", prompt="a" * 200)
    assert too_long.value.code == "context_length_exceeded"
    with pytest.raises(openai.ConflictError) as lost:
        create(model="m", prompt="a", extra_body={"session": "never", "position": 9})
    assert lost.value.code == "session_lost"
    assert isinstance(lost.value.body, dict)
    assert lost.value.body["position"] is None
    with pytest.raises(openai.BadRequestError, match="messages"):
        client.chat.completions.create(model="m", messages=[])


def test_a_conflict_is_not_asked_again(place: tuple[Site, str], client: openai.OpenAI) -> None:
    """As the client would by itself: where a session stands does not change by asking."""
    before = _answers(place[0], 409)
    with pytest.raises(openai.ConflictError):
        client.with_options(max_retries=3).completions.create(
            model="m", prompt="a", extra_body={"session": "never", "position": 9}
        )
    _until(lambda: _answers(place[0], 409) > before)  # it is counted once it was sent
    assert _answers(place[0], 409) == before + 1


def test_a_full_server_is_asked_again_when_it_says(place: tuple[Site, str], client: openai.OpenAI) -> None:
    """RateLimitError, or, with retries, an answer as soon as Retry-After is over and there is room."""
    service, hold = place[0].served.service, Hold(2)
    running = [service.submit("a", max_new_tokens=100, logits_hook=hold) for _ in range(2)]
    hold.wait()
    try:
        with pytest.raises(openai.RateLimitError) as full:
            client.completions.create(model="m", prompt="a", stream=True)
        assert full.value.code == "rate_limit_exceeded"
        seconds = int(full.value.response.headers["retry-after"])
        assert seconds >= 1
        _until(lambda: place[0].server.state.running == 0)
        began, before = time.monotonic(), _answers(place[0], 429)
        with ThreadPoolExecutor(1) as pool:
            patient = client.with_options(max_retries=5)
            asking = pool.submit(patient.completions.create, model="m", prompt="a", max_tokens=1)
            _until(lambda: _answers(place[0], 429) > before)
            for stream in running:
                stream.cancel()
            hold.release()
            assert asking.result(20).choices[0].finish_reason == "length"
        assert time.monotonic() - began >= seconds
        assert _answers(place[0], 429) == before + 1
    finally:
        hold.release()
        for stream in running:
            stream.cancel()


def test_a_client_that_waits_no_longer_is_gone(place: tuple[Site, str], client: openai.OpenAI) -> None:
    """APITimeoutError there; here its slot is free."""
    service = place[0].served.service
    batch = service._worker.going.batch
    real = batch.step
    batch.step = lambda *given: (time.sleep(0.05), real(*given))[1]  # type: ignore[method-assign]
    try:
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=0.3).completions.create(model="m", prompt="a", max_tokens=100)
        _until(lambda: not service._worker.texts)
    finally:
        batch.step = real  # type: ignore[method-assign]


def _until(holds: Callable[[], bool]) -> None:
    """Wait for something that has to happen soon."""
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.002)


def _answers(site: Site, status: int) -> int:
    return sum(count for (_, found), count in site.server.answered.counts.items() if found == status)
