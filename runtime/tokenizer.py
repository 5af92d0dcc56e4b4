"""Text to ids and back, behind one small protocol."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ..errors import BundleError, ConfigError, FovealWarning, InputError
from .detokenize import ByteDetokenizer, Detokenizer, StagedDetokenizer
from .spelling import Spelling, spelling_of


class TextTokenizer(Protocol):
    """What generation needs of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text; no special tokens are added."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; bytes that are not UTF-8 become U+FFFD."""
        ...

    def token_id(self, token: str) -> int | None:
        """The id of one token as the vocabulary writes it; None: there is no such token."""
        ...

    def detokenizer(self) -> Detokenizer:
        """`decode`, id by id."""
        ...

    def spelling(self) -> Spelling:
        """The bytes that each id writes. Raises InputError where ids have none of their own."""
        ...


class ByteTokenizer:
    """Ids are the bytes of UTF-8, counted from an id on: those before it are a model's special tokens."""

    def __init__(self, first: int = 0) -> None:
        self._first = first

    def encode(self, text: str) -> list[int]:
        """The bytes of a text."""
        return [byte + self._first for byte in text.encode()]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of bytes; ids that are no bytes are left out."""
        return bytes(id - self._first for id in ids if 0 <= id - self._first < 256).decode(errors="replace")

    def token_id(self, token: str) -> int | None:
        """The id of the byte that a character is; None for others."""
        data = token.encode()
        return data[0] + self._first if len(data) == 1 else None

    def detokenizer(self) -> Detokenizer:
        """`decode`, id by id."""
        return ByteDetokenizer(self._first)

    def spelling(self) -> Spelling:
        """Each id of a byte is that byte; others write nothing."""
        return Spelling([b""] * self._first + [bytes([byte]) for byte in range(256)], self.encode)


class HuggingFaceTokenizer:
    """A `tokenizer.json` of Hugging Face tokenizers.

    Raises:
        BundleError: the file is not one.
    """

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer  # here, so that importing the runtime stays quick

        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises plain Exception
            raise BundleError(f"{path} is not a tokenizer.json of Hugging Face tokenizers: {error}") from error
        # A file may hold what its last user set: prompts cut to so many ids, or filled up with pads.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def encode(self, text: str) -> list[int]:
        """Ids of a text; no special tokens are added. Raises InputError where it has none and no token for the unknown."""
        try:
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        except Exception as error:  # tokenizers raises plain Exception
            raise InputError(f"the tokenizer has no ids for all of the text: {error}; give text of its tokens only") from error
        return ids

    def largest_id(self) -> int:
        """Of all tokens, added ones included; -1 without any."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens included: the model wrote them."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        return text

    def token_id(self, token: str) -> int | None:
        """The id of one token, special or not; None: there is no such token."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def detokenizer(self) -> Detokenizer:
        """`decode`, id by id."""
        return StagedDetokenizer(self._tokenizer)

    def spelling(self) -> Spelling:
        """The bytes that each id writes. Raises InputError where ids have none of their own, as in WordPiece."""
        return spelling_of(self._tokenizer)


def check_text(text: str, name: str) -> None:
    """Raise InputError for what is no text: a lone surrogate, as Python makes them of bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name} is no text: character {error.start} is U+{ord(text[error.start]):04X}, half of a pair, as bytes that are "
            "not UTF-8 become; give UTF-8"
        ) from error


# Cases, accents in both forms, ligatures, spaces, lines and characters of one to four bytes.
_SAMPLE = "The Cafe\u0301, CAFÉ  and ﬁne Straße\tof 日本\u2009🙂.\n\n It's { |:a:| } \r\n"


def check_tokenizer(path: Path, vocab_size: int) -> None:
    """See that a file is a tokenizer for a model of so many ids.

    Raises:
        ConfigError: no file, not a `tokenizer.json`, or one with larger ids than the model's.
    Warns:
        FovealWarning: it does not take every text, or not give it back.
    """
    if not path.is_file():
        raise ConfigError(f'no tokenizer at {path}; expected a tokenizer.json, "bytes", or "bytes+4" if ids are bytes plus 4')
    try:
        tokenizer = HuggingFaceTokenizer(path)
    except BundleError as error:
        raise ConfigError(str(error)) from error
    if (largest := tokenizer.largest_id()) >= vocab_size:
        raise ConfigError(
            f"the tokenizer {path} has ids up to {largest}, the model only {vocab_size} tokens; "
            "use the one that the model was trained with, or none for a model of ids"
        )
    try:
        back = tokenizer.decode(tokenizer.encode(_SAMPLE))
    except InputError as error:
        warnings.warn(f"the tokenizer {path} does not take every text, as {_SAMPLE!r}: {error}", FovealWarning, stacklevel=2)
        return
    if back != _SAMPLE:
        warnings.warn(
            f"the tokenizer {path} does not give back every text: {_SAMPLE!r} comes back as {back!r}; "
            "what the model reads may not be all that it is given",
            FovealWarning,
            stacklevel=2,
        )


def load_tokenizer(kind: str | None, bundle: Path) -> TextTokenizer | None:
    """The tokenizer a manifest names: `"tokenizer.json"`, `"bytes"` (or from which id on, `"bytes+4"`) or none."""
    if kind is None:
        return None
    first = first_byte_id(kind)
    return HuggingFaceTokenizer(bundle / kind) if first is None else ByteTokenizer(first)


def first_byte_id(kind: object) -> int | None:
    """The id of byte 0 where ids are bytes: 0 of `"bytes"`, 4 of `"bytes+4"`; None: of something else."""
    found = re.fullmatch(r"bytes(?:\+([1-9]\d{0,8}))?", kind) if isinstance(kind, str) else None
    return None if found is None else int(found[1] or 0)
