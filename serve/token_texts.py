"""What single tokens look like, for log probabilities."""

from __future__ import annotations

from ..runtime.tokenizer import TextTokenizer


class TokenTexts:
    """Texts of the tokens of one tokenizer, in the middle of a text.

    A token that is no whole character by itself, or no text at all, is `token_id:` and its id.

    Args:
        tokenizer: None: there are only ids.
    """

    def __init__(self, tokenizer: TextTokenizer | None) -> None:
        self._tokenizer, self._found = tokenizer, dict[int, str]()
        self._before = [] if tokenizer is None else tokenizer.encode("a")

    def text(self, token: int) -> str:
        """Of a token."""
        found = self._found.get(token)
        if found is None:
            found = self._found[token] = self._read(token)
        return found

    def bytes(self, token: int) -> list[int] | None:
        """Of its text in UTF-8; None where it has none."""
        text = self.text(token)
        return None if text.startswith("token_id:") else list(text.encode())

    def _read(self, token: int) -> str:
        if self._tokenizer is None:
            return f"token_id:{token}"
        stream = self._tokenizer.detokenizer()
        for one in self._before:
            stream.push(one)
        text = stream.push(token) + stream.finish()
        return f"token_id:{token}" if not text or "\ufffd" in text else text


class Offsets:
    """Where each token begins in a text, in characters.

    Args:
        tokenizer: None: there is no text.
    """

    def __init__(self, tokenizer: TextTokenizer | None) -> None:
        self._stream = None if tokenizer is None else tokenizer.detokenizer()
        self._length = 0

    def next(self, token: int) -> int:
        """Of the next token."""
        begin = self._length
        if self._stream is not None:
            self._length += len(self._stream.push(token))
        return begin
