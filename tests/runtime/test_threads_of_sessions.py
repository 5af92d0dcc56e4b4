"""Sessions in several threads: one each is right, one for all is refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from programs import host_engines, hourglass, info, meaning, resident_engines
from specimens import Zoo, full_forward, random_ids

from foveal import SamplingParams, Session, SessionBusyError
from foveal.runtime import load
from foveal.runtime.generation.continuation import Continuation
from foveal.runtime.generation.generate import GeneratedIds, GeneratedText
from foveal.runtime.generation.request import Request
from foveal.runtime.tokenizer import ByteTokenizer

PROGRAM = hourglass(2, 3)
CALLS: dict[str, Callable[[Session], object]] = {
    "advance": lambda session: session.advance([[1]]),
    "rewind": lambda session: session.rewind(1),
    "reset": lambda session: session.reset(),
    "snapshot": lambda session: session.snapshot(),
    "restore": lambda session: session.restore(MOMENT),
    "fork": lambda session: session.fork(),
}
MOMENT = Session(host_engines(PROGRAM), info()).snapshot()


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("engines", [host_engines, resident_engines])
def test_a_second_call_of_a_session_is_refused_while_one_goes_on(engines: Callable[..., object], call: str) -> None:
    """And the first is not disturbed: its logits are right, and so are those after it."""
    session, ids = Session(engines(PROGRAM), info()), random_ids(1, 12, 7)
    session.advance(ids[:, :3])
    inside, go_on = threading.Event(), threading.Event()

    def wait(*_: object) -> None:
        inside.set()
        assert go_on.wait(10)

    session.observer = wait
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(session.advance, ids[:, 3:9])
        assert inside.wait(10)
        with pytest.raises(SessionBusyError, match="another thread is in a call of the same session or batch; let the"):
            CALLS[call](session)
        go_on.set()
        found = [first.result(10), session.advance(ids[:, 9:])]
    np.testing.assert_allclose(np.concatenate(found, 1), meaning(PROGRAM, ids)[:, 3:], atol=2e-5)


@pytest.mark.parametrize("kind", [GeneratedIds, GeneratedText])
def test_a_generation_that_two_threads_read_at_once(kind: type) -> None:
    """As of a session; the first is not disturbed."""
    inside, go_on = threading.Event(), threading.Event()

    def slow() -> Generator[int, None, None]:
        yield 65
        inside.set()
        assert go_on.wait(10)
        yield 66

    tokenizer = ByteTokenizer() if kind is GeneratedText else None
    read = kind(slow(), Continuation(Request([1], SamplingParams(max_new_tokens=2), tokenizer=tokenizer)))
    first = next(read)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(next, read)
        assert inside.wait(10)
        for call in (lambda: next(read), read.close):
            with pytest.raises(SessionBusyError, match="while another thread is in a call"):
                call()
        go_on.set()
        assert (first, second.result()) == ((65, 66) if kind is GeneratedIds else ("A", "B"))
    assert (next(read, None), read.finish_reason) == (None, "length")


def test_a_call_that_failed_is_over() -> None:
    """The next is taken."""
    session = Session(host_engines(PROGRAM), info())
    for _ in range(2):
        with pytest.raises(ValueError, match="outside the vocabulary"):
            session.advance([[10_000]])
    session.advance([[1]])


def test_sessions_of_one_model_in_four_threads(zoo: Zoo) -> None:
    """Each has the logits of its own sequence."""
    model = load(zoo["nested"].bundle, threads=1)

    def decode(seed: int) -> float:
        ids, session = random_ids(1, 40, seed=seed), model.session()
        found = [session.advance(ids[:, place : place + 1]) for place in range(40)]
        return float(np.abs(np.concatenate(found, 1) - full_forward(zoo["nested"].model, ids)).max())

    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(decode, range(8))) < 1e-4


def test_sessions_on_one_device_take_turns() -> None:
    """They share its stream and the engines' working memory: no call begins before another has ended."""
    engines = resident_engines(PROGRAM)
    sessions, within, most = [Session(engines, info()) for _ in range(4)], 0, 0

    def observe(*_: object) -> None:
        nonlocal within, most
        within += 1
        most = max(most, within)
        time.sleep(0.001)
        within -= 1

    def decode(session: Session) -> bool:
        session.observer = observe
        ids = random_ids(1, 12, 7, seed=id(session) % 97)
        found = np.concatenate([session.advance(ids[:, place : place + 1]) for place in range(12)], 1)
        return bool(np.allclose(found, meaning(PROGRAM, ids), atol=2e-5))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(decode, sessions))
    assert most == 1
