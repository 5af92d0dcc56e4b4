"""Tokenizers of every kind of decoder, over one vocabulary that holds the tokens each of them treats in its own way."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import AddedToken, Tokenizer

SPACES = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
FALLBACK, FUSE = {"type": "ByteFallback"}, {"type": "Fuse"}
LLAMA = (SPACES, FALLBACK, FUSE, {"type": "Strip", "content": " ", "start": 1, "stop": 0})
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
DECODERS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "byte level": BYTE_LEVEL,
    "byte fallback": FALLBACK,
    "llama": {"type": "Sequence", "decoders": [*LLAMA]},
    "nested sequences": {"type": "Sequence", "decoders": [{"type": "Sequence", "decoders": [*LLAMA[:2]]}, *LLAMA[2:]]},
    "metaspace": METASPACE,
    "metaspace, never": {**METASPACE, "prepend_scheme": "never"},
    "metaspace and fallback": {"type": "Sequence", "decoders": [METASPACE, FALLBACK]},
    "fused metaspace": {"type": "Sequence", "decoders": [FALLBACK, FUSE, METASPACE]},
    "wordpiece": {"type": "WordPiece", "prefix": "##", "cleanup": True},
    "wordpiece, as it is": {"type": "WordPiece", "prefix": "##", "cleanup": False},
    "word ends": {"type": "BPEDecoder", "suffix": "</w>"},
    "word ends, fused": {"type": "Sequence", "decoders": [{"type": "BPEDecoder", "suffix": "</w>"}, FALLBACK, FUSE]},
    "ctc": {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": True},
    "fused ends": {"type": "Sequence", "decoders": [SPACES, FUSE, {"type": "Strip", "content": " ", "start": 2, "stop": 2}]},
    "fused replace": {
        "type": "Sequence",
        "decoders": [FUSE, {"type": "Replace", "pattern": {"String": "aba"}, "content": "é"}],
    },
    "fused pattern": {"type": "Sequence", "decoders": [FUSE, {"type": "Replace", "pattern": {"Regex": "a+b"}, "content": "-"}]},
    "pattern": {"type": "Replace", "pattern": {"Regex": "a+|b$"}, "content": "-"},
    "byte level, then ends": {
        "type": "Sequence",
        "decoders": [BYTE_LEVEL, {"type": "Strip", "content": "a", "start": 1, "stop": 0}],
    },
}
BYTES = [f"<0x{byte:02X}>" for byte in (*"日é🙂a".encode(), 0xFF, 0xC0)]
PLAIN = ["a", "b", "ab", "aba", "▁", "▁a", "a▁", "▁▁", "##a", "##", "a##b", "日", "\ufffd", ".", "'s", "n't", "do", "'", "|"]
ODD = ["a</w>", "</w>", "a</w>b", "Ġ", "Ġa", "æ", "Ĺ", "¥", "ð", "Ł", "ĻĤ", "<pad>", "a b"]
VOCABULARY = list(dict.fromkeys([*BYTES, *PLAIN, *ODD]))
SPECIAL = ["<s>", "</s>", "an added one"]


def tokenizer_file(decoder: dict[str, Any] | None) -> str:
    """A tokenizer of the vocabulary above; the decoder is all that matters."""
    vocabulary = {token: id for id, token in enumerate(VOCABULARY)}
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "a"}
    tokenizer = Tokenizer.from_str(json.dumps({"version": "1.0", "model": model, "decoder": decoder}))
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL])
    text: str = tokenizer.to_str()
    return text
