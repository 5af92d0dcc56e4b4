"""Small random models, and the bundles made of them, that the tests share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from store import Store

from foveal.bundle import Bundle, open_bundle
from foveal.export import convert, convert_model
from foveal.models.architectures import OwnModel, build_model
from foveal.models.config import ModelConfig

GOLDEN = Path(__file__).parent / "golden"
GOLDENS = sorted(path.name for path in GOLDEN.iterdir())


def random_model(hierarchy: str, seed: int = 0, **choices: Any) -> OwnModel:
    """A small model none of whose weights is zero or one, so that no term can vanish unnoticed."""
    sizes = {"vocab_size": 41, "dim": 24, "heads": 3, "head_dim": 8, "ff_dim": 32, "max_positions": 96}
    torch.manual_seed(seed)
    model = build_model(ModelConfig(hierarchy=hierarchy, **{**sizes, **choices})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    return model


def random_ids(batch: int, length: int, vocab_size: int = 41, seed: int = 0) -> np.ndarray:
    """Token ids `[batch, length]`."""
    return np.random.default_rng(seed).integers(0, vocab_size, (batch, length))


def full_forward(model: OwnModel, ids: np.ndarray) -> np.ndarray:
    """Logits of the whole sequence at once."""
    with torch.no_grad():
        return model(torch.from_numpy(ids)).numpy()


@dataclass(frozen=True)
class Specimen:
    """A model and the bundle it was converted to."""

    model: OwnModel
    bundle: Bundle


# Between them: every way of resampling, both kinds of positions, factors 2, 3, 4, 5 and 16, nesting, empty stacks, heads whose
# width the CPU kernel must pad, a vanilla model, and one that goes from coarse to fine.
ZOO: dict[str, tuple[str, dict[str, Any]]] = {
    "nested": ("2@1 1@2 2@8 1@2 2@1", {}),
    "linear": ("1@1 2@5 1@1", {"shortening": "linear", "upsampling": "linear", "positions": "rotary"}),
    "attention": ("1@1 2@3 1@1", {"shortening": "attention", "upsampling": "attention", "head_dim": 10}),
    "empty stacks": (
        "0@1 1@2 0@4 1@2 0@1",
        {"shortening": "linear+attention", "upsampling": "linear+attention", "positions": "rotary", "head_dim": 12},
    ),
    "wide": ("1@1 1@16 1@1", {"upsampling": "linear", "tie_embeddings": False, "head_bias": True}),
    "vanilla": ("3@1", {}),
    "top-down": ("1@8 1@4 2@1", {"architecture": "top-down"}),
}


class Zoo:
    """Converts each specimen once in a run, when it is first asked for: an export takes seconds."""

    def __init__(self, store: Store) -> None:
        self._store, self._found = store, {}  # type: Store, dict[str, Specimen]

    def __getitem__(self, name: str) -> Specimen:
        if name not in self._found:
            hierarchy, choices = ZOO[name]
            model = random_model(hierarchy, **choices)
            made = self._store.once(f"zoo/{name}", lambda directory: convert_model(model, directory / name.replace(" ", "_")))
            self._found[name] = Specimen(model, open_bundle(made / name.replace(" ", "_")))
        return self._found[name]


class Goldens:
    """Converts each golden checkpoint once in a run; its ids are bytes."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getitem__(self, name: str) -> Bundle:
        made = self._store.once(f"golden/{name}", lambda directory: convert(GOLDEN / name, directory / "b", tokenizer="bytes"))
        return open_bundle(made / "b")
