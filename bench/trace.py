"""A generation as it went, for a timeline: every engine call, draw and draft, with its times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Literal

from ..contract import StageSpec
from ..runtime.engines.native import NativeEngine
from ..runtime.generation.observer import GenerationObserver
from ..runtime.model import Model
from ..runtime.schedules import Schedule, cause_of, firings_of
from ..runtime.session import Session

Kind = Literal["prefill", "decode", "check", "catch up"]
"""Of a call: tokens of the prompt; one token; a token and drafts behind it; several, by a drafting model that fell behind."""


@dataclass(frozen=True)
class Span:
    """Nanoseconds of `time.perf_counter_ns`."""

    began_ns: int
    ended_ns: int


@dataclass(frozen=True)
class Firing(Span):
    """One engine call: so many firings of a stage, from index `first` on; None where the calls of a stage do not say.

    Attributes:
        tokens: that caused its first and its last firing; the beginning, where there is none yet.
        natively: whether its program of native steps ran, not its graph; None: the target has no such programs.
    """

    stage: str
    count: int
    first: int | None
    tokens: tuple[int, int] | None
    natively: bool | None

    def is_caused_by(self, tokens: range) -> bool:
        """Whether any of its firings is."""
        return self.tokens is not None and self.tokens[0] < tokens.stop and self.tokens[1] >= tokens.start


@dataclass(frozen=True)
class Call(Span):
    """Tokens `[position, position + tokens)` that were appended in one call.

    Attributes:
        firings: in the order in which they ran.
        rows: of each stage's longest cache, that the tokens up to the end of the call have written.
    """

    kind: Kind
    position: int
    tokens: int
    firings: Sequence[Firing]
    rows: Mapping[str, int]

    @property
    def covers(self) -> range:
        """Positions of its tokens."""
        return range(self.position, self.position + self.tokens)


@dataclass(frozen=True)
class Rewind:
    """The tokens from a position on were taken back."""

    at_ns: int
    position: int


@dataclass
class SessionTrace:
    """What one session did.

    Attributes:
        session: the one.
        drafting: the name of the bundle, if it is of a drafting model.
        calls: that ended.
        rewinds: of it.
        open: engine calls of a call that has not ended: stage, firings, and when.
    """

    session: Session
    drafting: str | None
    calls: list[Call] = field(default_factory=list)
    rewinds: list[Rewind] = field(default_factory=list)
    open: list[tuple[StageSpec, int, Span]] = field(default_factory=list)


@dataclass(frozen=True)
class Choice(Span):
    """A token, drawn for a position; None: the constraint allowed none."""

    token: int | None
    position: int


@dataclass(frozen=True)
class Draft(Span):
    """Tokens proposed for the places from a position on, maybe none."""

    tokens: Sequence[int]
    position: int


class Trace(GenerationObserver):
    """Keeps what a generation does: `model.generate(prompt, observer=Trace(model))`, one generation for each trace.

    Args:
        model: that generates.

    Attributes:
        sessions: the text's, and behind it that of a drafting model.
        choices: tokens as they were drawn.
        drafts: proposals.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.sessions: list[SessionTrace] = []
        self.choices: list[Choice] = []
        self.drafts: list[Draft] = []

    @property
    def has_begun(self) -> bool:
        """Whether an engine was called: of a prompt that is refused none is."""
        return any(of.calls or of.open for of in self.sessions)

    def opened(self, session: Session, drafting: str | None) -> None:
        """As `GenerationObserver.opened`."""
        self.sessions.append(SessionTrace(session, drafting))

    def fired(self, session: Session, stage: StageSpec, firings: int, began_ns: int, ended_ns: int) -> None:
        """As `GenerationObserver.fired`."""
        self._of(session).open.append((stage, firings, Span(began_ns, ended_ns)))

    def called(self, session: Session, position: int, tokens: int, began_ns: int, ended_ns: int) -> None:
        """As `GenerationObserver.called`."""
        of = self._of(session)
        schedule = session.schedule if any(spec.clock is not None for spec in session.specs) else {}
        due = due_firings(session.specs, position, tokens, schedule)
        firings = _placed(session, of.open, due, schedule)
        rows = {spec.name: rows_in_use(spec, due[spec.name].stop) for spec in session.specs if spec.caches}
        of.calls.append(Call(began_ns, ended_ns, self._kind(of, tokens), position, tokens, firings, rows))
        of.open = []

    def rewound(self, session: Session, position: int) -> None:
        """As `GenerationObserver.rewound`."""
        of = self._of(session)
        of.rewinds.append(Rewind(perf_counter_ns(), position))

    def drafted(self, tokens: Sequence[int], position: int, began_ns: int, ended_ns: int) -> None:
        """As `GenerationObserver.drafted`."""
        self.drafts.append(Draft(began_ns, ended_ns, tuple(tokens), position))

    def chose(self, token: int | None, position: int, began_ns: int, ended_ns: int) -> None:
        """As `GenerationObserver.chose`."""
        self.choices.append(Choice(began_ns, ended_ns, token, position))

    def _of(self, session: Session) -> SessionTrace:
        return next(of for of in self.sessions if of.session is session)

    def _kind(self, of: SessionTrace, tokens: int) -> Kind:
        if of.drafting is not None:
            return "decode" if tokens == 1 else "catch up"
        if not self.choices:
            return "prefill"
        return "decode" if tokens == 1 else "check"


def due_firings(specs: Sequence[StageSpec], position: int, tokens: int, schedule: Schedule) -> dict[str, range]:
    """The firings of every stage that the tokens `[position, position + tokens)` cause; at position 0 with those before them.

    `schedule`: of a session that has seen them.
    """

    def fired(spec: StageSpec, seen: int) -> int:
        return firings_of(spec, seen, schedule) if seen else 0

    return {spec.name: range(fired(spec, position), fired(spec, position + tokens)) for spec in specs}


def _placed(
    session: Session, ran: Sequence[tuple[StageSpec, int, Span]], due: Mapping[str, range], schedule: Schedule
) -> list[Firing]:
    """Engine calls with the firings that they ran.

    Those of a stage follow each other up to the last that is due; the first may be earlier ones, run again after a rewind.
    Where a stage ran fewer than are due, as those that nobody wants logits of are left out, it is not said which.
    """
    counts = {name: sum(count for spec, count, _ in ran if spec.name == name) for name in due}
    following = {name: due[name].stop - counts[name] for name in due}
    found = []
    for spec, count, span in ran:
        first = following[spec.name] if counts[spec.name] >= len(due[spec.name]) else None
        following[spec.name] += count
        tokens = None if first is None else (cause_of(spec, first, schedule), cause_of(spec, first + count - 1, schedule))
        natively = _natively(session, spec, count)
        found.append(Firing(span.began_ns, span.ended_ns, spec.name, count, first, tokens, natively))
    return found


def _natively(session: Session, spec: StageSpec, count: int) -> bool | None:
    if not isinstance(session.engines, tuple):
        return None
    engines = (engine for engine in session.engines if isinstance(engine, NativeEngine) and engine.spec.name == spec.name)
    return any(max(count, session.batch) <= engine.most_rows for engine in engines)


def rows_in_use(spec: StageSpec, fired: int) -> int:
    """Of a stage's longest cache, after so many firings: what it still looks back at."""
    if not fired:
        return 0
    remembered = fired if spec.resets is None else (fired - 1) % spec.resets + 1
    return max(
        cache.rows if cache.recurrent else min(remembered * cache.rows, cache.keeps or remembered * cache.rows)
        for cache in spec.caches
    )
