"""The original as each system reads it: converted once by the peer's own program."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from ...errors import BuildError
from ...files import sha256_of, write_atomically
from .environments import reason_of
from .peers import PROGRAMS, System


def prepared(system: System, python: Path, versions: dict[str, str], original: Path, directory: Path) -> Path:
    """The folder of what a system loads; made anew where weights, the program or a version is another.

    Raises:
        BuildError: the program fails.
    """
    place = directory / "models" / system.name
    key, done = _key(system, versions, original), place / "made-of"
    if done.exists() and done.read_text() == key:
        return place
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    command = [str(python), str(system.peer.program), "prepare", str(original), str(place), system.precision]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        reason = reason_of(ran.stderr, ran.returncode)
        raise BuildError(f"{system.name} could not be converted from {original}: {reason}; to see all: {' '.join(command)}")
    write_atomically(done, key.encode())
    return place


def _key(system: System, versions: dict[str, str], original: Path) -> str:
    files = [original / "model.safetensors", system.peer.program, PROGRAMS / "original_weights.py"]
    parts = [f"{name} {version}" for name, version in sorted(versions.items())] + [sha256_of(file) for file in files]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
