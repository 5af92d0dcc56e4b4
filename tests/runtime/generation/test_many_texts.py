"""Several texts of one prompt: it is read once, and text k is what `generate` gives with a seed that is larger by k."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from foveal import InputError, Service
from foveal.runtime.batches.batch import Batch
from foveal.runtime.model import Model

PROMPT = "It was a dark and stormy night"


@pytest.fixture
def batches(model: Model, monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """Those that the model opens."""
    opened: list[Batch] = []
    make = model.batch

    def batch(*arguments: Any, **more: Any) -> Batch:
        opened.append(make(*arguments, **more))
        return opened[-1]

    monkeypatch.setattr(model, "batch", batch)
    return opened


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_of_one_prompt(slots: int, model: Model, batches: list[Batch]) -> None:
    """With as many slots as there are, from a copy of the state where there are too few; the prompt's tokens fire once."""
    settings: dict[str, Any] = {"max_new_tokens": 6, "temperature": 1.2, "seed": 7}
    many = model.generate_many([PROMPT], slots=slots, n=4, logprobs=1, **settings)
    texts = [""] * 4
    fires: dict[str, int] = {}
    for index, piece in many:
        texts[index] += piece
        fires = dict(batches[0].fires)
    alone = [model.generate(PROMPT, logprobs=1, **{**settings, "seed": 7 + k}) for k in range(4)]
    assert texts == ["".join(one) for one in alone]
    assert many.ids == {k: one.ids for k, one in enumerate(alone)}
    for k, one in enumerate(alone):
        assert [found.logprob for found in many.logprobs[k]] == pytest.approx(
            [found.logprob for found in one.logprobs], abs=1e-4
        )
    assert many.finish_reasons == dict.fromkeys(range(4), "length")
    fine = model.specs[-1].name
    assert fires[fine] == len(PROMPT) + 4 * 5


def test_of_several_prompts(model: Model) -> None:
    """Text k of prompt i has index `i * n + k`; each prompt may have a seed of its own, or none."""
    seeds = [3, 100]
    many = model.generate_many([PROMPT, "x"], slots=3, n=2, seed=seeds, max_new_tokens=5)
    list(many)
    for i, prompt in enumerate([PROMPT, "x"]):
        for k in range(2):
            alone = model.generate(prompt, seed=seeds[i] + k, max_new_tokens=5)
            list(alone)
            assert many.ids[2 * i + k] == alone.ids
    free = model.generate_many([PROMPT], n=3, temperature=2.0, max_new_tokens=12)
    list(free)
    assert len({tuple(ids) for ids in free.ids.values()}) == 3
    greedy = model.generate_many([PROMPT], n=3, temperature=0, max_new_tokens=12)
    list(greedy)
    assert len({tuple(ids) for ids in greedy.ids.values()}) == 1


@pytest.mark.parametrize("n", [0, -1, 1.0, True, "2", None])
def test_numbers_of_texts_that_are_none(n: Any, model: Model) -> None:
    """At the call."""
    for call in (lambda: model.generate_many([PROMPT], n=n), lambda: served(model, n)):
        with pytest.raises(InputError, match="^n (is|must be) "):
            call()


def served(model: Model, n: Any) -> None:
    """Ask a service for so many texts."""
    with Service(model, slots=2) as service:
        service.submit(PROMPT, n=n)


def test_one_of_them_can_be_cancelled(model: Model) -> None:
    """The others go on to their ends; its slot is free at once, and what has ended, or never was, stays as it is."""
    many = model.generate_many([PROMPT, "x"], slots=2, n=2, seed=1, max_new_tokens=12)
    for index, _ in many:
        if index == 1 and 1 not in many.finish_reasons:
            many.cancel(1)
            many.cancel(1)
            many.cancel(77)
    assert many.finish_reasons == {0: "length", 1: "cancelled", 2: "length", 3: "length"}
    assert 1 <= len(many.ids[1]) < 12
    whole = model.generate(PROMPT, seed=1, max_new_tokens=12)
    list(whole)
    assert many.ids[0] == whole.ids
    many.cancel(0)
    assert many.finish_reasons[0] == "length"


def test_all_can_be_closed(model: Model) -> None:
    """There is nothing more then, and the batch's memory is given back."""
    many = model.generate_many([PROMPT] * 9, slots=2, seed=1)
    next(many)
    many.close()
    assert list(many) == []


def test_they_come_to_event_loops_too(model: Model) -> None:
    """`async for` goes through pieces, ids and texts of many prompts as `for` does, while other tasks run."""
    settings: dict[str, Any] = {"max_new_tokens": 8, "seed": 3}

    async def pieces() -> tuple[list[str], dict[int, str], int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        one = [piece async for piece in await asyncio.to_thread(lambda: model.generate(PROMPT, **settings))]
        texts: dict[int, str] = {}
        async for index, piece in model.generate_many([PROMPT, "x"], slots=2, **settings):
            texts[index] = texts.get(index, "") + piece
        ticking.cancel()
        return one, texts, ticks

    one, texts, ticks = asyncio.run(pieces())
    assert one == list(model.generate(PROMPT, **settings))
    assert texts == {0: "".join(one), 1: "".join(model.generate("x", **settings))}
    assert ticks > 10


def test_whoever_leaves_an_async_loop_can_close(model: Model) -> None:
    """As with `for`: there is nothing more, and no reason."""

    async def begun() -> tuple[str, list[str], object]:
        text = model.generate(PROMPT, seed=1)
        first = await anext(text)
        text.close()
        return first, [more async for more in text], text.finish_reason

    piece, rest, reason = asyncio.run(begun())
    assert (len(piece) > 0, rest, reason) == (True, [], None)


def test_more_texts_than_memory_holds(model: Model) -> None:
    """All of them would be made at once: that many are refused before the first, whatever the queue would hold."""
    for n in (10_001, 10**12):
        with pytest.raises(InputError, match=f"n is {n}, expected 1 to 10,000: texts of each prompt"):
            model.generate_many([PROMPT], n=n)
        with Service(model, slots=1, queue=n) as service, pytest.raises(InputError, match="expected 1 to 10,000"):
            service.submit(PROMPT, n=n)


@pytest.mark.parametrize("is_many", [False, True])
def test_texts_are_whole_whenever_tasks_are_cancelled(is_many: bool, model: Model) -> None:
    """Of one prompt and of many."""
    settings: dict[str, Any] = {"max_new_tokens": 20, "seed": 3}
    whole = "".join(model.generate(PROMPT, **settings))

    async def in_parts() -> str:
        pieces: Any = model.generate_many([PROMPT], **settings) if is_many else model.generate(PROMPT, **settings)
        found: list[str] = []

        async def collect() -> None:
            async for piece in pieces:
                found.append(piece[1] if is_many else piece)

        for hops in range(100):
            task = asyncio.ensure_future(collect())
            for _ in range(hops):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await collect()
        return "".join(found)

    assert asyncio.run(in_parts()) == whole
