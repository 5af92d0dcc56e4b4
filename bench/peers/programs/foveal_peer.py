"""foveal: whichever one the interpreter has that runs this, so that another commit can take part beside this one."""

from __future__ import annotations

import hashlib
from importlib import import_module
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from line_protocol import Decoder, Logits, run

CALIBRATION_TOKENS = 16_384  # random weights do not deserve more
SOURCES = (
    "*.py",
    *(f"{part}/**/*.py" for part in ("calibration", "contract", "export", "models", "runtime")),
    "native/**/*.[ch]*",
)
"""What a bundle and its speed depend on."""


class Foveal:
    """CPU engines; the caches of int8, w8 and w4 are int8, as its plans have them."""

    def __init__(self) -> None:
        self.library = import_module(
            "foveal"
        )  # by name: its own modules import each other relatively, and this is none of them

    def versions(self) -> dict[str, str]:
        """With a digest of its sources: a commit may convert otherwise than the one before it."""
        own = {"foveal": f"{self.library.__version__} {self._sources()}"}
        return own | {name: version(name) for name in ("onnxruntime", "foveal-native") if is_installed(name)}

    def prepare(self, original: Path, out: Path, precision: str) -> None:
        """A bundle; ranges, of int8 and of caches in 8 bits, from the text that comes with foveal."""
        text = self._root() / "models/checkpoints/text/calibration.txt"
        settings = self.library.CalibrationSettings(max_tokens=CALIBRATION_TOKENS)
        given = {} if precision == "fp32" else {"calibration": [text], "settings": settings}
        self.library.convert(original, out / "bundle", precision=precision, tokenizer="bytes", **given)

    def load(self, path: Path, threads: int, sequences: int, capacity: int) -> Decoder:
        """A session, or a batch of many."""
        model = self.library.load(path / "bundle", threads=threads)
        return One(model, capacity) if sequences == 1 else Many(model, sequences, capacity)

    def _root(self) -> Path:
        return Path(str(self.library.__file__)).resolve().parent

    def _sources(self) -> str:
        digest = hashlib.sha256()
        for pattern in SOURCES:
            for file in sorted(self._root().glob(pattern)):
                digest.update(file.read_bytes())
        return digest.hexdigest()[:12]


def is_installed(name: str) -> bool:
    """Whether the interpreter has a distribution."""
    return any(found.metadata["Name"] == name for found in distributions(name=name))


class One:
    """A session."""

    def __init__(self, model: Any, capacity: int) -> None:
        self.session = model.session(capacity=capacity)

    def reset(self) -> None:
        """Position 0."""
        self.session.reset()

    def append(self, tokens: npt.NDArray[np.int64]) -> Logits:
        """In one call, of any length."""
        logits: Logits = self.session.advance(tokens, last_only=True)[:, -1]
        return logits


class Many:
    """A batch whose sequences begin together; each has a position of its own, which here are all the same."""

    def __init__(self, model: Any, sequences: int, capacity: int) -> None:
        self.batch = model.batch(sequences, capacity, "aligned", prefill_seconds=60)
        self.sequences: list[Any] = []

    def reset(self) -> None:
        """All sequences leave."""
        for sequence in self.sequences:
            self.batch.leave(sequence)
        self.sequences = []

    def append(self, tokens: npt.NDArray[np.int64]) -> Logits:
        """Prompts join, and the batch steps until all have logits; single tokens are one step."""
        if not self.sequences:
            self.sequences = [self.batch.join(prompt) for prompt in tokens]
            found = self.batch.step()
            while len(found) < len(self.sequences):
                found = self.batch.step({sequence: int(row.argmax()) for sequence, row in found.items()})
        else:
            found = self.batch.step(dict(zip(self.sequences, tokens[:, 0].tolist(), strict=True)))
        return np.stack([found[sequence] for sequence in self.sequences])


if __name__ == "__main__":
    run(Foveal())
