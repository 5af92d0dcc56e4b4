"""Token ids to text as it becomes certain: whole characters only, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from .detokenize import overlap
from .tokenizer import TextTokenizer


class TextStream:
    """Text of ids as it becomes certain, up to the first stop string.

    All pieces together are what the tokenizer's `decode` gives for all ids, cut before the stop string; one that runs over
    several tokens is found, and no piece shows its beginning.
    """

    def __init__(self, tokenizer: TextTokenizer, stop: str | Sequence[str] = ()) -> None:
        self.stopped = False
        self._detokenizer, self._stop = tokenizer.detokenizer(), (stop,) if isinstance(stop, str) else tuple(stop)
        self._held = ""  # certain text that may be the start of a stop string

    def push(self, token: int, may_stop: bool = True) -> str:
        """Take a token; return the text that is now certain, which may be empty.

        Args:
            token: its id.
            may_stop: whether stop strings are looked for in what it makes certain.
        """
        if self.stopped:
            return ""
        text = self._detokenizer.push(token)
        return self._until_stop(text) if may_stop else text

    def finish(self) -> str:
        """Return what was held back; bytes of an unfinished character become U+FFFD."""
        if self.stopped:
            return ""
        text = self._until_stop(self._detokenizer.finish())
        text, self._held = text + self._held, ""
        return text

    def _until_stop(self, text: str) -> str:
        """Add certain text; return what can be given out."""
        if not self._stop:
            return text
        text = self._held + text
        # The one that ends first counts, whatever the tokens: an earlier start may be known only later.
        found = [(index + len(stop), index) for stop in self._stop if (index := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)[1]]
        keep = max((overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]
