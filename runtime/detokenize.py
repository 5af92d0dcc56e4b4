"""Incremental detokenization: ids to the text that no later id can change.

A `tokenizer.json` names a decoder: stages through which tokens go, from the vocabulary's strings to text. Here the same stages
work token by token. What a stage might do otherwise with more tokens it holds back, so all pieces together are exactly what the
decoder gives for all ids at once; and each token costs the same, however long the text is.

`tokenizers.decoders.DecodeStream` is no substitute: it takes any U+FFFD at the end for an unfinished character, has no
end, and has shown characters of a run of byte tokens by the time a broken byte turns them all into U+FFFD.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_REPLACEMENT = "\ufffd"


class Detokenizer(Protocol):
    """The text of one sequence of ids, as it grows."""

    def push(self, token: int) -> str:
        """Take an id; return the text that is now certain, which may be empty."""
        ...

    def finish(self) -> str:
        """Return the rest: nothing follows."""
        ...


class ByteDetokenizer:
    """Ids are bytes of UTF-8, from an id on; ids below and above them are left out."""

    def __init__(self, first: int = 0) -> None:
        self._first = first
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """As `Detokenizer.push`."""
        return self._decoder.decode(bytes([token - self._first])) if 0 <= token - self._first < 256 else ""

    def finish(self) -> str:
        """As `Detokenizer.finish`; an unfinished character becomes U+FFFD."""
        return self._decoder.decode(b"", final=True)


class StagedDetokenizer:
    """The decoder of a `tokenizer.json`, stage by stage; special tokens are text too. Ids without a token are left out."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._token_of: Callable[[int], str | None] = tokenizer.id_to_token
        decoder = tokenizer.decoder
        self._stages = stages_of(None if decoder is None else json.loads(decoder.__getstate__()))

    def push(self, token: int) -> str:
        """As `Detokenizer.push`."""
        text = self._token_of(token)
        return "" if text is None else "".join(_through(self._stages, [text]))

    def finish(self) -> str:
        """As `Detokenizer.finish`."""
        tokens: list[str] = []
        for stage in self._stages:
            tokens = [*_through([stage], tokens), *stage.finish()]
        return "".join(tokens)


class _Stage:
    """Tokens in, tokens out. Behind a stage that fuses, tokens are fragments of a single one."""

    def push(self, token: str) -> list[str]:
        raise NotImplementedError

    def finish(self) -> list[str]:
        return []


def _through(stages: Sequence[_Stage], tokens: list[str]) -> list[str]:
    for stage in stages:
        tokens = [out for token in tokens for out in stage.push(token)]
    return tokens


def stages_of(decoder: Mapping[str, Any] | None) -> list[_Stage]:
    """The stages of a decoder as `tokenizer.json` describes it; None: tokens with spaces between."""
    if decoder is None:
        return [_Spaced()]
    stages: list[_Stage] = []
    is_fused, described = False, flat_stages(decoder)
    for index, stage in enumerate(described):
        is_last = index == len(described) - 1
        stages.append(_fused_stage(stage) if is_fused else _stage(stage, is_last))
        is_fused = is_fused or stage["type"] in ("Fuse", "ByteLevel")
    return stages


