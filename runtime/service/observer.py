"""What a service tells of itself, for metrics and logs. Calls come from its own threads and should be quick."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from ..generation.continuation import FinishReason

_log = logging.getLogger("foveal.service")
_Args = ParamSpec("_Args")


OBSERVED = ("first_token", "token", "stepped", "finished")
"""Methods of an observer."""


class ServiceObserver:
    """Does nothing; metrics override what they count. What a method raises is logged, once, and disturbs nothing."""

    def first_token(self, seconds: float) -> None:
        """A text's first token came so long after its request."""

    def token(self, fired: tuple[str, ...], seconds: float) -> None:
        """Another token of a text came so long after its last, from a step in which these stages fired for it."""

    def stepped(self, seconds: float, texts: int) -> None:
        """A step took so long, and brought tokens to so many texts."""

    def finished(self, reason: FinishReason | None, seconds: float, prompt_tokens: int, new_tokens: int) -> None:
        """A text ended, or failed if there is no reason, so long after its request."""


class QuietObserver(ServiceObserver):
    """Tells another one, and goes on whatever that raises."""

    def __init__(self, observer: ServiceObserver) -> None:
        self._has_failed = False
        for name in OBSERVED:
            setattr(self, name, self._quiet(getattr(observer, name)))

    def _quiet(self, told: Callable[_Args, None]) -> Callable[_Args, None]:
        @wraps(told)
        def tell(*args: _Args.args, **kwargs: _Args.kwargs) -> None:
            try:
                told(*args, **kwargs)
            except Exception:  # whatever metrics may raise
                if not self._has_failed:
                    _log.exception("an observer of the service failed; what else it raises is not logged")
                self._has_failed = True

        return tell
