"""A model that knows nothing: it draws any token that a guide allows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from foveal.runtime.guides.guide import Guide
from foveal.runtime.tokenizer import HuggingFaceTokenizer, TextTokenizer

SHIPPED = Path(__file__).parent.parent / "models" / "checkpoints" / "hourglass" / "tokenizer.json"


def drawn_ids(guide: Guide, rng: np.random.Generator, end_ids: frozenset[int] = frozenset(), most: int = 3000) -> list[int]:
    """Ids up to where nothing may follow, or an end token was drawn, which is left out: once in three times that it may.

    Without end tokens it leaves a text that is whole as often.
    """
    ids: list[int] = []
    while len(ids) < most:
        allowed = guide.allowed()
        ends = [id for id in end_ids if allowed[id]]
        if not allowed.any() or (not end_ids and guide.is_whole and rng.random() < 1 / 3):
            return ids
        may = np.flatnonzero(allowed)
        token = int(rng.choice(ends if ends and rng.random() < 1 / 3 else may))
        guide.take(token)
        if token in end_ids:
            return ids
        ids.append(token)
    raise AssertionError(f"no end after {most} tokens")


def whole_text(tokenizer: TextTokenizer, guide: Guide, rng: np.random.Generator, end_ids: frozenset[int] = frozenset()) -> str:
    """The text of ids so drawn, which has to be whole."""
    text = tokenizer.decode(drawn_ids(guide, rng, end_ids))
    assert guide.is_whole
    assert not end_ids or not guide.allowed().any()
    return text


def llama_tokenizer(path: Path) -> HuggingFaceTokenizer:
    """As Llama 2's: a space before the text, ▁ for spaces, bytes for what has no token, and special tokens."""
    pieces = ["▁", *"abcdefghijklmnopqrstuvwxyz", *'0123456789"{}[]:,.-', "▁a", "▁b", "▁no", "no", "▁yes", "yes", "▁▁", "es"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    merges = [("▁", "a"), ("▁", "b"), ("n", "o"), ("▁", "no"), ("e", "s"), ("y", "es"), ("▁", "yes"), ("▁", "▁")]
    model = models.BPE({token: id for id, token in enumerate(tokens)}, merges, byte_fallback=True, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in ("<unk>", "<s>", "</s>")])
    tokenizer.add_tokens(
        [AddedToken("<tool>", special=False, normalized=False), AddedToken("    ", special=False, normalized=False)]
    )
    tokenizer.save(str(path))
    return HuggingFaceTokenizer(path)


def few_words(path: Path, tokens: list[str]) -> HuggingFaceTokenizer:
    """A byte-level tokenizer of these tokens alone."""
    tokenizer = Tokenizer(models.BPE({token: id for id, token in enumerate(tokens)}, []))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(path))
    assert json.loads(path.read_text(encoding="utf-8"))
    return HuggingFaceTokenizer(path)
