"""Token ids to text as it becomes certain: whole characters only, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from .tokenizer import TextTokenizer

# What decoders put for bytes that are no character, or not yet: one for all the bytes of an unfinished character.
_INCOMPLETE = "\ufffd"


class TextStream:
    """Decodes incrementally: each token is decoded a few times, together with the few before it.

    Decoders look at neighbours (a leading space, bytes of one character), so new text is what the decoding of a short window
    gained by a token (the idea of Hugging Face's text-generation-inference). The window moves on wherever a token ends at the
    end of a character.
    """

    def __init__(self, tokenizer: TextTokenizer, stop: Sequence[str] = ()) -> None:
        self.stopped = False
        self._tokenizer, self._stop = tokenizer, tuple(stop)
        self._window: list[int] = []
        self._context = 0  # tokens at the window's start that were there when it last moved
        self._given = 0  # characters of the window's text that were given out
        self._held = ""  # certain text that may be the start of a stop string

    def push(self, token: int) -> str:
        """Take a token; return the text that is now certain, which may be empty."""
        if self.stopped:
            return ""
        self._window.append(token)
        text = self._tokenizer.decode(self._window)
        is_whole = not text.endswith(_INCOMPLETE)
        certain = text[self._given : len(text) if is_whole else -1]
        self._given += len(certain)
        if is_whole:
            self._move_on()
        return self._until_stop(certain)

    def finish(self) -> str:
        """Return what was held back; bytes of an unfinished character become U+FFFD."""
        if self.stopped:
            return ""
        text = self._until_stop(self._tokenizer.decode(self._window)[self._given :])
        text, self._held = text + self._held, ""
        self._window, self._context, self._given = [], 0, 0
        return text

    def _move_on(self) -> None:
        self._window = self._window[self._context :]
        self._context = len(self._window)
        self._given = len(self._tokenizer.decode(self._window))

    def _until_stop(self, text: str) -> str:
        """Add certain text; return what can be given out."""
        text = self._held + text
        # The one that ends first counts, whatever the tokens: an earlier start may be known only later.
        found = [(index + len(stop), index) for stop in self._stop if (index := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)[1]]
        keep = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
