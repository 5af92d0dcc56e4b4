"""What single tokens look like, for log probabilities."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import InputError
from ..runtime.tokenizer import TextTokenizer


class TokenTexts:
    """Texts of the tokens of one tokenizer, in the middle of a text.

    As OpenAI writes them: a token that is no whole character by itself is `bytes:` and its bytes, as `bytes:\\xe2\\x80`. One
    that has no text at all, or of which it can't be said, is `token_id:` and its id.

    Args:
        tokenizer: None: there are only ids.
    """

    def __init__(self, tokenizer: TextTokenizer | None) -> None:
        self._tokenizer, self._found = tokenizer, dict[int, tuple[str, list[int] | None]]()
        self._before = [] if tokenizer is None else tokenizer.encode("a")
        self._written: Sequence[bytes] | None = None
        self._is_asked = False

    def text(self, token: int) -> str:
        """Of a token."""
        return self._of(token)[0]

    def utf8(self, token: int) -> list[int] | None:
        """Of a token, in UTF-8; None where it has none."""
        return self._of(token)[1]

    def _of(self, token: int) -> tuple[str, list[int] | None]:
        found = self._found.get(token)
        if found is None:
            found = self._found[token] = self._read(token)
        return found

    def _read(self, token: int) -> tuple[str, list[int] | None]:
        data = self._spelled(token) or self._decoded(token)
        if not data:
            return f"token_id:{token}", None
        try:
            return data.decode(), list(data)
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{one:02x}" for one in data), list(data)

    def _spelled(self, token: int) -> bytes:
        """The bytes that it stands for, where the tokenizer says them."""
        if not self._is_asked and self._tokenizer is not None:
            self._is_asked = True
            try:
                self._written = self._tokenizer.spelling().written
            except InputError:  # tokens depend on what comes after them
                self._written = None
        return b"" if self._written is None or token >= len(self._written) else self._written[token]

    def _decoded(self, token: int) -> bytes:
        """What it adds to a text."""
        if self._tokenizer is None:
            return b""
        stream = self._tokenizer.detokenizer()
        for one in self._before:
            stream.push(one)
        text = stream.push(token) + stream.finish()
        return b"" if "\ufffd" in text else text.encode()


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
