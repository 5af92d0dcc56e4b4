"""Files are cut into parts of whole lines, whatever their ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.errors import ConfigError, StorageError
from foveal.offline.inputs import files_of, scan


@given(
    lines=st.lists(st.binary(max_size=6).filter(lambda line: b"\n" not in line and not line.endswith(b"\r")), max_size=9),
    has_end=st.booleans(),
    end=st.sampled_from([b"\n", b"\r\n"]),
    part_lines=st.integers(1, 4),
)
def test_parts_are_the_lines_of_the_file(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], has_end: bool, end: bytes, part_lines: int
) -> None:
    """In order, each once; the last line may have no end."""
    path = tmp_path_factory.mktemp("in") / "a.txt"
    if lines and not lines[-1]:
        has_end = True  # nothing after the last end is no line
    path.write_bytes(end.join(lines) + (end if has_end and lines else b""))
    file, parts = scan(0, path, part_lines)
    assert [line for part in parts for line in part.read()] == lines
    assert file.lines == len(lines) == sum(part.lines for part in parts)
    assert [part.first_line for part in parts] == list(range(1, len(lines) + 1, part_lines))


def test_a_file_that_became_shorter_is_noticed(tmp_path: Path) -> None:
    """It is not read as if lines were empty."""
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\n")
    _, parts = scan(0, tmp_path / "a.txt", 2)
    (tmp_path / "a.txt").write_text("one\n")
    with pytest.raises(ConfigError, match="lines 3 to 3 are not there any more"):
        parts[1].read()


def test_folders_are_their_files_of_prompts(tmp_path: Path) -> None:
    """By name, without what is of other kinds."""
    for name in ("b.txt", "a.jsonl", "notes.md"):
        (tmp_path / name).touch()
    assert [path.name for path in files_of([tmp_path])] == ["a.jsonl", "b.txt"]


def test_files_that_can_not_be_are_refused(tmp_path: Path) -> None:
    """Before anything is done."""
    (tmp_path / "notes.md").touch()
    (tmp_path / "a.txt").touch()
    (tmp_path / "none").mkdir()
    for paths, reason in (
        ([tmp_path / "notes.md"], "ends in neither of"),
        ([tmp_path / "a.txt", tmp_path / "none" / ".." / "a.txt"], "is named twice"),
        ([tmp_path / "none"], "no files of prompts"),
    ):
        with pytest.raises(ConfigError, match=reason):
            files_of(paths)
    with pytest.raises(StorageError, match="No such file"):
        files_of([tmp_path / "other.txt"])
