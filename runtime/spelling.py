"""What each id of a vocabulary writes, in bytes: for constraints, which are about bytes and not about tokens.

Most decoders of a `tokenizer.json` join tokens that each stand for bytes of their own. Some do not: the end of a word is a
space only if another word follows, or repeated tokens count once. Of those no token says what it writes, so they are refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .detokenize import byte_level, fallback_byte, flat_stages, library_decoder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_REFUSED = {
    "BPEDecoder": "the end of a word is a space only if another word follows",
    "CTC": "repeated tokens count once",
    "WordPiece": "it puts spaces before words that no token has",
}


@dataclass(frozen=True)
class Spelling:
    """What ids write.

    Attributes:
        written: bytes of each id, one after the other the text's; b"" for ids that write none (no token, or a named one).
        first: bytes of the ids that write something else where they come first, as decoders that take off a leading space do.
        named: names of ids that are no text, such as `<|end|>`.
        encode: ids of a text that goes on from another one.
    """

    written: Sequence[bytes]
    encode: Callable[[str], list[int]]
    first: Mapping[int, bytes] = field(default_factory=dict)
    named: Mapping[int, str] = field(default_factory=dict)


def spelling_of(tokenizer: Tokenizer) -> Spelling:
    """The spelling of a `tokenizer.json`.

    Raises:
        InputError: its decoder does not give each token bytes of its own.
    """
    spell = _speller(tokenizer)
    named = _named(tokenizer)
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    written: list[bytes] = [b""] * (largest + 1)
    first: dict[int, bytes] = {}
    for id in range(largest + 1):
        token = None if id in named else tokenizer.id_to_token(id)
        if token is not None:
            written[id], at_first = spell(token)
            if at_first != written[id]:
                first[id] = at_first
    return Spelling(written, _encoder(tokenizer), first, named)


_Speller = Callable[[str], tuple[bytes, bytes]]
"""A token's bytes, and those that it writes where it comes first."""


def _speller(tokenizer: Tokenizer) -> _Speller:
    decoder = tokenizer.decoder
    if decoder is None:
        raise _refusal("it has no decoder, so spaces come between tokens that no token has")
    stages = flat_stages(json.loads(decoder.__getstate__()))
    names = [stage["type"] for stage in stages]
    for name in names:
        if name in _REFUSED:
            raise _refusal(f"its decoder is {name}: {_REFUSED[name]}")
    if "ByteLevel" in names:
        if {*names} - {"ByteLevel", "Fuse"}:
            raise _refusal(f"its decoder is {' + '.join(names)}: a stage beside ByteLevel may change bytes of several tokens")
        return lambda token: (byte_level(token), byte_level(token))
    return _staged(stages, " + ".join(names))


def _staged(stages: Sequence[Mapping[str, Any]], name: str) -> _Speller:
    """Stages that change tokens one by one; then, if tokens may be bytes, those; then, of the whole text, a leading space."""
    each: list[Callable[[list[str]], str]] = []
    has_bytes = is_fused = False
    stripped = b""
    for stage in stages:
        match stage:
            case {"type": "Fuse"}:
                is_fused = True
            case {"type": "ByteFallback"} if not is_fused and not has_bytes:
                has_bytes = True
            case {"type": "Replace" | "Metaspace" | "Strip"} if not is_fused and not has_bytes:
                each.append(library_decoder(stage))
            case {"type": "Strip", "content": str(content), "start": 0 | 1 as start, "stop": 0} if is_fused and not stripped:
                stripped = content.encode() if start else b""
            case _:
                raise _refusal(f"its decoder is {name}: {stage['type']} there may change bytes of several tokens")
    if len(stripped) > 1:
        raise _refusal(f"its decoder is {name}: Strip takes off {stripped.decode()!r}, which several tokens may make up")

    def spell(token: str) -> tuple[bytes, bytes]:
        later, first = token, token
        for decode in each:
            later, first = decode(["", later]), decode([first])
        written, at_first = _bytes_of(later, has_bytes), _bytes_of(first, has_bytes)
        return written, at_first.removeprefix(stripped)

    return spell


def _bytes_of(text: str, has_bytes: bool) -> bytes:
    byte = fallback_byte(text) if has_bytes else None
    return text.encode() if byte is None else bytes([byte])


def _refusal(reason: str) -> InputError:
    return InputError(
        f"this tokenizer's tokens have no bytes of their own, which a constraint needs: {reason}; "
        "generate without json_schema, regex and grammar, or use a model whose tokenizer is byte-level or of bytes"
    )


def _named(tokenizer: Tokenizer) -> dict[int, str]:
    """Special tokens, and those added as `<...>`: marks in a chat, not text. Others, as runs of spaces, are text."""
    added = tokenizer.get_added_tokens_decoder()
    return {
        id: token.content
        for id, token in added.items()
        if token.special or (token.content.startswith("<") and token.content.endswith(">"))
    }


def _encoder(tokenizer: Tokenizer) -> Callable[[str], list[int]]:
    """Ids of a text, and none of a space that some tokenizers put before it."""
    from tokenizers import Tokenizer

    described = json.loads(tokenizer.to_str())
    described["normalizer"] = _without_prefix(described["normalizer"])
    described["pre_tokenizer"] = _without_prefix(described["pre_tokenizer"])
    described["truncation"] = described["padding"] = None
    made = Tokenizer.from_str(json.dumps(described))

    def encode(text: str) -> list[int]:
        ids: list[int] = made.encode(text, add_special_tokens=False).ids
        return ids

    return encode


def _without_prefix(stage: dict[str, Any] | None) -> dict[str, Any] | None:
    """A normalizer or pre-tokenizer that puts nothing before a text."""
    if stage is None or stage["type"] == "Prepend":
        return None
    match stage["type"]:
        case "Metaspace":
            return {**stage, "prepend_scheme": "never"}
        case "ByteLevel":
            return {**stage, "add_prefix_space": False}
        case "Sequence":
            key = "normalizers" if "normalizers" in stage else "pretokenizers"
            kept = [inner for inner in map(_without_prefix, stage[key]) if inner is not None]
            return {**stage, key: kept} if kept else None
    return stage
