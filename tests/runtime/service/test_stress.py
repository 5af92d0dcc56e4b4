"""Threads and event loops that do at random whatever can be done, all at once: each text is right, and nothing is left."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Iterator
from functools import lru_cache
from random import Random
from typing import Any

import pytest
from served import Alone, ServedProgram, check_all_is_free, within

from foveal import (
    FovealError,
    InputError,
    QueueFullError,
    Service,
    ServiceClosedError,
    SessionBusyError,
    SessionLostError,
    SessionStore,
)
from foveal.errors import DeviceError

SECONDS = float(os.environ.get("FOVEAL_STRESS_SECONDS", "2"))
PROMPTS = ["A", "BCD", "EFGHIJKL", "A" * 40, "A" * 40 + "BC"]


@pytest.fixture(autouse=True)
def _threads_change_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


class Stress:
    """A service, and what each of its users knows of it."""

    def __init__(self, seed: int, fails: bool) -> None:
        self.served, self.fails = ServedProgram(), fails
        self.store = SessionStore(self.served, 200_000)  # so little that sessions are dropped now and then
        self.service = Service(self.served, slots=3, queue=10, store=self.store, keeps_prefixes=True)
        self.errors: list[BaseException] = []
        self.end, self.seed, self.done = time.monotonic() + SECONDS, seed, 0
        self.alone = lru_cache(maxsize=None)(self._alone)
        if fails:
            choose = Random(seed)
            self.served.faults.wanted = lambda _name: self._wanted(choose)

    def _wanted(self, choose: Random) -> BaseException | None:
        if choose.random() > 0.003:
            return None
        error: type[Exception] = choose.choice([MemoryError, DeviceError, ZeroDivisionError])
        return error("no more")

    def _alone(self, ids: tuple[int, ...], seed: int, tokens: int) -> Alone:
        return self.served.alone(list(ids), seed=seed, max_new_tokens=tokens)

    def user(self, number: int) -> None:
        choose, said = Random(self.seed * 100 + number), list[int]()
        try:
            while time.monotonic() < self.end:
                what = choose.choice(["ask", "ask", "tasks", "session", "session", "abandon", "look", "shared"])
                try:
                    getattr(self, what)(choose, number, said)
                    self.done += 1
                except (QueueFullError, SessionBusyError):
                    time.sleep(0.001)
                except ServiceClosedError:
                    return
                except FovealError:
                    if not self.fails:
                        raise
        except BaseException as error:
            self.errors.append(error)
            raise

    def settings(self, choose: Random) -> dict[str, Any]:
        return {"seed": choose.randrange(5), "max_new_tokens": choose.choice([1, 3, 9]), "n": choose.choice([1, 1, 2, 4])}

    def ask(self, choose: Random, _number: int, _said: list[int]) -> None:
        prompt, settings = choose.choice(PROMPTS), self.settings(choose)
        stream = self.service.submit(prompt, max_seconds=choose.choice([None, None, 0.01]), **settings)
        ids: dict[int, list[int]] = {index: [] for index in range(stream.n)}
        most = choose.choice([1, 5, 1000])
        for event in stream:
            ids[event.index] += [] if event.token is None else [event.token]
            most -= 1
            if not most:
                stream.cancel()
        self.check(prompt, settings, stream, ids)

    def check(self, prompt: str, settings: dict[str, Any], stream: Any, ids: dict[int, list[int]]) -> None:
        for index, reason in stream.finish_reasons.items():
            known = tuple(self.served.tokenizer.encode(prompt))
            expected = self.alone(known, settings["seed"] + index, settings["max_new_tokens"])
            assert ids[index] == expected.ids[: len(ids[index])]
            assert reason in ("cancelled", "deadline") or ids[index] == expected.ids
        assert len(stream.finish_reasons) == stream.n

    def tasks(self, choose: Random, _number: int, _said: list[int]) -> None:
        """Several tasks of a loop, some of which are cancelled."""

        async def one(prompt: str, settings: dict[str, Any], most: int) -> None:
            loop = asyncio.get_running_loop()
            stream = await asyncio.to_thread(self.service.submit_to, loop, prompt, **settings)
            ids: dict[int, list[int]] = {index: [] for index in range(stream.n)}
            try:
                async for first in stream:
                    for event in (first, *stream.waiting_events()):
                        ids[event.index] += [] if event.token is None else [event.token]
                        most -= 1
                        if most == 0:
                            stream.cancel()
            finally:
                stream.cancel()
            self.check(prompt, settings, stream, ids)

        async def several() -> None:
            asked = [one(choose.choice(PROMPTS), self.settings(choose), choose.choice([1, 4, 1000])) for _ in range(3)]
            for error in await asyncio.gather(*asked, return_exceptions=True):
                if isinstance(error, QueueFullError | ServiceClosedError) or (self.fails and isinstance(error, FovealError)):
                    continue
                if error is not None:
                    raise error

        asyncio.run(several())

    def session(self, choose: Random, number: int, said: list[int]) -> None:
        """One of its own: it stands where it was seen last, or is gone."""
        if len(said) > 80:
            self.service.sessions.forget(f"own {number}")
            said.clear()
        prompt = [choose.randrange(41) for _ in range(choose.randint(0 if said else 1, 4))]
        settings = self.settings(choose)
        try:
            stream = self.service.submit(prompt, session=f"own {number}", position=len(said), **settings)
        except SessionLostError as error:
            if error.position is not None and not self.fails:
                raise AssertionError("another session") from error
            said.clear()
            self.service.sessions.forget(f"own {number}")
            return
        ids: dict[int, list[int]] = {index: [] for index in range(stream.n)}
        is_cancelled = choose.random() < 0.2
        try:
            for event in stream:
                ids[event.index] += [] if event.token is None else [event.token]
                if is_cancelled:
                    stream.cancel()
        finally:
            if stream.session_position is not None:
                expected = self.alone((*said, *prompt), settings["seed"], settings["max_new_tokens"])
                said += [*prompt, *ids[0]]
                assert ids[0] == expected.ids or is_cancelled
                assert stream.session_position == len(said)
            elif not is_cancelled:
                self.service.sessions.forget(f"own {number}")
                said.clear()

    def abandon(self, choose: Random, _number: int, _said: list[int]) -> None:
        """Read nothing, or a little."""
        stream = self.service.submit(choose.choice(PROMPTS), **self.settings(choose))
        if choose.random() < 0.5:
            next(stream)

    def look(self, choose: Random, number: int, _said: list[int]) -> None:
        said = self.service.statistics
        assert 0 <= said.running <= 3
        assert 0 <= said.reading <= 3
        assert self.service.is_alive == self.service.is_ready or time.monotonic() > self.end
        self.service.sessions.position(f"own {choose.randrange(9)}")

    def shared(self, choose: Random, _number: int, _said: list[int]) -> None:
        """A session that all are at."""
        try:
            stream = self.service.submit([1], session="shared", max_new_tokens=2)
        except InputError:  # it is full
            self.service.sessions.forget("shared")
            return
        list(stream)


@pytest.mark.parametrize("fails", [False, True])
def test_everything_at_once(fails: bool) -> None:
    """With engines that work, and with ones that fail now and then."""
    stress = Stress(int(time.time()), fails)
    users = [threading.Thread(target=stress.user, args=(number,), daemon=True) for number in range(8)]
    for user in users:
        user.start()
    for user in users:
        user.join(SECONDS + 30)
        assert not user.is_alive(), "a user waits for ever"
    assert stress.errors == []
    assert stress.done > 20
    check_all_is_free(stress.service)
    within(20, lambda: stress.service.close(drain_seconds=5))
    check_all_is_free(stress.service)
    stress.store.close()
