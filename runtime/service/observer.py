"""What a service tells of itself, for metrics and logs. Calls come from its own thread and should be quick."""

from __future__ import annotations

from ..generation.continuation import FinishReason


class ServiceObserver:
    """Does nothing; metrics override what they count."""

    def first_token(self, seconds: float) -> None:
        """A text's first token came so long after its request."""

    def token(self, fired: tuple[str, ...], seconds: float) -> None:
        """Another token of a text came so long after its last, from a step in which these stages fired for it."""

    def stepped(self, seconds: float, texts: int) -> None:
        """A step took so long, and brought tokens to so many texts."""

    def finished(self, reason: FinishReason | None, seconds: float, prompt_tokens: int, new_tokens: int) -> None:
        """A text ended, or failed if there is no reason, so long after its request."""
