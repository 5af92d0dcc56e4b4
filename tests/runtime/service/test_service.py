"""Requests of any number of threads and event loops: texts are what they are alone, and what is not wanted costs nothing."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from programs import CAPACITY, TOKENS, VOCABULARY, stage
from served import Hold, ServedProgram, check_all_is_free, read, until
from specimens import Goldens

from foveal import (
    CapacityError,
    ConfigError,
    FovealError,
    InputError,
    QueueFullError,
    Service,
    ServiceClosedError,
    SessionStore,
    load,
)
from foveal.runtime.batches.choice import Choice
from foveal.runtime.batches.sequence import Sequence
from foveal.runtime.service.event import Event
from foveal.runtime.service.job import Job
from foveal.runtime.service.stream import ThreadStream

Serve = Callable[..., Service]
PROMPTS = ["A", "BCD", "EFGHIJKLMNOP", "ABCA", "HH", "ZYX", "AAAAAAAAAAAAAAAAAAAAAAAA", "I"]


def settings_of(index: int) -> dict[str, Any]:
    """Others for each request."""
    return {"seed": index, "max_new_tokens": 1 + index % 17, "temperature": index % 3 / 2, "stop": ["AB"] * (index % 4 == 0)}


class TestTexts:
    """Are those of `Model.generate`."""

    def test_of_many_threads_at_once(self, served: ServedProgram, serve: Serve) -> None:
        """More than there are slots."""
        service = serve(slots=4, queue=60)

        def ask(index: int) -> list[str]:
            return read(service.submit(PROMPTS[index % 8], n=1 + index % 3, **settings_of(index))).texts

        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(ask, range(48)))
        for index, texts in enumerate(found):
            settings = settings_of(index)
            seeds = range(settings.pop("seed"), index + 1 + index % 3)
            assert texts == [served.alone(PROMPTS[index % 8], seed=seed, **settings).text for seed in seeds]

    def test_of_many_tasks_at_once(self, served: ServedProgram, serve: Serve) -> None:
        """Of two event loops, each in a thread of its own."""
        service = serve(slots=4, queue=60)

        async def ask(index: int) -> str:
            loop = asyncio.get_running_loop()
            stream = await asyncio.to_thread(service.submit_to, loop, PROMPTS[index % 8], **settings_of(index))
            return "".join([event.text async for event in stream])

        async def ask_all(indices: range) -> list[str]:
            return await asyncio.gather(*map(ask, indices))

        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda indices: asyncio.run(ask_all(indices)), [range(24), range(24, 48)]))
        for index, text in enumerate(found[0] + found[1]):
            assert text == served.alone(PROMPTS[index % 8], **settings_of(index)).text

    def test_of_a_real_model(self, goldens: Goldens) -> None:
        """In text, through the engines of ONNX Runtime."""
        model = load(goldens["s4_naive_attn"], threads=1)
        with Service(model, slots=3) as service:
            streams = [service.submit(prompt, seed=3, max_new_tokens=30, logprobs=1) for prompt in PROMPTS]
            for prompt, stream in zip(PROMPTS, streams, strict=True):
                assert read(stream).texts == ["".join(model.generate(prompt, seed=3, max_new_tokens=30))]

    def test_of_ids(self, served: ServedProgram, serve: Serve) -> None:
        """Without text; an array is as good."""
        found = read(serve().submit(np.array([1, 2, 3]), as_text=False, seed=1, max_new_tokens=9))
        assert found.ids == [served.alone([1, 2, 3], seed=1, max_new_tokens=9).ids]
        assert {event.text for event in found.events} == {""}


class TestEvents:
    """What is told of each token."""

    def test_of_one_request(self, served: ServedProgram, serve: Serve) -> None:
        """Its place, what fired for it, its log probability, and how long it took; the last says why it ended."""
        stream = serve().submit("ABCDE", seed=3, max_new_tokens=8, logprobs=2, prompt_logprobs=1)
        began = time.monotonic()
        found = read(stream)
        expected = served.alone("ABCDE", seed=3, max_new_tokens=8, logprobs=2, prompt_logprobs=1)
        assert [event.position for event in found.events] == list(range(5, 13))
        assert [event.logprobs and event.logprobs.token for event in found.events] == expected.ids
        for event, alone in zip(found.events, expected.logprobs, strict=True):
            assert event.logprobs is not None
            assert event.logprobs.logprob == pytest.approx(alone.logprob, abs=1e-5)
        assert [one.logprob for one in stream.prompt_logprobs] == pytest.approx(
            [one.logprob for one in expected.prompt_logprobs], abs=1e-5
        )
        assert [event.fired for event in found.events][:4] == [
            ("1.pre", "k.pre", "deep", "k.post", "1.post"),  # of the token at position 4
            ("1.pre", "1.post"),
            ("1.pre", "k.pre", "k.post", "1.post"),
            ("1.pre", "1.post"),
        ]
        assert [event.finish_reason for event in found.events] == [None] * 7 + ["length"]
        assert 0 <= sum(event.seconds for event in found.events) <= time.monotonic() - began + 1
        assert (stream.n, stream.prompt_tokens, stream.restored_tokens) == (1, 5, 0)
        assert stream.finish_reasons == {0: "length"}
        assert stream.is_over
        assert (stream.session, stream.session_position) == (None, None)

    @pytest.mark.parametrize("reason", ["stop", "end", "capacity", "length"])
    def test_how_a_text_ends(self, served: ServedProgram, serve: Serve, reason: str) -> None:
        """By one last event, which has no token if none is given out."""
        ids = served.alone("A", seed=3, max_new_tokens=9).ids
        settings: dict[str, Any] = {"seed": 3, "max_new_tokens": 4 if reason == "length" else CAPACITY * 2}
        settings |= {"stop": {"stop": served.tokenizer.decode(ids[3:5])}, "end": {"end": [ids[5]]}}.get(reason, {})
        found, alone = read(serve().submit("A", **settings)), served.alone("A", **settings)
        assert (found.texts, found.ids, found.reasons) == ([alone.text], [alone.ids], [alone.finish_reason])
        assert alone.finish_reason == reason
        assert [event.is_last for event in found.events] == [False] * (len(found.events) - 1) + [True]
        assert (found.events[-1].token is None) == (reason == "end")

    def test_the_prompts_log_probabilities_come_even_if_no_token_does(self, served: ServedProgram, serve: Serve) -> None:
        """An end token is drawn at once."""
        stream = serve().submit("ABC", end=list(range(VOCABULARY)), prompt_logprobs=0)
        assert read(stream).ids == [[]]
        assert [one.token for one in stream.prompt_logprobs] == [1, 2]

    def test_a_prompt_is_read_once_for_all_its_texts(self, served: ServedProgram, serve: Serve) -> None:
        """And firings are counted, also once the service is closed."""
        service = serve(slots=2)
        read(service.submit([1] * 20, n=5, seed=1, max_new_tokens=6))
        fires = service.statistics.fires
        assert fires["1.pre"] == 20 + 5 * 5
        service.close()
        assert service.statistics.fires == fires

    def test_what_is_counted(self, served: ServedProgram, serve: Serve) -> None:
        """Requests, their tokens, and steps."""
        service = serve(slots=2)
        read(service.submit("ABC", n=2, max_new_tokens=4, seed=0))
        read(service.submit("AB", max_new_tokens=1, seed=0))
        said = service.statistics
        assert (said.requests, said.prompt_tokens, said.tokens, said.refused) == (2, 5, 9, 0)
        assert (said.slots, said.capacity) == (2, CAPACITY)
        assert said.steps >= 5


class TestCancelling:
    """Whoever wants no more."""

    def test_frees_the_slot_before_the_next_step(self, served: ServedProgram, serve: Serve) -> None:
        """So that the next in the queue has its first token in it, or in its phase."""
        service, hold = serve(slots=1, queue=4), Hold(4)
        first = service.submit("A", max_new_tokens=90, seed=0, logits_hook=hold)
        second = service.submit("B", max_new_tokens=3, seed=0)
        hold.wait()
        first.cancel()
        hold.release()
        steps = service.statistics.steps
        next(second)
        assert service.statistics.steps <= steps + 1 + 2 * 4
        found = read(first)
        assert found.reasons == ["cancelled"]
        assert len(found.ids[0]) == 4
        assert found.texts == [served.alone("A", max_new_tokens=4, seed=0).text]
        assert read(second).reasons == ["length"]

    def test_wherever_a_request_is(self, served: ServedProgram, serve: Serve) -> None:
        """Just come, waiting, being read, decoding, or done; and however often."""
        service, hold = serve(slots=1, queue=8, prefill_seconds=0), Hold(35)
        served.gate.clear()
        streams = [service.submit([1] * 30, n=n, max_new_tokens=50, seed=0, logits_hook=hold) for n in (1, 2, 3)]
        streams[1].cancel()
        served.gate.set()
        next(streams[0])
        for stream in streams:
            stream.cancel()
            stream.cancel()
        hold.release()
        assert [read(stream).reasons for stream in streams] == [["cancelled"] * n for n in (1, 2, 3)]
        for stream in streams:
            stream.cancel()
        check_all_is_free(service)
        assert read(service.submit("A", max_new_tokens=2, seed=0)).reasons == ["length"]

    def test_gives_the_text_that_was_held_back(self, served: ServedProgram, serve: Serve) -> None:
        """As it may be the beginning of a stop string."""
        letters, hold = served.alone("A", seed=3, max_new_tokens=20).text, Hold(6)
        stream = serve().submit("A", seed=3, max_new_tokens=90, stop=letters[4:6] + "no", logits_hook=hold)
        hold.wait()
        stream.cancel()
        hold.release()
        found = read(stream)
        assert found.reasons == ["cancelled"]
        assert found.texts == [letters[:6]]
        assert found.events[-1].text == letters[4:6]

    def test_of_a_task_that_ends(self, served: ServedProgram, serve: Serve) -> None:
        """A server cancels the stream then."""
        service = serve(slots=1)

        async def work() -> None:
            stream = service.submit_to(asyncio.get_running_loop(), "A", max_new_tokens=90)
            try:
                async for _ in stream:
                    raise asyncio.CancelledError
            finally:
                stream.cancel()

        with pytest.raises(asyncio.CancelledError):
            asyncio.run(work())
        check_all_is_free(service)


class TestReaders:
    """Who read slowly, not at all, or are gone."""

    def test_a_stream_that_nobody_reads_does_not_block_others(self, served: ServedProgram, serve: Serve) -> None:
        """It runs to its end, and its slot is free for the next."""
        service = serve(slots=1)
        unread = service.submit("A", max_new_tokens=30, seed=0)
        assert read(service.submit("B", max_new_tokens=3, seed=0)).reasons == ["length"]
        assert read(unread).texts == [served.alone("A", max_new_tokens=30, seed=0).text]

    def test_a_loop_that_is_closed_before_its_events_come(self, serve: Serve) -> None:
        """Its requests are cancelled, and others go on."""
        service = serve(slots=1, queue=4)

        async def leave() -> Any:
            return service.submit_to(asyncio.get_running_loop(), "A", max_new_tokens=90)

        asyncio.run(leave())
        assert read(service.submit("B", max_new_tokens=3)).reasons == ["length"]
        check_all_is_free(service)
        assert service.is_alive


class TestFull:
    """More requests than slots and queue hold."""

    def test_is_refused_and_nothing_leaks(self, served: ServedProgram, serve: Serve) -> None:
        """With a time after which there may be room."""
        service = serve(slots=1, queue=2)
        served.gate.clear()
        streams = [service.submit("A", max_new_tokens=2, seed=0) for _ in range(2)]
        for _ in range(50):
            with pytest.raises(QueueFullError, match="holds 1 texts that decode and 2 that wait") as caught:
                service.submit("B", n=2)
            assert caught.value.retry_after >= 1
        streams.append(service.submit("A", max_new_tokens=2, seed=0))
        with pytest.raises(QueueFullError):
            service.submit("B")
        served.gate.set()
        assert [read(stream).reasons for stream in streams] == [["length"]] * 3
        assert service.statistics.refused == 51
        assert read(service.submit("B", n=3, max_new_tokens=1)).reasons == ["length"] * 3

    def test_in_the_moment_of_entering(self, served: ServedProgram, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
        """There was room when the request was looked at, and there is none when it is taken."""
        service = serve(slots=1, queue=0)
        request, streams = served.request, []

        def request_meanwhile(*given: Any) -> Any:
            monkeypatch.setattr(served, "request", request)
            served.gate.clear()
            streams.append(service.submit("A", max_new_tokens=3))
            return request(*given)

        monkeypatch.setattr(served, "request", request_meanwhile)
        with pytest.raises(QueueFullError):
            service.submit("B")
        served.gate.set()
        assert read(streams[0]).reasons == ["length"]
        check_all_is_free(service)

    def test_when_to_come_again_follows_what_texts_took(self, served: ServedProgram, serve: Serve) -> None:
        """And how many wait."""
        service = serve(slots=1, queue=2)
        for seconds in (2.0, 1.0):
            hold = Hold(2)
            streams = [service.submit([1], max_new_tokens=2, logits_hook=hold)]
            hold.wait()
            streams.append(service.submit([1], n=2, max_new_tokens=1))
            until(lambda: service.statistics.waiting >= 1)
            with pytest.raises(QueueFullError) as caught:
                service.submit([1])
            assert 1 <= caught.value.retry_after <= seconds
            assert seconds == 1 or service._worker.seconds_per_text == 1
            hold.release()
            for stream in streams:
                read(stream)
            for _ in range(30):
                read(service.submit([1], max_new_tokens=1))
            assert service._worker.seconds_per_text < 0.5

    def test_without_a_queue(self, served: ServedProgram, serve: Serve) -> None:
        """As many as there are slots."""
        service = serve(slots=2, queue=0)
        assert read(service.submit("A", n=2, max_new_tokens=1)).reasons == ["length"] * 2
        with pytest.raises(InputError, match="n is 3, expected 1 to 2"):
            service.submit("A", n=3)


class TestDeadlines:
    """Count from when the request came."""

    def test_while_it_waits(self, served: ServedProgram, serve: Serve) -> None:
        """It ends without a token; the one before it goes on."""
        service, hold = serve(slots=1, queue=4), Hold(3)
        first = service.submit("A", max_new_tokens=80, seed=0, logits_hook=hold)
        hold.wait()
        late = service.submit("B", n=2, max_seconds=0.02)
        time.sleep(0.03)
        hold.release()
        found = read(late)
        assert (found.texts, found.reasons) == (["", ""], ["deadline"] * 2)
        assert read(first).reasons == ["length"]

    def test_while_it_decodes(self, served: ServedProgram, serve: Serve) -> None:
        """With the text so far."""
        hold = Hold(3)
        stream = serve(slots=1).submit("A", max_new_tokens=90, seed=0, max_seconds=1, logits_hook=hold)
        hold.wait()
        hold.release(after_seconds=1.1)
        found = read(stream)
        assert (found.reasons, len(found.ids[0])) == (["deadline"], 3)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"prompt": ""}, InputError, "the prompt is empty"),
        ({"prompt": "A" * 97}, CapacityError, "the prompt has 97 tokens, a sequence of this service room for 96"),
        ({"prompt": [99]}, InputError, "99"),
        ({"temprature": 1}, InputError, 'no setting "temprature"'),
        ({"temperature": -1}, InputError, "temperature is -1"),
        ({"n": 0}, InputError, "n is 0, expected 1 to 67"),
        ({"n": 1.5}, InputError, "n"),
        ({"position": 3}, InputError, "got position 3 without a session"),
        ({"session": "a"}, InputError, "keeps no sessions; open it with a store"),
        ({"stop": "A", "as_text": False}, InputError, "stop strings are of text"),
    ],
)
def test_what_is_refused_at_the_call(given: dict[str, Any], error: type[Exception], words: str, serve: Serve) -> None:
    """Nothing has begun, and nothing is left of it."""
    service = serve()
    with pytest.raises(error, match=words):
        service.submit(given.pop("prompt", "A"), **given)
    check_all_is_free(service)


def test_services_that_cannot_be(served: ServedProgram) -> None:
    """Are refused before anything is opened."""
    with pytest.raises(ConfigError, match="queue must be at least 0"):
        Service(served, queue=-1)
    with pytest.raises(ConfigError, match="prefixes are kept in a store"):
        Service(served, keeps_prefixes=True)
    with pytest.raises(ConfigError, match="slots must be at least 1"):
        Service(served, slots=0)
    given: list[tuple[Any, dict[str, Any], str]] = [
        ("model.bundle", {}, "a service takes a model that is loaded, got 'model.bundle'; foveal.load gives one"),
        (served, {"store": "sessions"}, "the store must be a foveal.SessionStore, got 'sessions'"),
        (served, {"observer": print}, "the observer must be a ServiceObserver, got <built-in function print>"),
    ]
    for model, settings, words in given:
        with pytest.raises(ConfigError, match=words):
            Service(model, **settings)
    assert served.batches == []


def test_a_store_of_another_model(served: ServedProgram) -> None:
    """Nothing could be kept there, which nobody would be told."""
    with SessionStore(served, 1 << 20) as store:
        served.identity = "another"
        with pytest.raises(ConfigError, match="the store keeps sequences of another bundle or target"):
            Service(served, store=store)
    assert served.batches == []


@pytest.mark.parametrize("seconds", [-1, float("nan"), "5", None, True])
def test_it_is_not_closed_by_what_is_no_time(seconds: Any, serve: Serve) -> None:
    """It goes on as if nothing had been said."""
    service = serve()
    with pytest.raises(ConfigError, match="drain_seconds must be a number of seconds of at least 0"):
        service.close(seconds)
    assert service.is_ready
    read(service.submit("A", max_new_tokens=2))


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), StopIteration(), MemoryError()])
def test_whatever_a_hook_raises_ends_its_own_text_alone(error: BaseException, served: ServedProgram, serve: Serve) -> None:
    """The service and the others go on, also if it is to end the process: that is a thread's of the service."""
    service = serve(slots=3)

    def hook(ids: Any, logits: Any) -> Any:
        raise error

    other = service.submit("BCD", seed=1, max_new_tokens=20)
    failed = read(service.submit("A", max_new_tokens=9, logits_hook=hook)).error
    assert isinstance(failed, FovealError)
    assert type(error).__name__ in str(failed)
    assert read(other).texts == [served.alone("BCD", seed=1, max_new_tokens=20).text]
    assert service.is_ready
    check_all_is_free(service)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_has_no_service(serve: Serve) -> None:
    """Its thread is not there: requests are refused at once, and closing waits for nobody."""
    service = serve()
    with service._worker._wake:  # as if a thread that is not there held it
        child = os.fork()
        if not child:
            signal.alarm(10)
            try:
                service.submit("A")
            except ServiceClosedError as error:
                said = str(error)
            service.close()
            os._exit(0 if "forked" in said and not service.is_ready else 1)
    assert os.waitpid(child, 0)[1] == 0
    read(service.submit("A", max_new_tokens=2))


