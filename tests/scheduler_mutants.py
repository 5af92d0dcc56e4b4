"""Break the scheduler of a batch in small ways, one after the other, and see that the tests notice: `make mutants`.

Each mutant is a file, what stands there once, and what is put in its place. One that no test notices is printed, and the exit
status is 1.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
TESTS = [
    f"tests/runtime/{name}.py" for name in ("batches/test_ranges", "batches/test_phases", "test_clocks", "batches/test_batch")
]


class Mutant(NamedTuple):
    """What is broken: off by one, stale after a rewind, a slot that is reused as it is, and so on."""

    file: str
    old: str
    new: str


MUTANTS = [
    Mutant("batches/host_batch", "begin % spec.stride == 0", "(begin + 1) % spec.stride == 0"),
    Mutant("batches/host_batch", "-(-begin // spec.stride), begin", "begin // spec.stride + 1, begin"),
    Mutant("batches/host_batch", "        self._positions[slots] = positions\n", ""),
    Mutant("batches/host_batch", "        self._positions[slots] += 1\n", ""),
    Mutant("batches/host_batch", "        self._positions[slot] = position + tokens\n", ""),
    Mutant("batches/host_batch", "firsts < stage.firings if", "firsts <= stage.firings if"),
    Mutant("batches/host_batch", "not self._decoder(slot).goes_on(position)", "False"),
    Mutant("batches/host_batch", "self._decoder(slot).ran(stage.spec.name, int(firsts[slot]) + 1)", "pass"),
    Mutant("batches/host_batch", "stage.lead + firsts * spec.output_rows", "firsts * spec.output_rows"),
    Mutant("batches/host_batch", "firsts * given.count - given.shift + given.count", "firsts * given.count + given.count"),
    Mutant(
        "batches/host_batch",
        "clock.see(self._tokens.of(slot), position, position + 1)",
        "clock.see(self._tokens, position, position + 1)",
    ),
    Mutant(
        "host",
        "                array[:, :, : cache.length(fired)] = taken[:, :, : cache.length(fired)]\n",
        "                pass\n",
    ),
    Mutant("host", "            step.end = given.end\n", ""),
    Mutant("batches/host_batch", "        self._positions[slot] = position\n", ""),
    Mutant("batches/ranges", "passable[end:slot].all()", "True"),
    Mutant("batches/ranges", "        end = slot + 1\n", "        end = slot\n"),
    Mutant("batches/ranges", "return spec.page is None and all(keeps is None for keeps in kept)", "return True"),
    Mutant("batches/ranges", "slot - end <= WIDEST_GAP", "True"),
    Mutant("batches/batch", "if self._begins_ahead:", "if False:"),
    Mutant("batches/batch", "sequence.pending[count:]", "sequence.pending[count + 1 :]"),
    Mutant("batches/batch", "            sequence.go_on(len(given[sequence].ids), rows[sequence])\n", ""),
    Mutant("batches/admission", "position - self.steps - self._phases[slot]", "position + self.steps - self._phases[slot]"),
    Mutant("batches/admission", "position - self.steps - self._phases[slot]", "position - self.steps - self._phases[slot] + 1"),
    Mutant(
        "batches/admission", "            self._in_slot[sequence.slot] = None\n        else", "            pass\n        else"
    ),
    Mutant("batches/batch", "        self._tokens.of(forked.slot).write(0, self._ids(sequence))\n", ""),
    Mutant("batches/batch", "        self._tokens.of(restored.slot).write(0, snapshot.tokens)\n", ""),
    Mutant("batches/sequence", "self.rows[:-tokens] if", "self.rows if"),
    Mutant("batches/sequence", "self.reached = self.reached if self.position else 0", "pass"),
    Mutant("batches/phases", "phase += digit * finer", "phase += digit * below"),
    Mutant("batches/phases", "slot * strides[-1] // slots", "slot % strides[-1]"),
    Mutant("batches/phases", "+ step - spec.delay", "+ step"),
    Mutant("clocks", "        start = min(start, self._known)\n", ""),
    Mutant("clocks", "        self._known = 0\n", "        pass\n"),
]


def mutate(copy: Path, mutant: Mutant) -> None:
    """Change the copy; raises ValueError where what is to be replaced does not stand once."""
    file = copy / "runtime" / f"{mutant.file}.py"
    text = file.read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.file}.py holds {mutant.old!r} {text.count(mutant.old)} times, expected once")
    file.write_text(text.replace(mutant.old, mutant.new))


def is_noticed(copy: Path) -> bool:
    """Whether a test fails on what stands there; a run that can't even start does not count."""
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-x", "-p", "no:cacheprovider", *TESTS]
    environment = {**os.environ, "PYTHONPATH": str(copy.parent), "FOVEAL_EXAMPLES": "40"}
    try:
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False, timeout=600)
    except subprocess.TimeoutExpired:  # what never comes to an end is noticed, too
        return True
    if done.returncode not in (0, 1):
        raise RuntimeError(done.stdout + done.stderr)
    return done.returncode == 1


def main(start: int = 1) -> int:
    """Try them, from one on."""
    missed = []
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / "foveal"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".venv", ".git", ".link", "build", "*.bundle", "__pycache__"))
        if is_noticed(copy):
            raise RuntimeError("the tests fail before anything is broken")
        for number, mutant in list(enumerate(MUTANTS, 1))[start - 1 :]:
            original = (copy / "runtime" / f"{mutant.file}.py").read_text()
            mutate(copy, mutant)
            noticed = is_noticed(copy)
            (copy / "runtime" / f"{mutant.file}.py").write_text(original)
            print(
                f"{number}/{len(MUTANTS)} {'noticed' if noticed else 'MISSED'}: {mutant.file}.py, {mutant.new.strip()!r}",
                flush=True,
            )
            missed += [] if noticed else [mutant]
    print(f"{len(missed)} of {len(MUTANTS) - start + 1} mutants missed")
    return len(missed) > 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
