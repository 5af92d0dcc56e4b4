"""A model in a few lines of numpy as a service takes one: with text, with engines that fail when they are told to, and with
what each request gives alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from programs import VOCABULARY, Program, host_engines, hourglass, info, meaning

from foveal.errors import InputError
from foveal.runtime.batches.batch import Batch
from foveal.runtime.generation.generate import GeneratedText, begin
from foveal.runtime.generation.request import Request
from foveal.runtime.generation.settings import params_of
from foveal.runtime.ids import checked_ids
from foveal.runtime.logprobs import TokenLogprobs
from foveal.runtime.service.event import Event
from foveal.runtime.service.service import Service
from foveal.runtime.session import Session
from foveal.runtime.snapshots import Snapshot

PROGRAM = hourglass(2, 2)
IDENTITY = "a bundle"


class Letters:
    """Tokens are letters from A on; all texts of them are right."""

    def encode(self, text: str) -> list[int]:
        """As `TextTokenizer`."""
        return [ord(letter) - 65 for letter in text]

    def decode(self, ids: Sequence[int]) -> str:
        """As `TextTokenizer`."""
        return "".join(chr(65 + id) for id in ids)

    def token_id(self, token: str) -> int | None:
        """As `TextTokenizer`."""
        return ord(token) - 65 if len(token) == 1 else None

    def detokenizer(self) -> Letters:
        """As `TextTokenizer`."""
        return self

    def push(self, token: int) -> str:
        """As `Detokenizer`."""
        return chr(65 + token)

    def finish(self) -> str:
        """As `Detokenizer`."""
        return ""


class Faults:
    """What the calls of a batch to its engines raise: asked before each, by its name, in order.

    Attributes:
        wanted: gives what the call of a name is to raise, or None; `calls` were made so far, by name.
        are_late: whether a call that raises has done its work.
    """

    are_late = False

    def __init__(self) -> None:
        self.wanted: Callable[[str], BaseException | None] = lambda _name: None
        self.calls: dict[str, int] = {}

    def next(self, *errors: BaseException | None, name: str = "step") -> None:
        """Raise these in the calls of a name that come next; None: that call works."""
        left = list(errors)
        self.wanted = lambda called: left.pop(0) if left and called == name else None


class FaultyDecoder:
    """A batch's decoder, some calls of which raise."""

    def __init__(self, decoder: Any, faults: Faults) -> None:
        self._decoder, self._faults = decoder, faults

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._decoder, name)
        if name not in ("step", "prefill", "read", "write", "fork"):
            return found

        def call(*arguments: Any) -> Any:
            self._faults.calls[name] = self._faults.calls.get(name, 0) + 1
            error = self._faults.wanted(name)
            if error is not None and not self._faults.are_late:
                raise error
            result = found(*arguments)
            if error is not None:
                raise error
            return result

        return call

    @property
    def observer(self) -> Any:
        """As `BatchDecoder`."""
        return self._decoder.observer

    @observer.setter
    def observer(self, observer: Any) -> None:
        self._decoder.observer = observer


class Alone(NamedTuple):
    """What a request gives in a session of its own."""

    text: str
    ids: list[int]
    finish_reason: Any
    logprobs: list[TokenLogprobs]
    prompt_logprobs: list[TokenLogprobs]


