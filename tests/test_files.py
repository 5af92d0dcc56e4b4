"""Writing files whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from foveal.files import new_directory, sha256_of, write_atomically


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """The new content is there and nothing else is left."""
    write_atomically(tmp_path / "a" / "f", b"old")
    write_atomically(tmp_path / "a" / "f", b"new")
    assert (tmp_path / "a" / "f").read_bytes() == b"new"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["f"]


def test_a_failed_directory_leaves_the_old_one(tmp_path: Path) -> None:
    """An error inside the block keeps what was there and removes the rest."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "kept").write_text("kept")
    with pytest.raises(RuntimeError, match="halfway"), new_directory(tmp_path / "d") as directory:
        (directory / "half").write_text("half")
        raise RuntimeError("halfway")
    assert [path.name for path in tmp_path.rglob("*")] == ["d", "kept"]


def test_a_finished_directory_replaces_the_old_one(tmp_path: Path) -> None:
    """Nothing of the old directory stays."""
    for name in ("first", "second"):
        with new_directory(tmp_path / "d") as directory:
            (directory / name).write_text(name)
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["second"]


def test_sha256(tmp_path: Path) -> None:
    """The digest of a known text."""
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256_of(tmp_path / "f").startswith("ba7816bf8f01cfea")
