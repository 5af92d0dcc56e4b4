"""What tells a `GenerationObserver`: sessions, continuations and drafts, which are opened only where there is one."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns

import numpy as np
import numpy.typing as npt

from ...bundle import Bundle, Manifest
from ...contract import StageSpec
from ..sampling import Sampler, SamplingParams
from ..session import Session
from ..speculation.drafting import Drafting, Drafts
from ..speculation.lengths import Draft
from ..speculation.model_drafter import Guesses
from ..speculation.opening import DraftedModel
from ..speculation.terms import Terms
from .continuation import Continuation
from .observer import GenerationObserver
from .request import Request


class ObservedSession(Session):
    """A session that tells an observer of its calls."""

    _watcher: GenerationObserver

    @classmethod
    def of(cls, model: DraftedModel, watcher: GenerationObserver, drafting: str | None = None) -> ObservedSession:
        """Of a loaded model; `drafting`: the name of its bundle, if it is the one that drafts."""
        session = cls(model.engines, model.manifest.model, bundle=model.identity)
        session._watcher = watcher

        def fired(stage: StageSpec, firings: int, elapsed_ns: int) -> None:
            ended = perf_counter_ns()
            watcher.fired(session, stage, firings, ended - elapsed_ns, ended)

        session.observer = fired
        watcher.opened(session, drafting)
        return session

    def advance(self, ids: npt.ArrayLike, last_only: bool = False) -> npt.NDArray[np.float32]:
        """As `Session.advance`."""
        position, began = self.position, perf_counter_ns()
        logits = super().advance(ids, last_only)
        self._watcher.called(self, position, self.position - position, began, perf_counter_ns())
        return logits

    def draw(
        self, ids: npt.ArrayLike, count: int, params: SamplingParams, uniform: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.int64]:
        """As `Session.draw`."""
        position, began = self.position, perf_counter_ns()
        drawn = super().draw(ids, count, params, uniform)
        self._watcher.called(self, position, self.position - position, began, perf_counter_ns())
        return drawn

    def rewind(self, tokens: int) -> None:
        """As `Session.rewind`."""
        super().rewind(tokens)
        if tokens:
            self._watcher.rewound(self, self.position)


class ObservedContinuation(Continuation):
    """A continuation that tells an observer of the tokens it draws."""

    def __init__(self, request: Request, watcher: GenerationObserver) -> None:
        super().__init__(request)
        self._watcher = watcher

    def choose(self, logits: npt.NDArray[np.float32], seen: npt.NDArray[np.int64]) -> int | None:
        """As `Continuation.choose`."""
        began = perf_counter_ns()
        token = super().choose(logits, seen)
        self._watcher.chose(token, len(seen), began, perf_counter_ns())
        return token


class ObservedDrafts(Drafts):
    """Drafts that tell an observer of what is proposed."""

    def __init__(self, drafting: Drafting, sampler: Sampler, most: int | None, watcher: GenerationObserver) -> None:
        super().__init__(drafting, sampler, most)
        self._watcher = watcher

    def draft(self, token: int, room: int, unit: float, terms: Callable[[], Terms]) -> Draft:
        """As `Drafts.draft`."""
        began = perf_counter_ns()
        found = super().draft(token, room, unit, terms)
        self._watcher.drafted(found.tokens, self.known, began, perf_counter_ns())
        return found


class ObservedModel:
    """A drafting model, as `DraftedModel`, whose sessions tell an observer."""

    def __init__(self, model: DraftedModel, watcher: GenerationObserver) -> None:
        self._model, self._watcher = model, watcher
        self.bundle: Bundle = model.bundle
        self.engines, self.identity = model.engines, model.identity
        self.guesses: Guesses = model.guesses

    @property
    def manifest(self) -> Manifest:
        """As `DraftedModel.manifest`."""
        return self._model.manifest

    def session(self) -> Session:
        """As `DraftedModel.session`."""
        return ObservedSession.of(self._model, self._watcher, self.bundle.name)
