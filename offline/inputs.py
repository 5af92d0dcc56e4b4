"""Files of prompts, a prompt a line, and the parts that they are worked through in."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..errors import ConfigError
from ..storage import storage_errors

ENDINGS = (".txt", ".jsonl")
"""A prompt a line, and an object a line."""


class InputFile(msgspec.Struct, frozen=True):
    """As it was when the job began: a job that goes on works on the same bytes.

    Attributes:
        path: absolute.
        size: in bytes.
        sha256: of the bytes.
        lines: how many; what follows the last line end is a line if it is not empty.
    """

    path: str
    size: int
    sha256: str
    lines: int


@dataclass(frozen=True)
class Part:
    """Lines of one file that follow each other: what is done together, and written together.

    Attributes:
        file: number of the file, from 0.
        index: of the part in its file, from 0.
        path: of the file.
        first_line: number of its first line in the file, from 1.
        lines: how many.
        start: of its bytes in the file.
        size: in bytes.
    """

    file: int
    index: int
    path: str
    first_line: int
    lines: int
    start: int
    size: int

    def read(self) -> list[bytes]:
        """Its lines, without their ends.

        Raises:
            StorageError: the file can't be read.
            ConfigError: it is shorter than it was.
        """
        with storage_errors(self.path), open(self.path, "rb") as file:
            file.seek(self.start)
            found = _without_ends(file.read(self.size))
        if len(found) != self.lines:
            raise ConfigError(
                f"{self.path} changed while it was read: lines {self.first_line} to {self.first_line + self.lines - 1} are not "
                "there any more; let inputs be as they are until the job is done"
            )
        return found


def files_of(paths: Sequence[Path]) -> list[Path]:
    """Files, and of directories the `*.txt` and `*.jsonl` in them by name; absolute.

    Raises:
        ConfigError: no file, one of another ending, or one that is named twice.
        StorageError: something that is not there.
    """
    found = [file for path in paths for file in _files_in(path)]
    if not found:
        raise ConfigError("no files of prompts: name files that end in .txt (a prompt a line) or .jsonl, or folders of them")
    for file in found:
        if file.suffix not in ENDINGS:
            raise ConfigError(f"{file} ends in neither of {', '.join(ENDINGS)}: a prompt a line, or an object with one a line")
        if found.count(file) > 1:
            raise ConfigError(f"{file} is named twice; name each file once")
    return found


def _files_in(path: Path) -> list[Path]:
    with storage_errors(path):
        path = Path(os.path.realpath(path))
        if path.is_dir():
            return sorted(one for one in path.iterdir() if one.suffix in ENDINGS and one.is_file())
        path.stat()
        return [path]


def scan(number: int, path: Path, part_lines: int) -> tuple[InputFile, list[Part]]:
    """Look through a file once: what it is, and its parts of `part_lines` lines each, the last of what is left.

    Raises:
        StorageError: it can't be read.
    """
    digest, parts, lines, size = hashlib.sha256(), list[Part](), 0, 0
    with storage_errors(path), path.open("rb") as file:
        for count, part_size in _groups(_hashed(file, digest), part_lines):
            parts.append(Part(number, len(parts), str(path), lines + 1, count, size, part_size))
            lines, size = lines + count, size + part_size
    return InputFile(str(path), size, digest.hexdigest(), lines), parts


def _hashed(lines: Iterator[bytes], digest: hashlib._Hash) -> Iterator[int]:
    """The size of each line, its end counted."""
    for line in lines:
        digest.update(line)
        yield len(line)


def _groups(sizes: Iterator[int], most: int) -> Iterator[tuple[int, int]]:
    """How many lines, and how many bytes, are in each group of `most`."""
    count, total = 0, 0
    for size in sizes:
        count, total = count + 1, total + size
        if count == most:
            yield count, total
            count, total = 0, 0
    if count:
        yield count, total


def _without_ends(data: bytes) -> list[bytes]:
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix(b"\r") for line in lines]
