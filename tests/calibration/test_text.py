"""Text becomes ids without loss, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from specimens import Specimen

from foveal import ConfigError, FovealWarning, InputError
from foveal.bundle import Bundle
from foveal.calibration.text import read_ids, spread, windows
from foveal.models.text import train_tokenizer
from foveal.runtime.model import Model, load


@pytest.fixture(scope="module")
def model(nested: Specimen) -> Model:
    """A model of 300 tokens, which reads bytes."""
    return load(nested.bundle, threads=1)


@dataclass
class Deaf:
    """A tokenizer that does not hear some characters."""

    deaf_to: str

    def encode(self, text: str) -> list[int]:
        """Bytes of the others."""
        return [byte for byte in text.encode() if chr(byte) not in self.deaf_to]

    def decode(self, ids: Sequence[int]) -> str:
        """What was heard."""
        return bytes(ids).decode()


@pytest.fixture
def deaf(nested: Specimen) -> Model:
    """The model with a tokenizer that loses every "r"."""
    model = load(nested.bundle, threads=1)
    model.tokenizer = Deaf("r")
    return model


def test_files_and_directories_in_order(model: Model, tmp_path: Path) -> None:
    """A directory stands for its *.txt in order of name; nothing is put between files."""
    (tmp_path / "many").mkdir()
    for name, content in (("many/b.txt", "second\nthird"), ("many/a.txt", "first "), ("many/c.md", "no"), ("single", "last\n")):
        (tmp_path / name).write_text(content)
    read = read_ids([tmp_path / "many", str(tmp_path / "single")], model)
    assert bytes(read.ids.tolist()) == b"first second\nthirdlast\n"
    assert (read.ids.dtype, read.bytes) == (np.int64, 23)


def test_bytes_are_those_of_utf8(model: Model, tmp_path: Path) -> None:
    """Characters of one to four of them."""
    (tmp_path / "t.txt").write_text("aé€😀\n", encoding="utf-8")
    read = read_ids([tmp_path / "t.txt"], model)
    assert read.bytes == len(read.ids) == 1 + 2 + 3 + 4 + 1


def test_a_tokenizer_of_the_bundles_own(nested: Specimen, tmp_path: Path) -> None:
    """Fewer tokens than bytes."""
    content = "the cat sat on the mat\n" * 9
    (tmp_path / "t.txt").write_text(content)
    path = Path(shutil.copytree(nested.bundle.path, tmp_path / "b"))
    train_tokenizer([content], 300).save(str(path / "tokenizer.json"))
    manifest = msgspec.structs.replace(nested.bundle.manifest, tokenizer="tokenizer.json")
    model = load(Bundle(path, manifest), threads=1)
    read = read_ids([tmp_path / "t.txt"], model)
    assert read.bytes == len(content) > len(read.ids)
    assert model.tokenizer is not None
    assert model.tokenizer.decode(read.ids.tolist()) == content


def test_no_text(model: Model, tmp_path: Path) -> None:
    """None named, none there, none in it."""
    empty, blank, folder = tmp_path / "empty.txt", tmp_path / "blank.txt", tmp_path / "folder"
    empty.touch()
    blank.write_text(" \n\n\t\n")
    folder.mkdir()
    for paths, reason in (
        ([], "no text was given; name files that are like what the model will read"),
        ([empty], r"the text is empty: .*empty\.txt; give files with words in them"),
        ([empty, blank], r"the text is empty: .*empty\.txt, .*blank\.txt; give files with words in them"),
        ([tmp_path / "none.txt"], r"no text at .*none\.txt: expected a text file, or a directory with \*\.txt files"),
        ([folder], r"no text at .*folder: expected a text file, or a directory with \*\.txt files"),
    ):
        with pytest.raises(ConfigError, match=reason):
            read_ids(paths, model)


def test_a_bundle_without_tokenizer(nested: Specimen, text: Path) -> None:
    """It takes ids only."""
    silent = Bundle(nested.bundle.path, msgspec.structs.replace(nested.bundle.manifest, tokenizer=None))
    with pytest.raises(ConfigError, match="has no tokenizer, so it can't read text; convert the checkpoint with one"):
        read_ids([text], load(silent, threads=1))


def test_a_file_that_is_not_utf8(model: Model, text: Path, tmp_path: Path) -> None:
    """It is named, among others, with the place where it fails."""
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"the text at .*latin\.txt is not UTF-8 \(.* position 3: .*\); convert it, for inst"):
        read_ids([text, tmp_path / "latin.txt"], model)
    (tmp_path / "wide.txt").write_text("the sea", encoding="utf-16")
    with pytest.raises(ConfigError, match=r"wide\.txt is UTF-16, expected UTF-8; convert it: iconv -f UTF-16 -t UTF-8"):
        read_ids(tmp_path / "wide.txt", model)


def test_text_is_the_same_wherever_it_was_saved(nested: Specimen, tmp_path: Path) -> None:
    """Line ends of any platform and a byte order mark do not change what a tokenizer gets, nor the bytes that count."""
    content = "the cat\n\nsat on the mat\n"
    path = Path(shutil.copytree(nested.bundle.path, tmp_path / "b"))
    train_tokenizer([content * 9], 300).save(str(path / "tokenizer.json"))
    model = load(Bundle(path, msgspec.structs.replace(nested.bundle.manifest, tokenizer="tokenizer.json")), threads=1)
    plain = content.encode()
    forms = (plain, plain.replace(b"\n", b"\r\n"), plain.replace(b"\n", b"\r"), b"\xef\xbb\xbf" + plain)
    for index, data in enumerate(forms):
        (tmp_path / f"{index}.txt").write_bytes(data)
    first, *others = (read_ids(tmp_path / f"{index}.txt", model) for index in range(len(forms)))
    assert first.bytes == len(plain)
    for other in others:
        assert (other.ids.tolist(), other.bytes) == (first.ids.tolist(), first.bytes)


def test_a_model_of_bytes_reads_a_file_as_it_is(model: Model, tmp_path: Path) -> None:
    """Its ids are the file's bytes, line ends and byte order mark included."""
    data = b"\xef\xbb\xbfX:1\r\nK:C\r|:a:|\n"
    (tmp_path / "t.txt").write_bytes(data)
    read = read_ids(tmp_path / "t.txt", model)
    assert (bytes(read.ids.tolist()), read.bytes) == (data, len(data))


