"""What to continue, and how."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ...contract import EndRule
from ..guides.guide import Guide
from ..sampling import SamplingParams
from ..speculation.drafting import Drafting
from ..tokenizer import TextTokenizer


@dataclass(frozen=True)
class Request:
    """A prompt and how to continue it, all of it checked.

    Attributes:
        ids: of the prompt.
        params: how tokens are chosen, and when to stop.
        end_ids: tokens that end the text, and are not given out.
        end_rules: marks of ids that end it.
        tokenizer: None: the continuation has no text.
        guide: opens what follows `params.constraint`; None without one.
        drafting: how tokens to come are guessed; None: they are not.
        begun: when it came, of `time.monotonic`; `params.max_seconds` counts from there.
    """

    ids: Sequence[int]
    params: SamplingParams
    end_ids: frozenset[int] = frozenset()
    tokenizer: TextTokenizer | None = None
    guide: Callable[[], Guide] | None = None
    end_rules: tuple[EndRule, ...] = ()
    drafting: Drafting | None = None
    begun: float = field(default_factory=time.monotonic)

    @property
    def is_late(self) -> bool:
        """Whether its time is over."""
        limit = self.params.max_seconds
        return limit is not None and time.monotonic() - self.begun >= limit

    def choice(self, index: int) -> Request:
        """For one of several texts after the same prompt: a seed of its own, if there is one."""
        seed = self.params.seed
        return self if seed is None or not index else replace(self, params=replace(self.params, seed=seed + index))