def those_alive() -> list[object]:
    """All that belongs to one request."""
    kinds = {Job, Choice, ThreadStream, Event, Sequence}
    gc.collect()
    return [one for one in gc.get_objects() if type(one) in kinds]


def test_memory_is_flat() -> None:
    """Over two thousand requests, some cancelled, some refused, some that nobody reads; nothing of them is there afterwards."""
    served = ServedProgram((stage("1", 1, [TOKENS], output="logits"),))
    choose, of_other_tests = random.Random(1), len(those_alive())

    def ask(requests: int) -> int:
        streams = []
        for _ in range(requests):
            try:
                streams.append(service.submit([1], max_new_tokens=1, seed=1, n=choose.randint(1, 2)))
            except QueueFullError:
                for stream in streams:
                    if choose.random() < 0.3:
                        stream.cancel()
                    if choose.random() < 0.9:
                        list(stream)
                streams = []
        until(lambda: service._worker.texts == 0)
        for engine in served.engines:
            engine.fired.clear()  # it remembers its calls
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    with Service(served, slots=4, queue=20) as service:
        tracemalloc.start()
        try:
            before = ask(200)
            grown = ask(2000) - before
        finally:
            tracemalloc.stop()
        until(lambda: len(those_alive()) <= of_other_tests)
    assert grown < 200_000, f"{grown:,} bytes more after 2,000 requests: {grown / 2000} for each"


