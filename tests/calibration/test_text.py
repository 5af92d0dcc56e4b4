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

from foveal import ConfigError, InputError
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


def test_a_tokenizer_that_loses_characters(deaf: Model, tmp_path: Path) -> None:
    """The first line that suffers is shown, before and after; lines it can encode are no matter."""
    (tmp_path / "t.txt").write_text("the sea\nthe rope\nthe river\n")
    reason = r"the tokenizer can't encode the text: 'the rope\\n' comes back as 'the ope\\n'; use the tokenizer the model"
    with pytest.raises(InputError, match=reason):
        read_ids([tmp_path / "t.txt"], deaf)
    (tmp_path / "t.txt").write_text("the sea\n")
    assert len(read_ids([tmp_path / "t.txt"], deaf).ids) == 8


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
