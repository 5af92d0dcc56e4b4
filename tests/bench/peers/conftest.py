"""A folder in which the original is there already."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foveal.bench.peers.original import PROMPT, REFERENCE, STEPS


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """Its original: weights that nobody reads, and answers."""
    original = tmp_path / "original" / "12@1"
    original.mkdir(parents=True)
    (original / "model.safetensors").write_bytes(b"weights")
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(1 + STEPS, 8)).astype(np.float32)
    np.savez(original / REFERENCE, ids=rng.integers(0, 8, PROMPT + STEPS), logits=logits)
    return tmp_path