def test_counts_of_many_threads_are_right(served: ServedProgram, serve: Serve) -> None:
    """Each request is counted, once; statistics may be asked for all the while."""
    service, stop = serve(slots=4, queue=100), threading.Event()
    asked = []

    def ask_statistics() -> None:
        while not stop.is_set():
            asked.append(service.statistics)

    watcher = threading.Thread(target=ask_statistics)
    watcher.start()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: read(service.submit([1, 2, 3], max_new_tokens=2, seed=0)), range(200)))
    stop.set()
    watcher.join()
    said = service.statistics
    assert (said.requests, said.prompt_tokens, said.tokens, said.refused) == (200, 600, 400, 0)
    for name in ("steps", "tokens", "requests"):
        counts = [getattr(one, name) for one in asked]
        assert counts == sorted(counts)
    assert all(one.running <= 4 for one in asked)


def test_an_error_ends_a_stream(served: ServedProgram, serve: Serve) -> None:
    """Its other texts are cancelled; after the error nothing comes."""
    service = serve(slots=4)
    served.faults.next(MemoryError("no more"), name="fork")
    stream = service.submit("AB", n=3, max_new_tokens=80)
    found = read(stream)
    assert isinstance(found.error, FovealError)
    assert list(stream) == []
    check_all_is_free(service)


def test_event_says_whether_it_is_the_last() -> None:
    """Of its text: with a reason, or an error."""
    event = Event(0, "", None, None, -1, (), 0.0, None)
    assert not event.is_last
    assert Event(0, "", None, None, -1, (), 0.0, "length").is_last
    assert Event(0, "", None, None, -1, (), 0.0, None, InputError("x")).is_last
