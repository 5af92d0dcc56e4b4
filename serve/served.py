"""A model that is served, and what is known of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..runtime.service.service import Service
from .measurements import Measurements

if TYPE_CHECKING:
    from ..runtime.model import Model
    from .chat_template import ChatTemplate


@dataclass(frozen=True, eq=False)
class Served:
    """A model and the service that its requests go to; both stay with whoever opened them.

    Attributes:
        name: by which clients ask for it.
        measurements: the service's observer.
        template: how a chat becomes a prompt; None: no chats.
        created: when it was loaded, seconds since 1970.
    """

    name: str
    model: Model
    service: Service
    measurements: Measurements
    template: ChatTemplate | None = None
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def fingerprint(self) -> str:
        """Changes with the weights and the engines: with it, the same seed gives the same text."""
        return f"fp_{self.model.identity[:12]}"

    @property
    def is_text(self) -> bool:
        """Whether it has a tokenizer; without one, prompts and answers are ids."""
        return self.model.tokenizer is not None

    @property
    def takes_chats(self) -> bool:
        """Whether it is known how a chat becomes a prompt."""
        return self.template is not None and self.is_text