class ServedProgram:
    """As `ServedModel`; remembers its batches.

    Attributes:
        engines: of the last batch.
        gate: a step of a batch waits until it is set.
        opens: called before a batch is opened.
    """

    def __init__(self, program: Program = PROGRAM) -> None:
        self.program, self.specs, self.identity = program, program, IDENTITY
        self.tokenizer, self.faults = Letters(), Faults()
        self.batches: list[Batch] = []
        self.engines: list[Any] = []
        self.gate = threading.Event()
        self.gate.set()
        self.opens: Callable[[], None] = lambda: None

    def batch(self, slots: int, capacity: int | None = None, policy: Any = "staggered", prefill_seconds: float = 0.02) -> Batch:
        """As `Model.batch`, on engines of its own."""
        self.opens()
        self.engines = host_engines(self.program)
        batch = Batch(self.engines, info(), slots, capacity, policy, prefill_seconds, IDENTITY)
        batch.decoder = FaultyDecoder(batch.decoder, self.faults)  # type: ignore[assignment]
        step = batch.step

        def step_behind_the_gate(tokens: Any = None) -> Any:
            assert self.gate.wait(20), "nobody opened the gate"
            return step(tokens)

        batch.step = step_behind_the_gate  # type: ignore[method-assign]
        self.batches.append(batch)
        return batch

    def request(self, prompt: Any, settings: Mapping[str, Any], as_text: bool = True) -> Request:
        """As `Model.request`."""
        params = params_of(settings)
        if params.stop and not as_text:
            raise InputError("stop strings are of text")
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        checked = checked_ids(ids, VOCABULARY, "the prompt's ids").tolist()
        return Request(checked, params, frozenset(settings.get("end", ())), self.tokenizer if as_text else None)

    def session(self) -> Session:
        """As `Model.session`."""
        return Session(host_engines(self.program), info(), bundle=IDENTITY)

    def alone(self, prompt: Any, **settings: Any) -> Alone:
        """What a request gives in a session of its own."""
        return alone(self.program, self.request(prompt, settings))

    def full_forward(self, ids: Sequence[int]) -> np.ndarray:
        """Logits `[T, V]`."""
        logits: np.ndarray = meaning(self.program, np.array([ids]))[0]
        return logits

    def check_goes_on(self, snapshot: Snapshot | None, ids: Sequence[int]) -> None:
        """That a state holds these ids, and gives the full forward's logits after them."""
        assert snapshot is not None
        assert snapshot.tokens[0].tolist() == list(ids)
        session, more = self.session(), [3, 1, 4, 1, 5][: 96 - len(ids)]
        session.restore(snapshot)
        if more:
            found = session.advance([more])[0]
            np.testing.assert_allclose(found, self.full_forward([*ids, *more])[len(ids) :], atol=2e-5)


def alone(program: Program, request: Request) -> Alone:
    """What a request gives in a session of its own."""
    tokens, going, scored = begin(Session(host_engines(program), info()), request)
    text = GeneratedText(tokens, going, scored)
    return Alone("".join(text), text.ids, text.finish_reason, text.logprobs, text.prompt_logprobs)


class Read(NamedTuple):
    """What came of a stream.

    Attributes:
        events: all that came; `texts`, `ids` and `reasons` of these, by index.
        error: that ended it.
    """

    events: list[Event]
    error: BaseException | None

    @property
    def texts(self) -> list[str]:
        """By index."""
        found: dict[int, str] = {}
        for event in self.events:
            found[event.index] = found.get(event.index, "") + event.text
        return [found[index] for index in sorted(found)]

    @property
    def ids(self) -> list[list[int]]:
        """By index."""
        found: dict[int, list[int]] = {}
        for event in self.events:
            found.setdefault(event.index, []).extend([] if event.token is None else [event.token])
        return [found[index] for index in sorted(found)]

    @property
    def reasons(self) -> list[str | None]:
        """By index, of those that ended."""
        found = {event.index: event.finish_reason for event in self.events if event.finish_reason}
        return [found[index] for index in sorted(found)]


def read(stream: Iterator[Event], seconds: float = 20.0) -> Read:
    """All events of a stream, which must end within a time."""
    found = Read([], None)

    def work() -> None:
        nonlocal found
        try:
            found.events.extend(stream)
        except BaseException as error:
            found = Read(found.events, error)

    within(seconds, work)
    return found


def within(seconds: float, work: Callable[[], object]) -> None:
    """Call it in a thread, which must end within a time."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"it did not end within {seconds} seconds"


def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for what another thread does."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.001)


def check_all_is_free(service: Service) -> None:
    """Nothing runs, waits, or is counted as if it did."""
    until(lambda: service._worker.texts == 0 and service._worker.going.is_idle)
    worker, said = service._worker, service.statistics
    assert (said.running, said.reading, said.waiting) == (0, 0, 0)
    assert not any((worker._jobs, worker._inbox, worker._cancelled, service.sessions._busy))
    if worker._has_batch:
        assert worker.going.batch.free_slots == service.slots


class Hold:
    """A hook that stops the service before it draws one of a request's tokens, until it is released.

    Args:
        tokens: of the sequence by then.
    """

    def __init__(self, tokens: int) -> None:
        self.tokens, self.is_reached, self._go = tokens, threading.Event(), threading.Event()

    def __call__(self, ids: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """Logits as they are."""
        if len(ids) == self.tokens:
            self.is_reached.set()
            assert self._go.wait(20), "nobody released it"
        return logits

    def wait(self) -> None:
        """Until the service stands there."""
        assert self.is_reached.wait(20), "the service did not come there"

    def release(self, after_seconds: float = 0.0) -> None:
        """Let it go on, in a while."""
        if after_seconds:
            threading.Timer(after_seconds, self._go.set).start()
        else:
            self._go.set()