def flat_stages(decoder: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The descriptions of a decoder's stages, those within others too."""
    if decoder["type"] != "Sequence":
        return [decoder]
    return [stage for inner in decoder["decoders"] for stage in flat_stages(inner)]


def _stage(described: Mapping[str, Any], is_last: bool) -> _Stage:
    match described["type"]:
        case "ByteLevel":
            return _ByteLevel()
        case "ByteFallback":
            return _ByteFallback()
        case "Fuse":
            return _AsIs()
        case "BPEDecoder":
            return _WordEnds(described["suffix"], is_last)
        case "CTC":
            return _Distinct(library_decoder(described))
        case "WordPiece" | "Metaspace":
            return _Later(library_decoder(described))
        case "Replace" | "Strip":
            return _Each(library_decoder(described))
    return _AtEnd(library_decoder(described), is_fused=False)


def _fused_stage(described: Mapping[str, Any]) -> _Stage:
    match described:
        case {"type": "Fuse"}:
            return _AsIs()
        case {"type": "Metaspace"}:
            return _Each(library_decoder(described))
        case {"type": "Strip"}:
            return _Ends(described["content"], described["start"], described["stop"])
        case {"type": "Replace", "pattern": {"String": str(pattern)}} if pattern:
            return _Replaced(pattern, described["content"])
    return _AtEnd(library_decoder(described), is_fused=True)


_Decode = Callable[[list[str]], str]


def library_decoder(described: Mapping[str, Any]) -> _Decode:
    """The library's own decoder of this description."""
    from tokenizers import Tokenizer

    model = {"type": "BPE", "vocab": {}, "merges": []}
    made = Tokenizer.from_str(json.dumps({"version": "1.0", "model": model, "decoder": described}))
    decode: _Decode = made.decoder.decode
    return decode


class _AsIs(_Stage):
    def push(self, token: str) -> list[str]:
        return [token]


class _Each(_Stage):
    """Every token by itself."""

    def __init__(self, decode: _Decode) -> None:
        self._decode = decode

    def push(self, token: str) -> list[str]:
        return [self._decode([token])]


class _Later(_Stage):
    """Every token by itself, but the first is treated otherwise."""

    def __init__(self, decode: _Decode) -> None:
        self._decode, self._before = decode, []  # type: _Decode, list[str]

    def push(self, token: str) -> list[str]:
        text = self._decode([*self._before, token])
        self._before = [""]
        return [text]


class _Distinct(_Stage):
    """Repeated tokens count once, and empty ones not at all."""

    def __init__(self, decode: _Decode) -> None:
        self._decode, self._last = decode, None  # type: _Decode, str | None

    def push(self, token: str) -> list[str]:
        if token == self._last:
            return []
        self._last = token
        text = self._decode([token])
        return [text] if text else []


class _Spaced(_Stage):
    """No decoder: spaces between tokens."""

    def __init__(self) -> None:
        self._space = ""

    def push(self, token: str) -> list[str]:
        text, self._space = self._space + token, " "
        return [text]


class _WordEnds(_Stage):
    """A suffix stands for a space, but in the last token for nothing."""

    def __init__(self, suffix: str, is_last: bool) -> None:
        self._suffix, self._may_split = suffix, is_last
        self._held: list[str] = []

    def push(self, token: str) -> list[str]:
        out = [held.replace(self._suffix, " ") for held in self._held]
        known = len(token) if self._suffix not in token else token.find(self._suffix) if self._may_split else 0
        self._held = [token[known:]] if known < len(token) else []
        return [*out, token[:known]] if known or not token else out

    def finish(self) -> list[str]:
        return [held.replace(self._suffix, "") for held in self._held]


class _ByteFallback(_Stage):
    """Tokens as `<0xE6>` are bytes. A run of them is text if it is UTF-8 as a whole; else each of its bytes is a U+FFFD.

    So the characters of a run are certain when another token ends it, and those of one that is broken at once.
    """

    def __init__(self) -> None:
        self._run = bytearray()
        self._decoder: codecs.IncrementalDecoder | None = _strict()  # None behind a byte that broke the run

    def push(self, token: str) -> list[str]:
        byte = fallback_byte(token)
        if byte is None:
            return [*self.finish(), token]
        if self._decoder is None:
            return [_REPLACEMENT]
        self._run.append(byte)
        try:
            self._decoder.decode(bytes([byte]))
        except UnicodeDecodeError:
            broken, self._run, self._decoder = len(self._run), bytearray(), None
            return [_REPLACEMENT] * broken
        return []

    def finish(self) -> list[str]:
        run, self._run, self._decoder = self._run, bytearray(), _strict()
        try:
            return [run.decode()] if run else []
        except UnicodeDecodeError:
            return [_REPLACEMENT] * len(run)


def _strict() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")("strict")


_BYTE = re.compile(r"<0x(\+[0-9A-Fa-f]|[0-9A-Fa-f]{2})>")  # with a sign too, as the library reads it


def fallback_byte(token: str) -> int | None:
    """The byte that a token as `<0xE6>` is; None for others."""
    found = _BYTE.fullmatch(token)
    return None if found is None else int(found[1], 16)


class _ByteLevel(_Stage):
    """Characters stand for bytes, as in GPT-2; a token with any that does not is its own UTF-8."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: str) -> list[str]:
        return [self._decoder.decode(byte_level(token))]

    def finish(self) -> list[str]:
        return [self._decoder.decode(b"", final=True)]


def _byte_level_alphabet() -> dict[str, int]:
    """Printable characters of Latin-1 are themselves, the other bytes the characters from U+0100 on, in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + index): byte for index, byte in enumerate(others)}


_BYTE_OF = _byte_level_alphabet()


def byte_level(token: str) -> bytes:
    """The bytes of a token whose characters stand for bytes; its own UTF-8 if any does not."""
    try:
        return bytes(map(_BYTE_OF.__getitem__, token))
    except KeyError:
        return token.encode()


class _Ends(_Stage):
    """At most so many of a character are taken off both ends of the whole text."""

    def __init__(self, content: str, start: int, stop: int) -> None:
        self._content, self._start, self._stop = content, start, stop
        self._held = ""

    def push(self, token: str) -> list[str]:
        while self._start and token.startswith(self._content):
            token, self._start = token[1:], self._start - 1
        self._start = 0 if token else self._start
        text = self._held + token
        keep = min(len(text) - len(text.rstrip(self._content)), self._stop)
        self._held = text[len(text) - keep :]
        return [text[: len(text) - keep]]


class _Replaced(_Stage):
    """One text for another, wherever it stands in the whole text."""

    def __init__(self, pattern: str, content: str) -> None:
        self._pattern, self._content, self._held = pattern, content, ""

    def push(self, token: str) -> list[str]:
        *before, rest = (self._held + token).split(self._pattern)
        keep = overlap(rest, self._pattern)
        self._held = rest[len(rest) - keep :]
        return ["".join(part + self._content for part in before) + rest[: len(rest) - keep]]

    def finish(self) -> list[str]:
        return [self._held]


class _AtEnd(_Stage):
    """What can't be told before the end: a pattern over the whole text, or a stage that foveal does not know."""

    def __init__(self, decode: _Decode, is_fused: bool) -> None:
        self._decode, self._is_fused = decode, is_fused
        self._tokens: list[str] = []

    def push(self, token: str) -> list[str]:
        self._tokens.append(token)
        return []

    def finish(self) -> list[str]:
        return [self._decode(["".join(self._tokens)] if self._is_fused else self._tokens)]


def overlap(text: str, found: str) -> int:
    """Length of the longest end of `text` that is a beginning of `found`, but not all of it."""
    longest = min(len(text), len(found) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(found[:length])), 0)
