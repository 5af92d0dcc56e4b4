"""Requests that come to a batch and are served, real or simulated: who waits how long for which token."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np

from ..errors import CapacityError, ConfigError
from ..runtime.batches.batch import Batch
from ..runtime.batches.sequence import Sequence as Joined
from .batch_rounds import greedy

Handle = TypeVar("Handle")
_SLOWEST, _FASTEST = 1e-6, 1e5


class Server(Protocol[Handle]):
    """What requests come to: a batch, and the time there."""

    @property
    def slots(self) -> int:
        """Sequences that are served at once."""
        ...

    @property
    def now(self) -> float:
        """Seconds since it was opened."""
        ...

    @property
    def queued(self) -> int:
        """Sequences that wait for a slot."""
        ...

    def join(self, prompt_tokens: int) -> Handle:
        """Begin a sequence, or let it wait for a slot."""
        ...

    def leave(self, sequence: Handle) -> None:
        """It has all its tokens."""
        ...

    def step(self, ready: Sequence[Handle]) -> Sequence[Handle]:
        """A token of each of these; returns those that have logits then."""
        ...

    def wait(self, until: float) -> None:
        """Nothing is to do before."""
        ...


class MeasuredBatch:
    """A batch that decodes random prompts greedily, by the clock on the wall."""

    def __init__(self, batch: Batch, seed: int) -> None:
        self._batch, self._rng = batch, np.random.default_rng(seed)
        self._tokens: dict[Joined, int] = {}
        self._began = time.perf_counter()

    @property
    def slots(self) -> int:
        """As `Server.slots`."""
        return self._batch.slots

    @property
    def now(self) -> float:
        """As `Server.now`."""
        return time.perf_counter() - self._began

    @property
    def queued(self) -> int:
        """As `Server.queued`."""
        return sum(not sequence.is_live for sequence in self._batch.sequences)

    def join(self, prompt_tokens: int) -> Joined:
        """As `Server.join`."""
        return self._batch.join(self._rng.integers(0, self._batch.model.vocab_size, prompt_tokens), queue=True)

    def leave(self, sequence: Joined) -> None:
        """As `Server.leave`."""
        self._batch.leave(sequence)

    def step(self, ready: Sequence[Joined]) -> Sequence[Joined]:
        """As `Server.step`."""
        found = greedy(self._batch.step({sequence: self._tokens[sequence] for sequence in ready}))
        self._tokens = found
        return list(found)

    def wait(self, until: float) -> None:
        """As `Server.wait`."""
        time.sleep(max(until - self.now, 0.0))


class Arrivals(Protocol):
    """When requests come."""

    def due(self, now: float, in_flight: int) -> list[tuple[float, float]]:
        """Those that have come by now and were not given before: when each came, and which share of the tokens it wants."""
        ...

    @property
    def next(self) -> float:
        """When the next comes, if none is in flight."""
        ...


class ClosedLoop:
    """So many clients, each of which sends its next request when it has all of the one before.

    Their first requests are of 1/N, 2/N, ... of the tokens, or all of them would end and begin together for ever.
    """

    next = 0.0

    def __init__(self, clients: int) -> None:
        self._clients, self._begun = clients, 0

    def due(self, now: float, in_flight: int) -> list[tuple[float, float]]:
        """As `Arrivals.due`."""
        found = []
        for _ in range(self._clients - in_flight):
            self._begun += 1
            found.append((now, min(self._begun / self._clients, 1.0)))
        return found


class Poisson:
    """Requests that know nothing of one another: the times between them are exponential, the same for the same seed.

    Raises:
        ConfigError: a rate that no service has: each request is waited for, or kept.
    """

    def __init__(self, per_second: float, seed: int) -> None:
        if not _SLOWEST <= per_second <= _FASTEST:
            raise ConfigError(
                f"the rate of requests is {per_second}, expected requests per second from {_SLOWEST:g} to {_FASTEST:g}"
            )
        self._times = self._arrivals(per_second, np.random.default_rng(seed))
        self.next = next(self._times)

    @staticmethod
    def _arrivals(per_second: float, rng: np.random.Generator) -> Iterator[float]:
        now = 0.0
        while True:
            now += float(rng.exponential(1 / per_second))
            yield now

    def due(self, now: float, in_flight: int) -> list[tuple[float, float]]:
        """As `Arrivals.due`."""
        del in_flight
        found = []
        while self.next <= now:
            found.append((self.next, 1.0))
            self.next = next(self._times)
        return found


@dataclass(frozen=True)
class Requests:
    """What each asks for, and for how many steps all of them are watched, after as many as a sequence has new tokens.

    Raises:
        ConfigError: less than one of anything.
    """

    prompt_tokens: int
    new_tokens: int
    steps: int

    def __post_init__(self) -> None:
        for name in ("prompt_tokens", "new_tokens", "steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")

    def require_room(self, context: int) -> None:
        """Raise a CapacityError if a sequence would be longer than a model's context."""
        if self.prompt_tokens + self.new_tokens > context:
            raise CapacityError(
                f"the model has a context of {context} tokens, got a prompt of {self.prompt_tokens} and {self.new_tokens} new "
                "tokens; lower one of them"
            )


@dataclass
class Served:
    """What was seen while requests were watched, in seconds.

    `itl_s`: between two tokens of a sequence, of all; `ttft_s`: from a request to its first token; `busy_s`: the sum over steps
    of their time by the sequences that decoded in them; `queued`: requests without a slot at the end.
    """

    itl_s: list[float] = field(default_factory=list)
    ttft_s: list[float] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0
    busy_s: float = 0.0
    queued: int = 0


@dataclass
class _Request:
    arrived: float
    wanted: int
    given: int = 0
    latest: float = 0.0


def serve(server: Server[Handle], arrivals: Arrivals, requests: Requests) -> Served:
    """Serve requests until enough steps were seen. Between two steps all that have come join, and those that are done leave."""
    served, in_flight, ready = Served(), dict[Handle, _Request](), list[Handle]()
    steps, begun = -requests.new_tokens, server.now
    while steps < requests.steps:
        for arrived, share in arrivals.due(server.now, len(in_flight)):
            wanted = max(round(share * requests.new_tokens), 1)
            in_flight[server.join(requests.prompt_tokens)] = _Request(arrived, wanted)
        if not in_flight:
            server.wait(arrivals.next)
            continue
        if steps == 0:
            served, begun = Served(), server.now
        began, decoding = server.now, len(ready)
        found = server.step(ready)
        now = server.now
        served.busy_s += decoding * (now - began)
        for sequence in [one for one in found if _is_done(in_flight[one], now, served)]:
            server.leave(sequence)
            del in_flight[sequence]
        ready = [sequence for sequence in found if sequence in in_flight]
        steps += 1
    served.seconds, served.queued = server.now - begun, server.queued
    return served


def _is_done(request: _Request, now: float, served: Served) -> bool:
    """It has another token: whether that is its last."""
    if request.given:
        served.itl_s.append(now - request.latest)
    else:
        served.ttft_s.append(now - request.arrived)
    request.given, request.latest = request.given + 1, now
    served.tokens += 1
    return request.given == request.wanted
