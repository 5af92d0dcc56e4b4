"""Writing files whole or not at all."""

from __future__ import annotations

from pathlib import Path

from foveal.files import write_atomically


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """The new content is there and nothing else is left."""
    write_atomically(tmp_path / "a" / "f", b"old")
    write_atomically(tmp_path / "a" / "f", b"new")
    assert (tmp_path / "a" / "f").read_bytes() == b"new"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["f"]
