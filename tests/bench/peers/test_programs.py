"""What the programs make of the original: the same model under other names, and foveal's own end of the lines."""

from __future__ import annotations

import sys
from importlib import import_module
from math import erf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foveal.bench.peers import original, peers
from foveal.bench.peers.peers import PROGRAMS, foveal, systems_of
from foveal.bench.peers.result import Work
from foveal.bench.peers.run import agree, get_ready, measure
from foveal.bench.random_models import RandomModels
from foveal.progress import silent

SMALL = RandomModels(dim=16, heads=2, ff_dim=24, vocab_size=256, context=original.PROMPT + original.STEPS)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same architecture."""
    monkeypatch.setattr(original, "SIZES", SMALL)


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module that peers' programs have beside them."""
    monkeypatch.syspath_prepend(str(PROGRAMS))
    return import_module("original_weights")


def norm(x: np.ndarray, affine: Any, epsilon: float) -> np.ndarray:
    """A layer norm."""
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * affine.weight + affine.bias


def forward(model: Any, ids: np.ndarray) -> np.ndarray:
    """Logits `[L, V]` of ids `[L]`, as `Layer` and `Vanilla` say it in words."""
    length, heads = len(ids), model.heads
    seen = np.tril(np.ones((length, length), bool))
    x = model.tokens[ids] + model.positions[:length]
    for layer in model.layers:
        rows = norm(x, layer.norm, model.epsilon) @ layer.qkv.T
        query, key, value = rows.reshape(length, 3, heads, -1).transpose(1, 2, 0, 3)
        scores = np.where(seen, query @ key.transpose(0, 2, 1) / np.sqrt(model.dim // heads), -np.inf)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        attended = (shares / shares.sum(-1, keepdims=True) @ value).transpose(1, 0, 2).reshape(length, -1)
        x = x + attended @ layer.out.weight.T + layer.out.bias
        up = norm(x, layer.second_norm, model.epsilon) @ layer.up.weight.T + layer.up.bias
        x = x + up * (1 + np.vectorize(erf)(up / np.sqrt(2))) / 2 @ layer.down.weight.T + layer.down.bias
    return norm(x, model.norm, model.epsilon) @ model.tokens.T


@pytest.mark.usefixtures("small")
def test_peers_read_the_model_that_pytorch_runs(weights: Any, tmp_path: Path) -> None:
    """Every weight in its place: a forward of what they read gives the reference's logits."""
    place = original.write_original("2@1", tmp_path)
    with np.load(place / original.REFERENCE) as reference:
        logits = forward(weights.read_vanilla(place), reference["ids"])
        np.testing.assert_allclose(logits[original.PROMPT - 1 :], reference["logits"], atol=1e-5)


@pytest.mark.usefixtures("small")
def test_only_vanilla_models_are_read(weights: Any, tmp_path: Path) -> None:
    """Of an Hourglass nothing is left out silently."""
    place = original.write_original("1@1 1@2 1@1", tmp_path)
    with pytest.raises(ValueError, match="expected a vanilla model, as 12@1, got 1@1 1@2 1@1"):
        weights.read_vanilla(place)


@pytest.mark.usefixtures("small")
def test_the_original_is_written_once(tmp_path: Path) -> None:
    """The same weights in each folder, and one that is there is left alone."""
    place = original.write_original("1@1", tmp_path)
    again = original.write_original("1@1", tmp_path / "again")
    assert (place / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()
    (place / "model.safetensors").write_bytes(b"kept")
    assert (original.write_original("1@1", tmp_path) / "model.safetensors").read_bytes() == b"kept"


@pytest.mark.usefixtures("small")
def test_foveal_takes_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the logits of PyTorch, alone and in a batch."""
    monkeypatch.setattr(peers, "HOURGLASS", "1@1 1@2 1@1")
    monkeypatch.setattr(peers, "VANILLA", "1@1")
    systems = systems_of([foveal("foveal", Path(sys.executable))], ["1@1 1@2 1@1 fp32"])
    ready, skipped = get_ready(systems, tmp_path, silent)
    assert skipped == {}
    assert agree(ready, tmp_path, 1)[0] < 1e-4
    for sequences in (1, 3):
        work = Work(sequences=sequences, prompt_tokens=20, new_tokens=5, threads=1, rounds=1)
        (found,) = measure(ready, work, tmp_path, None, silent)
        assert [len(timed.step_s) for timed in found.rounds] == [5]
