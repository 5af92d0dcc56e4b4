"""Dockerfiles as lists of instructions, and what `.dockerignore` lets through: as much of both as deploy/ uses."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
DOCKERFILES = sorted(DEPLOY.glob("Dockerfile.*"))


class Instruction(NamedTuple):
    """One instruction: its word in capitals, its flags, and the rest of its lines as one."""

    word: str
    flags: dict[str, str]
    rest: str


def instructions(dockerfile: Path) -> list[Instruction]:
    """All of a Dockerfile; comments and the breaks of long lines are gone."""
    lines = [line for line in dockerfile.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    found = []
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        word, rest = line.split(maxsplit=1)
        flags = {}
        while (flag := re.match(r"--([a-z-]+)=(\S+)\s+", rest)) is not None:
            flags[flag[1]], rest = flag[2], rest[flag.end() :]
        found.append(Instruction(word, flags, rest))
    return found


def expanded(text: str, values: dict[str, str]) -> str:
    """With `$NAME` and `${NAME}` replaced, as Docker does in all instructions but RUN and CMD."""
    return re.sub(r"\$\{?([A-Z_]+)\}?", lambda match: values.get(match[1], ""), text)


def pairs(rest: str) -> dict[str, str]:
    """Of ARG, ENV and LABEL."""
    return dict(part.split("=", 1) if "=" in part else (part, "") for part in shlex.split(rest))


def context_files() -> Iterator[PurePosixPath]:
    """What `COPY . .` copies: the checkout's files that its .dockerignore lets through, by path in the checkout."""
    rules = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    patterns = [(line[0] != "!", _pattern(line.lstrip("!"))) for line in rules]
    for path in sorted(_walk(ROOT)):
        name = path.relative_to(ROOT).as_posix()
        excluded = [excludes for excludes, pattern in patterns if pattern.match(name)]
        if not (excluded and excluded[-1]):
            yield PurePosixPath(name)


def _walk(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path) if path.name[0] != "." else ()
        else:
            yield path


def _pattern(rule: str) -> re.Pattern[str]:
    """A rule matches a path, and all that is below what it matches."""
    words = {"**/": "(.*/)?", "*": "[^/]*"}
    parts = re.split(r"(\*\*/|\*)", rule)
    return re.compile("".join(words.get(part, re.escape(part)) for part in parts) + "(/.*)?$")
