"""Vanilla checkpoints of x-transformers: the package's own logits, and what can't be read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from torch_sessions import logits_of

import foveal
from foveal import CheckpointError
from foveal.models.readers.loading import load_model

GOLDEN = Path(__file__).parents[2] / "golden_families"
NAMES = ("x_transformers", "x_transformers_tied")
TOLERANCE = 1e-5


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A golden to damage."""
    return Path(shutil.copytree(GOLDEN / NAMES[0], tmp_path / "c"))


def change_kwargs(checkpoint: Path, **changes: Any) -> None:
    """Edit the arguments in config.json; those of the decoder under `attn_layers`."""
    path = checkpoint / "config.json"
    config = json.loads(path.read_text())
    config["kwargs"]["attn_layers"].update(changes.pop("attn_layers", {}))
    config["kwargs"].update(changes)
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_the_package(name: str) -> None:
    """At every position, with a head of its own and with the token table."""
    loaded, stored = load_model(GOLDEN / name), np.load(GOLDEN / name / "io.npz")
    assert loaded.source_format == "x-transformers"
    np.testing.assert_allclose(logits_of(loaded.model, stored["ids"]), stored["logits"], atol=TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_an_engine_gives_the_logits_of_the_package(name: str, tmp_path: Path) -> None:
    """Converted, token by token after a chunk."""
    stored = np.load(GOLDEN / name / "io.npz")
    bundle = foveal.convert(GOLDEN / name, tmp_path / "b")
    session, ids = foveal.load(bundle.path).session(2), stored["ids"]
    parts = [session.advance(part) for part in (ids[:, :7], *np.split(ids[:, 7:], ids.shape[1] - 7, 1))]
    np.testing.assert_allclose(np.concatenate(parts, 1), stored["logits"], atol=TOLERANCE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attn_layers": {"rotary_pos_emb": True}}, "unknown field `rotary_pos_emb`.*attn_layers"),
        ({"attn_layers": {"class": "Encoder"}}, "Invalid value 'Encoder'"),
        ({"num_memory_tokens": 4}, "unknown field `num_memory_tokens`"),
        ({"use_abs_pos_emb": False}, "Invalid enum value False"),
    ],
)
def test_other_options_are_refused(checkpoint: Path, changes: dict[str, Any], message: str) -> None:
    """The message says what can be read."""
    change_kwargs(checkpoint, **changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(checkpoint)
    assert "what can be read is a plain Decoder with learned positions: num_tokens, max_seq_len" in str(caught.value)


def test_every_wrong_tensor_is_named(checkpoint: Path) -> None:
    """By the package's names, not ours."""
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    del tensors["attn_layers.final_norm.gamma"]
    tensors["attn_layers.layers.1.0.0.beta"] = tensors["attn_layers.layers.1.0.0.gamma"].clone()
    tensors["attn_layers.layers.2.1.to_k.weight"] = tensors["attn_layers.layers.2.1.to_k.weight"][:3].clone()
    save_file(tensors, path)
    with pytest.raises(CheckpointError) as caught:
        load_model(checkpoint)
    for part in (
        "missing attn_layers.final_norm.gamma",
        "extra attn_layers.layers.1.0.0.beta",
        "attn_layers.layers.2.1.to_k.weight has shape (3, 24), expected (128, 24)",
    ):
        assert part in str(caught.value)
