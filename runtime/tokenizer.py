"""Text to ids and back, behind one small protocol."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ..errors import BundleError
from .detokenize import ByteDetokenizer, Detokenizer, StagedDetokenizer


class TextTokenizer(Protocol):
    """What generation needs of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text; no special tokens are added."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; bytes that are not UTF-8 become U+FFFD."""
        ...

    def detokenizer(self) -> Detokenizer:
        """`decode`, id by id."""
        ...


class ByteTokenizer:
    """Ids are the bytes of UTF-8."""

    def encode(self, text: str) -> list[int]:
        """The bytes of a text."""
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        """The text of bytes; ids above 255, which are no bytes, are left out."""
        return bytes(id for id in ids if id < 256).decode(errors="replace")

    def detokenizer(self) -> Detokenizer:
        """`decode`, id by id."""
        return ByteDetokenizer()


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
        """Ids of a text; no special tokens are added."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens included: the model wrote them."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        return text

    def detokenizer(self) -> Detokenizer:
        """`decode`, id by id."""
        return StagedDetokenizer(self._tokenizer)


def load_tokenizer(kind: str | None, bundle: Path) -> TextTokenizer | None:
    """The tokenizer a manifest names: `"tokenizer.json"`, `"bytes"` or none."""
    if kind is None:
        return None
    return ByteTokenizer() if kind == "bytes" else HuggingFaceTokenizer(bundle / kind)
