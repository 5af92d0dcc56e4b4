"""What llguidance is told of a tokenizer: bytes of each id, and how it writes a text that a constraint forces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..spelling import Spelling
from .library import load_library, without_panic

_MARK = b"\xff"  # before what is no text, as llguidance has it: this byte is in no UTF-8
_LONGEST = 1000  # bytes of a token; its trie has room for 1024
_AT_FIRST_NONE, _AT_FIRST_EMPTY = -1, -2


class Vocabulary:
    """A model's ids for llguidance, and two that no model draws: that the text ends, and that no token writes what must come.

    Attributes:
        size: of the model's vocabulary, V.
        count: of all ids.
        library_tokenizer: llguidance's.
    """

    def __init__(self, spelling: Spelling, size: int) -> None:
        library = load_library()
        self.size, self.count = size, size + 2
        written = [spelling.written[id] if id < len(spelling.written) else b"" for id in range(size)]
        self._written = [data if len(data) <= _LONGEST and _MARK not in data else b"" for data in written]
        self._named = {id: name for id, name in spelling.named.items() if id < size}
        self._encode, self._id_of = spelling.encode, _ids_by_bytes(self._written)
        self._longest = max(map(len, self._written), default=0)
        self._exists = np.array([bool(data) or id in self._named for id, data in enumerate(self._written)], np.bool_)
        self._at_first = self._standing_for(spelling)
        self.library_tokenizer: Any = without_panic(lambda: library.LLTokenizer(library.TokenizerWrapper(_Wrapped(self))))

    def library_tokens(self) -> list[bytes]:
        """Bytes by id as llguidance takes them, the two further ones at the end."""
        own = [
            data or _MARK + (self._named[id].encode() if id in self._named else b"\0%d" % id)
            for id, data in enumerate(self._written)
        ]
        return [*own, _MARK + b"\0end", _MARK + b"\0unwritable"]

    def of_model(self, ids: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Of ids that may follow, those that the model has and that are tokens, `[V]`."""
        found: npt.NDArray[np.bool_] = ids[: self.size] & self._exists
        return found

    def first_allowed(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Tokens `[V]` that may come first, of those that may come anywhere at this place."""
        if self._at_first is None:
            return mask
        allowed: npt.NDArray[np.bool_] = mask[np.maximum(self._at_first, 0)] & (self._at_first != _AT_FIRST_NONE)
        allowed |= (self._at_first == _AT_FIRST_EMPTY) & mask.any()
        return allowed

    def first_taken(self, token: int) -> list[int]:
        """The ids that stand for a token that comes first: itself, another that writes the same, or none."""
        stands = token if self._at_first is None else int(self._at_first[token])
        return [] if stands == _AT_FIRST_EMPTY else [stands]

    def canonical(self, text: str) -> list[int]:
        """The ids that the tokenizer writes a text by, or else the longest that do."""
        try:
            ids = self._encode(text)
        except Exception:  # it may have no token for the unknown
            ids = []
        data = text.encode()
        if ids and max(ids) < self.size and b"".join(self._written[id] for id in ids) == data:
            return ids
        return self._greedy(data)

    def _greedy(self, data: bytes) -> list[int]:
        ids: list[int] = []
        at = 0
        while at < len(data):
            ends = range(min(at + self._longest, len(data)), at, -1)
            end = next((end for end in ends if data[at:end] in self._id_of), None)
            if end is None:
                return [*ids, self.size + 1]
            ids.append(self._id_of[data[at:end]])
            at = end
        return ids

    def _standing_for(self, spelling: Spelling) -> npt.NDArray[np.int64] | None:
        """By id, the id that writes anywhere what this one writes where it comes first; None: each stands for itself."""
        if not spelling.first:
            return None
        stands = np.arange(self.size)
        for id, data in spelling.first.items():
            if id < self.size:
                stands[id] = self._id_of.get(data, _AT_FIRST_NONE) if data else _AT_FIRST_EMPTY
        return stands


class _Wrapped:
    """What llguidance's own wrapper asks for."""

    bos_token_id = None
    special_token_ids: Sequence[int] = ()

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.eos_token_id = vocabulary.size
        self.tokens = vocabulary.library_tokens()
        self._canonical = vocabulary.canonical

    def __call__(self, text: str | bytes) -> list[int]:
        if isinstance(text, bytes):
            raise TypeError("expected str")  # so the wrapper learns that it is to give text
        return self._canonical(text)


def _ids_by_bytes(written: Sequence[bytes]) -> dict[bytes, int]:
    """The last of several that write the same: byte tokens come before the others."""
    return {data: id for id, data in enumerate(written) if data}