def test_one_text_is_a_list_of_one(model: Model, tmp_path: Path) -> None:
    """A path as text or not, an array, and a list of numbers."""
    (tmp_path / "t.txt").write_text("abc")
    for alone in (tmp_path / "t.txt", str(tmp_path / "t.txt"), np.frombuffer(b"abc", np.uint8), [97, 98, 99]):
        read = read_ids(alone, model)
        assert (read.ids.tolist(), read.bytes) == ([97, 98, 99], 3)
    with pytest.raises(ConfigError, match="got dict as a text, expected the path of a file, or an array of ids"):
        read_ids([{}], model)  # type: ignore[list-item]


def test_ids_need_no_tokenizer(nested: Specimen, tmp_path: Path) -> None:
    """Files of them, by their endings; how many bytes they stand for is then not known."""
    ids = [256, 17, 3, 299]
    silent = load(Bundle(nested.bundle.path, msgspec.structs.replace(nested.bundle.manifest, tokenizer=None)), threads=1)
    np.save(tmp_path / "a.npy", np.asarray(ids, np.uint32))
    np.asarray(ids, "<u2").tofile(tmp_path / "b.bin")
    np.asarray(ids, "<i8").tofile(tmp_path / "c.int64.bin")
    (tmp_path / "d.ids").write_text("[256, 17\n3 299]")
    (tmp_path / "e.ids").write_text("\ufeff256 17 3 299", encoding="utf-8")  # as some editors save it
    for name in ("a.npy", "b.bin", "c.int64.bin", "d.ids", "e.ids"):
        read = read_ids(tmp_path / name, silent)
        assert (read.ids.tolist(), read.bytes) == (ids, None)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (np.asarray([0.5]), "the ids have dtype float64, expected integers"),
        (np.asarray([[1, 2]]), r"the ids have shape \[1, 2\], expected one sequence"),
        (np.asarray([-1]), "the ids hold -1, which is outside the vocabulary; expected 0 <= id < 300"),
        ("odd.bin", "odd.bin has 3 bytes, which are no whole number of uint16; say what it holds in its name"),
        ("x.float32.bin", "x.float32.bin holds float32 by its name, expected one of uint8, uint16,"),
        ("words.ids", 'words.ids: "one" is no id; expected whole numbers'),
        ("broken.npy", "broken.npy can't be read as ids"),
        ("none.npy", "none.npy can't be read as ids: .*No such file"),
    ],
)
def test_what_is_no_ids(model: Model, tmp_path: Path, given: object, reason: str) -> None:
    """Each in one line."""
    (tmp_path / "odd.bin").write_bytes(b"abc")
    (tmp_path / "words.ids").write_text("one two")
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match=reason) as caught:
        read_ids([tmp_path / given if isinstance(given, str) else given], model)  # type: ignore[list-item]
    assert "\n" not in str(caught.value)


