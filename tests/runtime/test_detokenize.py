"""Ids to text, id by id, is what the tokenizers library gives for all of them, for every kind of decoder."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from decoders import BYTES, DECODERS, SPECIAL, VOCABULARY, tokenizer_file
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from foveal.runtime.text import TextStream
from foveal.runtime.tokenizer import HuggingFaceTokenizer


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HuggingFaceTokenizer]:
    """One for each decoder."""
    directory = tmp_path_factory.mktemp("tokenizers")
    made = {}
    for index, (name, decoder) in enumerate(DECODERS.items()):
        path = directory / f"{index}.json"
        path.write_text(tokenizer_file(decoder), encoding="utf-8")
        made[name] = HuggingFaceTokenizer(path)
    return made


def pieces(tokenizer: HuggingFaceTokenizer, ids: list[int], *stop: str) -> list[str]:
    """Every piece, the last one from `finish`."""
    stream = TextStream(tokenizer, stop)
    return [*(stream.push(token) for token in ids), stream.finish()]


def with_a_middle(name: str, ids: list[int]) -> list[int]:
    """Ids with something between the ends: where both ends meet, the library panics."""
    return [*ids, VOCABULARY.index("a"), *ids[::-1]] if name == "fused ends" else ids


# Ids that no token has are among them: a model's vocabulary may be larger.
IDS = st.lists(st.integers(0, len(VOCABULARY) + len(SPECIAL) + 1), max_size=14)
BYTE_IDS = st.lists(st.integers(0, len(BYTES) + 1), max_size=12)


@pytest.mark.parametrize("name", DECODERS)
@given(ids=IDS | BYTE_IDS)
def test_the_pieces_are_what_is_decoded_at_once(name: str, tokenizers: dict[str, HuggingFaceTokenizer], ids: list[int]) -> None:
    """Broken bytes, real U+FFFDs, special tokens and ids of no token included."""
    ids = with_a_middle(name, ids)
    assert "".join(pieces(tokenizers[name], ids)) == tokenizers[name].decode(ids)


@pytest.mark.parametrize("name", DECODERS)
@given(ids=IDS, more=IDS)
def test_no_piece_is_taken_back(
    name: str, tokenizers: dict[str, HuggingFaceTokenizer], ids: list[int], more: list[int]
) -> None:
    """What is out after some ids is a beginning of the text, whatever comes then."""
    ids = with_a_middle(name, ids)
    out = "".join(pieces(tokenizers[name], ids)[:-1])
    assert tokenizers[name].decode([*ids, *more]).startswith(out)


@pytest.mark.parametrize("name", DECODERS)
@given(
    ids=IDS, stops=st.lists(st.sampled_from(["日", "🙂", "é", "\ufffd", " ", "ab", "a日", "-", "</s>"]), min_size=1, max_size=3)
)
def test_stop_strings_cut_where_they_first_end(
    name: str, tokenizers: dict[str, HuggingFaceTokenizer], ids: list[int], stops: list[str]
) -> None:
    """In the text that all ids have, nothing of a stop string shows before it."""
    ids = with_a_middle(name, ids)
    text = tokenizers[name].decode(ids)
    _, cut = min(((index + len(stop), index) for stop in stops if (index := text.find(stop)) >= 0), default=(0, len(text)))
    assert "".join(pieces(tokenizers[name], ids, *stops)) == text[:cut]


@pytest.mark.parametrize("name", ["llama", "byte fallback", "byte level"])
def test_characters_come_when_they_are_certain(name: str, tokenizers: dict[str, HuggingFaceTokenizer]) -> None:
    """Byte-level ones with their last byte; of a run of byte tokens when another token ends it, as a broken byte undoes all."""
    tokens = ["æ", "Ĺ", "¥", "a"] if name == "byte level" else ["<0xE6>", "<0x97>", "<0xA5>", "a"]
    found = pieces(tokenizers[name], [VOCABULARY.index(token) for token in tokens])
    assert found == (["", "", "日", "a", ""] if name == "byte level" else ["", "", "", "日a", ""])


def test_a_broken_run_of_bytes_is_replaced_from_then_on(tokenizers: dict[str, HuggingFaceTokenizer]) -> None:
    """Byte by byte, at once; the next token starts afresh."""
    ids = [VOCABULARY.index(token) for token in ("<0xE6>", "<0xFF>", "<0x61>", "a", "<0x61>", "b")]
    assert pieces(tokenizers["llama"], ids) == ["", "\ufffd\ufffd", "\ufffd", "a", "", "ab", ""]


def test_each_token_costs_the_same(tokenizers: dict[str, HuggingFaceTokenizer], monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's decoder never sees more than one token and what stands before it."""
    import foveal.runtime.detokenize as module

    seen: list[int] = []
    real = module.library_decoder

    def counted(described: Any) -> Any:
        decode = real(described)
        return lambda tokens: (seen.append(sum(map(len, tokens))), decode(tokens))[1]

    monkeypatch.setattr(module, "library_decoder", counted)
    ids = random.Random(0).choices(range(len(VOCABULARY)), k=400)
    for name in ("llama", "metaspace", "wordpiece", "ctc", "byte level"):
        pieces(tokenizers[name], ids)
    assert seen
    assert max(seen) <= max(map(len, VOCABULARY))


def test_truncation_and_padding_of_the_file_are_off(tmp_path: Path) -> None:
    """A prompt is neither cut nor filled up, whatever the tokenizer was last used for."""
    tokenizer = Tokenizer.from_str(tokenizer_file(None))
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=7, pad_token="a", pad_id=VOCABULARY.index("a"))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = HuggingFaceTokenizer(tmp_path / "tokenizer.json")
    assert loaded.encode("</s></s></s>") == [len(VOCABULARY) + 1] * 3
