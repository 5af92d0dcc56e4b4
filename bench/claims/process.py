"""What a process of its own holds while it loads a bundle and reads a text: Linux only."""

from __future__ import annotations

import ctypes
import itertools
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np

METHOD = (
    "a fresh process: VmRSS once the model is loaded and freed memory is given back, then VmHWM from there on, "
    "while it reads the tokens in chunks and decodes the last of them"
)
DECODED = 16


class ProcessMemory(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes: before the model was loaded (interpreter and libraries), once it was, and the most from there on."""

    before: int
    loaded: int
    peak: int


def measure_process(
    bundle: Path, target: str, threads: int, tokens: int, chunk: int, native: bool | None = None
) -> tuple[ProcessMemory | None, str | None]:
    """The memory of a fresh process that reads so many tokens; or None, and why there is none. `native`: as `load` takes it."""
    code = "import sys; from foveal.bench.claims.process import print_memory; print_memory(*sys.argv[1:])"
    steps = {None: "", True: "yes", False: "no"}[native]
    arguments = [str(bundle), target, *map(str, (threads, tokens, chunk)), steps]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        return None, said[-1] if said else f"the process ended with {done.returncode}"
    return msgspec.json.decode(done.stdout, type=ProcessMemory), None


def print_memory(bundle: str, target: str, threads: str, tokens: str, chunk: str, native: str = "") -> None:
    """The body of the process that `measure_process` starts."""
    from ...runtime.engines.onnxruntime_library import import_onnxruntime
    from ...runtime.model import load

    import_onnxruntime()
    before = _status("VmRSS")
    model = load(bundle, target, int(threads), overlap=False, native={"yes": True, "no": False}.get(native))
    _give_back()
    loaded = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again
    with model.session(capacity=int(tokens)) as session:
        ids = np.random.default_rng(0).integers(0, session.model.vocab_size, (1, int(tokens)))
        for start, end in itertools.pairwise(_ends(int(tokens), int(chunk))):
            session.advance(ids[:, start:end], last_only=True)
        peak = _status("VmHWM")
    print(msgspec.json.encode(ProcessMemory(before=before, loaded=loaded, peak=peak)).decode())


def _ends(tokens: int, chunk: int) -> list[int]:
    """Where calls begin and end: chunks, and then single tokens."""
    prompt = max(tokens - DECODED, 1)
    return [*range(0, prompt, chunk), *range(prompt, tokens + 1)]


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def _give_back() -> None:
    """Let the C library return what it holds free, so that it is not counted as the model's. glibc's alone can be asked."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
