"""What each token writes is what the tokenizer's decoder makes of it, whatever stands before it."""

from __future__ import annotations

import pytest
from decoders import DECODERS, SPECIAL, VOCABULARY, tokenizer_file
from guided import llama_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from foveal import InputError
from foveal.runtime.spelling import Spelling, spelling_of
from foveal.runtime.tokenizer import ByteTokenizer

REFUSED = {
    "none": "it has no decoder",
    "wordpiece": "its decoder is WordPiece: it puts spaces before words that no token has",
    "wordpiece, as it is": "its decoder is WordPiece",
    "word ends": "its decoder is BPEDecoder: the end of a word is a space only if another word follows",
    "word ends, fused": "its decoder is BPEDecoder",
    "ctc": "its decoder is CTC: repeated tokens count once",
    "fused metaspace": "Metaspace there may change bytes of several tokens",
    "fused ends": "Strip there may change bytes of several tokens",
    "fused replace": "Replace there may change bytes of several tokens",
    "fused pattern": "Replace there may change bytes of several tokens",
    "byte level, then ends": "a stage beside ByteLevel may change bytes of several tokens",
}
TAKEN = sorted(set(DECODERS) - set(REFUSED))


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, tuple[Tokenizer, Spelling]]:
    """Those whose tokens have bytes of their own."""
    made = {name: Tokenizer.from_str(tokenizer_file(DECODERS[name])) for name in TAKEN}
    return {name: (tokenizer, spelling_of(tokenizer)) for name, tokenizer in made.items()}


def written(spelling: Spelling, ids: list[int]) -> bytes:
    """All that ids write."""
    first = [spelling.first.get(id, spelling.written[id]) for id in ids[:1]]
    return b"".join([*first, *(spelling.written[id] for id in ids[1:])])


@pytest.mark.parametrize("name", TAKEN)
@given(ids=st.lists(st.integers(0, len(VOCABULARY) - 1), max_size=8))
def test_tokens_write_what_the_decoder_makes_of_them(
    name: str, ids: list[int], tokenizers: dict[str, tuple[Tokenizer, Spelling]]
) -> None:
    """Where all of it is UTF-8, as constrained text is."""
    tokenizer, spelling = tokenizers[name]
    data = written(spelling, ids)
    text = data.decode(errors="replace")
    if text.encode() == data:
        assert tokenizer.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("name", REFUSED)
def test_tokenizers_whose_tokens_have_no_bytes_of_their_own_are_refused(name: str) -> None:
    """With what in their decoder is the reason."""
    with pytest.raises(
        InputError, match="tokens have no bytes of their own.*use a model whose tokenizer is byte-level"
    ) as caught:
        spelling_of(Tokenizer.from_str(tokenizer_file(DECODERS[name])))
    assert REFUSED[name] in str(caught.value)


def test_special_tokens_are_no_text(
    tokenizers: dict[str, tuple[Tokenizer, Spelling]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Nor are added ones in angle brackets; other added ones, as runs of spaces, are."""
    spelling = tokenizers["llama"][1]
    assert sorted(spelling.named.values()) == sorted(SPECIAL)
    assert all(spelling.written[id] == b"" for id in spelling.named)
    llama = llama_tokenizer(tmp_path_factory.mktemp("llama") / "tokenizer.json")
    spelling = llama.spelling()
    assert set(spelling.named.values()) == {"<unk>", "<s>", "</s>", "<tool>"}
    assert b"    " in spelling.written


def test_a_space_before_the_text_is_the_first_token_s_alone(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Llama's: it is taken off where it comes first, and not put before a text that goes on."""
    tokenizer = llama_tokenizer(tmp_path_factory.mktemp("llama") / "tokenizer.json")
    spelling = tokenizer.spelling()
    yes, space = tokenizer.token_id("▁yes"), tokenizer.token_id("▁")
    assert yes is not None
    assert space is not None
    assert (spelling.written[yes], spelling.first[yes], spelling.first[space]) == (b" yes", b"yes", b"")
    assert tokenizer.encode("yes") == [yes]
    assert spelling.encode("yes") == [tokenizer.token_id("yes")]
    assert spelling.encode(" yes") == [yes]


def test_bytes_write_themselves() -> None:
    """And nothing else is special."""
    spelling = ByteTokenizer().spelling()
    assert b"".join(spelling.written) == bytes(range(256))
    assert (spelling.first, spelling.named, spelling.encode("é")) == ({}, {}, [0xC3, 0xA9])
