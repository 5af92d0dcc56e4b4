"""Models that tests of generation continue, and settings that say what is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from specimens import Goldens
from store import Store
from torch_sessions import shake

from foveal import load
from foveal.bundle import open_bundle
from foveal.contract import EndRule
from foveal.export import convert_model
from foveal.models.patch_decoder import PatchDecoder, PatchDecoderConfig
from foveal.runtime.model import Model

PERIOD = 4
RULES = (
    EndRule(name="patch", period=PERIOD, ids=(2,), gives_out=True),
    EndRule(name="piece", period=PERIOD, ids=(1, 2), place=0),
    EndRule(name="file", period=PERIOD, ids=(256,)),
)
"""NotaGen's, and bGPT's under another name."""


@pytest.fixture(scope="session")
def model(goldens: Goldens) -> Model:
    """A golden checkpoint of 256 ids, read as bytes; 128 positions."""
    return load(goldens["s4_naive_attn"], threads=1)


@pytest.fixture(scope="session")
def patches(store: Store) -> Model:
    """A patch decoder of patches of 4 ids, of which the first 256 are bytes; 160 positions."""

    def make(directory: Any) -> None:
        config = PatchDecoderConfig(
            architecture="test",
            patch_size=PERIOD,
            max_patches=40,
            vocab_size=257,
            dim=24,
            heads=3,
            patch_layers=1,
            inner_layers=1,
            end_rules=RULES,
        )
        decoder = PatchDecoder(config)
        shake(decoder, 0)
        convert_model(decoder, directory / "b", tokenizer="bytes")

    return load(open_bundle(store.once("generation/patches", make) / "b"), threads=1)


@pytest.fixture(scope="session")
def written() -> Callable[..., dict[str, Any]]:
    """Settings by which certain ids are drawn, one after the other, behind a sequence of so many."""

    def settings(after: int, ids: Sequence[int], **more: Any) -> dict[str, Any]:
        def hook(seen: np.ndarray, logits: np.ndarray) -> np.ndarray:
            forced = np.full_like(logits, -np.inf)
            forced[ids[len(seen) - after]] = 0
            return forced

        return {"logits_hook": hook, "max_new_tokens": len(ids), "temperature": 0, **more}

    return settings
