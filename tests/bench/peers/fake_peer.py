"""A peer that needs no library: it answers with the reference's logits, changed as its precision says, and notes its rounds."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[3] / "bench" / "peers" / "programs"))

from line_protocol import Decoder, Logits, run


class Fake:
    """Precisions: `exact`; `near`, as rounded weights are; `other`, another model; `breaks`, which ends in its first round."""

    def versions(self) -> dict[str, str]:
        """Of nothing; `FAKE_MISSING` names a library that can't be imported."""
        if missing := os.environ.get("FAKE_MISSING"):
            raise ImportError(f"No module named '{missing}'")
        return {"fake": os.environ.get("FAKE_VERSION", "1.0")}

    def prepare(self, original: Path, out: Path, precision: str) -> None:
        """Copy the answers."""
        print("libraries print things", flush=True)
        if precision == "unknown":
            raise ValueError("no such precision: unknown")
        shutil.copy(original / "reference.npz", out / "reference.npz")
        (out / "precision").write_text(precision)
        with (out.parent / "conversions").open("a") as note:
            note.write(f"{precision}\n")

    def load(self, path: Path, threads: int, sequences: int, capacity: int) -> Decoder:
        """The answers."""
        print("libraries print things", flush=True)
        return Answers(path, (path / "precision").read_text())


class Answers:
    """Rows of the reference in their order."""

    def __init__(self, path: Path, precision: str) -> None:
        with np.load(path / "reference.npz") as reference:
            self.logits = reference["logits"]
        self.precision, self.notes, self.row = precision, path.parent / "rounds", 0
        noise = np.random.default_rng(0).normal(size=self.logits.shape).astype(np.float32)
        self.logits = {"near": self.logits + 0.05 * noise, "other": noise}.get(precision, self.logits)

    def reset(self) -> None:
        """The first row again."""
        self.row = 0

    def append(self, tokens: np.ndarray) -> Logits:
        """One row of each call, for all sequences."""
        count, length = tokens.shape
        if length > 1:
            with self.notes.open("a") as notes:
                notes.write(f"{self.precision} {length} {os.getpid()}\n")
            if self.precision == "breaks" and length == 24:
                sys.exit("out of fakes")
        self.row += 1
        return np.repeat(self.logits[(self.row - 1) % len(self.logits)][None], count, 0)


if __name__ == "__main__":
    run(Fake())
