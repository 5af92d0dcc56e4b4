"""The native library as the tree has it: built once for a state of its sources, a copy loaded for each instruction set."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from foveal.runtime.engines.native_library import NativeLibrary

NATIVE = Path(__file__).resolve().parent.parent / "native"
NAME = "libfoveal_native.so"
ISAS = ("neon", "plain") if platform.machine() in ("aarch64", "arm64") else ("avx512", "avxvnni", "avx2", "plain")


def built_library() -> Path:
    """Of what is in native/src now; skips where there is no compiler."""
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("no C++ compiler here: the native library can't be built")
    sources = [*sorted((NATIVE / "src").glob("*")), NATIVE / "setup.py"]
    state = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    target = NATIVE / "build" / state / NAME
    target.parent.parent.mkdir(exist_ok=True)
    with open(target.parent.parent / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not target.exists():
            _build(target)
    return target


def _build(target: Path) -> None:
    scratch = target.parent.with_suffix(".tmp")
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(scratch), "--build-temp", str(scratch)]
    done = subprocess.run(command, cwd=NATIVE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr, done.stderr
    target.parent.mkdir(exist_ok=True)
    os.replace(scratch / "foveal_native" / NAME, target)
    shutil.rmtree(scratch)


def library_for(isa: str, directory: Path) -> NativeLibrary:
    """A library that computes with these instructions, or with the best if none are named; skips where the machine has none."""
    path = Path(shutil.copy(built_library(), directory / f"native-{isa}.so"))  # of each copy the first use decides
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOVEAL_NATIVE_ISA", isa)
        library = NativeLibrary(path)
    if isa and library.isa != isa:
        pytest.skip(f"this {platform.machine()} has no {isa}")
    return library