def test_a_tokenizer_that_loses_characters(deaf: Model, tmp_path: Path) -> None:
    """A warning shows the first line that suffers, before and after; bytes are those that were given."""
    (tmp_path / "t.txt").write_text("the sea\nthe rope\nthe river\n")
    reason = (
        r"does not give back all of the text: 'the rope\\n' comes back as 'the ope\\n'; figures are per byte of the text as it"
    )
    with pytest.warns(FovealWarning, match=reason):
        read = read_ids([tmp_path / "t.txt"], deaf)
    assert (len(read.ids), read.bytes, read.lost) == (24, 27, "'the rope\\n' comes back as 'the ope\\n'")
    (tmp_path / "t.txt").write_text("the sea\n")
    assert len(read_ids([tmp_path / "t.txt"], deaf).ids) == 8


def test_a_tokenizer_that_hears_nothing(deaf: Model, tmp_path: Path) -> None:
    """There is nothing to measure."""
    (tmp_path / "t.txt").write_text("rrr")
    with pytest.raises(InputError, match=r"the tokenizer gives no ids for .*t\.txt; is it the model's\?"):
        read_ids(tmp_path / "t.txt", deaf)


def test_a_tokenizer_of_another_model(model: Model, nested: Specimen, tmp_path: Path) -> None:
    """It knows more tokens than the model."""
    (tmp_path / "t.txt").write_text("é")
    info = msgspec.structs.replace(nested.bundle.manifest.model, vocab_size=128)
    small = load(Bundle(nested.bundle.path, msgspec.structs.replace(nested.bundle.manifest, model=info)), threads=1)
    with pytest.raises(InputError, match="the tokenizer gives id 195, the model knows 128 tokens; this is not the model's"):
        read_ids([tmp_path / "t.txt"], small)


@given(st.integers(0, 60), st.integers(2, 12))
def test_windows_cover_the_text(tokens: int, length: int) -> None:
    """All of it but a single last token, which would predict nothing."""
    ids = np.arange(tokens)
    found = list(windows(ids, length))
    assert all(1 < len(window) <= length for window in found)
    assert all(len(window) == length for window in found[:-1])
    whole = tokens - (tokens % length == 1)
    np.testing.assert_array_equal(np.concatenate([ids[:0], *found]), ids[:whole])


def test_some_windows_are_spread_over_the_text() -> None:
    """First and last among them; all where there are no more than asked for."""
    ids = np.arange(100)
    assert [window[0] for window in spread(ids, 10, 4)] == [0, 30, 60, 90]
    assert [window[0] for window in spread(ids, 10, 1)] == [0]
    for limit in (None, 10, 11):
        assert len(spread(ids, 10, limit)) == 10
    with pytest.raises(ConfigError, match="the limit is 0 windows, expected at least 1, or None for all"):
        spread(ids, 10, 0)
