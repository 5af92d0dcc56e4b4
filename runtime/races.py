"""What was measured when a bundle was first loaded on a machine, kept for the next process.

    races/<key>.json    in `files.cache_directory()`: a `_Race`, by the hash of what it was run for

It is of this machine, CPUs that may be used, library and bundle; anything else is measured for itself. Removing the folder has
everything measured again, and so has a week: other work on the machine may have decided the race. What can't be read or kept is
measured each time.
"""

from __future__ import annotations

import hashlib
import logging
import platform
import time
from collections.abc import Callable, Container
from pathlib import Path

import msgspec

from ..bundle import Bundle
from ..files import cache_directory, write_atomically
from ..parallel import usable_cpus

_log = logging.getLogger(__name__)
_LONGEST_BYTES, _LONGEST_SECONDS = 1 << 16, 7 * 24 * 3600
_TELLING = ("model name", "CPU implementer", "CPU part", "CPU revision")
"""Fields of /proc/cpuinfo that tell one kind of core from another, on x86 and on ARM."""


class _Race(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A question, where and of what it was asked, and the answer that was measured."""

    question: str
    cpu: str
    cpus: int
    library: str
    bundle_sha256: str
    answer: int | None = None

    def path(self) -> Path:
        """Where the outcome is kept."""
        key = hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(self, answer=None))).hexdigest()
        return cache_directory() / "races" / f"{key}.json"


def remembered(question: str, bundle: Bundle, library: str, answers: Container[int], race: Callable[[], int]) -> int:
    """The answer that a race had before on this machine for this bundle, else what it has now, which is kept.

    Args:
        question: what is measured.
        bundle: whose engines race.
        library: that runs them, with its version.
        answers: which are possible; a file that holds another is as good as none.
        race: measures.
    """
    asked = _Race(
        question, cpu_model(), usable_cpus(), library, hashlib.sha256(msgspec.json.encode(bundle.manifest)).hexdigest()
    )
    kept = _read(asked)
    if kept is not None and kept in answers:
        _log.info("%s: %d, as measured before; %s", question, kept, asked.path())
        return kept
    answer = int(race())
    _keep(msgspec.structs.replace(asked, answer=answer))
    return answer


def _read(asked: _Race) -> int | None:
    try:
        path = asked.path()
        if not path.is_file() or path.stat().st_size > _LONGEST_BYTES or _age_seconds(path) > _LONGEST_SECONDS:
            return None
        kept = msgspec.json.decode(path.read_bytes(), type=_Race)
    except (OSError, RuntimeError, ValueError):  # a folder that can't be read, no home directory, not what was written
        return None
    return kept.answer if msgspec.structs.replace(kept, answer=None) == asked else None


def _age_seconds(path: Path) -> float:
    return abs(time.time() - path.stat().st_mtime)  # of a clock that was set back too


def _keep(race: _Race) -> None:
    try:
        path = race.path()
        if not path.exists() or path.is_file():  # to write to a pipe would wait for a reader
            write_atomically(path, msgspec.json.encode(race), is_lasting=False)
    except (OSError, RuntimeError) as error:
        _log.info("can't keep what was measured: %s; it is measured again next time", error)


def cpu_model() -> str:
    """What the CPUs call themselves; an ARM one by its parts' numbers."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    fields = (line.partition(":") for line in lines)
    told = dict.fromkeys(f"{name.strip()} {value.strip()}" for name, _, value in fields if name.strip() in _TELLING)
    return ", ".join(told) or platform.processor() or platform.machine()
