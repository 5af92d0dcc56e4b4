"""Tokens to text, and text to tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from foveal import BundleError, FovealWarning, InputError
from foveal.models.text import train_tokenizer
from foveal.runtime.text import TextStream
from foveal.runtime.tokenizer import (
    ByteTokenizer,
    HuggingFaceTokenizer,
    TextTokenizer,
    check_tokenizer,
    first_byte_id,
    load_tokenizer,
)

TEXTS = st.text(st.sampled_from("abc de\n.éßł日本語🙂👩\u200d👧"), max_size=40)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TextTokenizer]:
    """Bytes, and a byte-level BPE whose tokens cut characters in two."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(train_tokenizer(["abc de é日本 日語. 🙂🙂 ab cde\n"] * 3, 290).to_str())
    return {"bytes": ByteTokenizer(), "bytes+4": ByteTokenizer(4), "bpe": HuggingFaceTokenizer(path)}


def stream(tokenizer: TextTokenizer, ids: list[int], stop: tuple[str, ...] = ()) -> list[str]:
    """Every piece, the last one from `finish`."""
    text = TextStream(tokenizer, stop)
    return [*(text.push(token) for token in ids), text.finish()]


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
@given(text=TEXTS)
def test_pieces_are_the_text_in_whole_characters(kind: str, tokenizers: dict[str, TextTokenizer], text: str) -> None:
    """Nothing is lost, and no piece holds half a character."""
    tokenizer = tokenizers[kind]
    pieces = stream(tokenizer, tokenizer.encode(text))
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
@given(text=TEXTS, stops=st.lists(st.text("abc de日🙂", min_size=1, max_size=3), min_size=1, max_size=3))
def test_stop_strings_cut_where_they_first_occur(
    kind: str, tokenizers: dict[str, TextTokenizer], text: str, stops: list[str]
) -> None:
    """Across any number of tokens, before the one that is complete first; of two that end together, before the longer."""
    tokenizer = tokenizers[kind]
    found = [(index + len(stop), index) for stop in stops if (index := text.find(stop)) >= 0]
    _, cut = min(found, default=(0, len(text)))
    assert "".join(stream(tokenizer, tokenizer.encode(text), tuple(stops))) == text[:cut]


@given(st.binary(max_size=30))
def test_bytes_that_are_no_text(data: bytes) -> None:
    """Broken bytes become U+FFFD, exactly as if decoded at once."""
    assert "".join(stream(ByteTokenizer(), list(data))) == data.decode(errors="replace")


def test_nothing_comes_after_a_stop() -> None:
    """The stream says that it stopped and stays silent."""
    text = TextStream(ByteTokenizer(), ("b",))
    assert (text.push(ord("a")), text.push(ord("b")), text.stopped) == ("a", "", True)
    assert (text.push(ord("c")), text.finish()) == ("", "")


def test_which_tokenizer_a_manifest_means(tmp_path: Path) -> None:
    """None, bytes, or the file in the bundle."""
    assert load_tokenizer(None, tmp_path) is None
    assert isinstance(load_tokenizer("bytes", tmp_path), ByteTokenizer)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match=r"tokenizer\.json is not a tokenizer\.json of Hugging Face tokenizers"):
        load_tokenizer("tokenizer.json", tmp_path)


def test_ids_that_are_no_bytes() -> None:
    """A vocabulary may be larger than 256."""
    assert ByteTokenizer().decode([104, 300, 105]) == "hi"


def test_a_tokenizer_that_does_not_know_every_text(tmp_path: Path) -> None:
    """Nor has a token for what it does not know: a warning where it is looked at, one line where a text is read."""
    made = Tokenizer(models.WordLevel({"a": 0, "b": 1}))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    with pytest.warns(FovealWarning, match="does not take every text, as .*: the tokenizer has no ids for all of the text"):
        check_tokenizer(tmp_path / "tokenizer.json", 2)
    tokenizer = HuggingFaceTokenizer(tmp_path / "tokenizer.json")
    assert tokenizer.encode("a b a") == [0, 1, 0]
    with pytest.raises(InputError, match=r"no ids for all of the text: .*UNK.*; give text of its tokens only"):
        tokenizer.encode("a c")


class TestBytesFromAnIdOn:
    """Of models that have special tokens in front."""

    def test_ids_and_back(self) -> None:
        """Ids that are no bytes have no text."""
        tokenizer = load_tokenizer("bytes+4", Path())
        assert tokenizer is not None
        assert tokenizer.encode("a\u00e9") == [101, 199, 173]
        assert tokenizer.decode([1, 101, 199, 173, 2, 300]) == "a\u00e9"
        assert (tokenizer.token_id("a"), tokenizer.token_id("ab")) == (101, None)
        assert tokenizer.spelling().written[100:103] == [b"`", b"a", b"b"]
        assert tokenizer.spelling().written[:4] == [b""] * 4

    @pytest.mark.parametrize("kind", ["bytes+", "bytes+0", "bytes-4", "bytes+04", "bytes+4 ", "Bytes", 4, None, Path("bytes")])
    def test_what_does_not_say_so(self, kind: object) -> None:
        """Is the name of something else."""
        assert first_byte_id(kind) is None

    def test_what_does(self) -> None:
        """From the first id, or from another."""
        assert (first_byte_id("bytes"), first_byte_id("bytes+4"), first_byte_id("bytes+256")) == (0, 4, 256)
