"""Writing files whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest

from foveal import StorageError
from foveal.files import require_place, write_atomically


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """The new content is there and nothing else is left."""
    write_atomically(tmp_path / "a" / "f", b"old")
    write_atomically(tmp_path / "a" / "f", b"new")
    assert (tmp_path / "a" / "f").read_bytes() == b"new"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["f"]


@pytest.mark.parametrize("call", ["tempfile.mkstemp", "tempfile.TemporaryFile", "os.replace"])
def test_an_error_names_the_file_that_was_asked_for(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the temporary one beside it, through a link too; and nothing is left."""
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    path = tmp_path / "link" / "f.json"

    def refuse(*_: object, **__: object) -> None:
        temporary = str(tmp_path / "there" / "tmp12345")
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), temporary, None, str(path) if call == "os.replace" else None)

    monkeypatch.setattr(*((tempfile, call[9:]) if call.startswith("tempfile") else (os, "replace")), refuse)
    with pytest.raises(StorageError) as caught:
        require_place(path) if call.endswith("TemporaryFile") else write_atomically(path, b"x")
    assert str(caught.value) == f"{path}: No such file or directory; check the path"
    assert list((tmp_path / "there").iterdir()) == []


def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    """As it is the folder that is in the way, not the file."""
    (tmp_path / "a").write_text("a file")
    for act in (require_place, lambda path: write_atomically(path, b"x")):
        with pytest.raises(StorageError, match=f"^{tmp_path / 'a'}: "):
            act(tmp_path / "a" / "f")
