"""lucidrains' MEGABYTE checkpoints: the logits that the package itself stored."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch_sessions import logits_of, torch_session

from foveal import CheckpointError, ConfigError
from foveal.models.readers.megabyte import config_from_kwargs, is_megabyte, load_megabyte

GOLDENS = Path(__file__).parents[2] / "golden_families"
NAMES = ["megabyte_16x4", "megabyte_4x3x5_rotary", "megabyte_7x5_learned"]
TOLERANCE = 5e-6


def load(checkpoint: Path) -> torch.nn.Module:
    """The model of a checkpoint directory."""
    return load_megabyte(checkpoint, json.loads((checkpoint / "config.json").read_text()))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A golden checkpoint of our own to damage."""
    return Path(shutil.copytree(GOLDENS / "megabyte_4x3x5_rotary", tmp_path / "c"))


def change_config(checkpoint: Path, **changes: Any) -> None:
    """Edit config.json."""
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_kwargs(checkpoint: Path, **changes: Any) -> None:
    """Edit the constructor's arguments in config.json."""
    change_config(checkpoint, kwargs=json.loads((checkpoint / "config.json").read_text())["kwargs"] | changes)


@pytest.mark.parametrize("name", NAMES)
def test_the_stored_logits(name: str) -> None:
    """Of the whole, at every position."""
    io = np.load(GOLDENS / name / "io.npz")
    np.testing.assert_allclose(logits_of(load(GOLDENS / name), io["ids"].astype(np.int64)), io["logits"], atol=TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("chunk", [1, 7])
def test_streamed_logits_are_the_stored_ones(name: str, chunk: int) -> None:
    """The package runs its whole forward anew for every token."""
    io = np.load(GOLDENS / name / "io.npz")
    ids = io["ids"].astype(np.int64)
    session = torch_session(load(GOLDENS / name), batch=2)
    found = [session.advance(ids[:, start : start + chunk]) for start in range(0, ids.shape[1], chunk)]
    np.testing.assert_allclose(np.concatenate(found, 1), io["logits"], atol=TOLERANCE)


def test_it_is_recognised_by_its_class() -> None:
    """And nothing else is."""
    config = json.loads((GOLDENS / NAMES[0] / "config.json").read_text())
    assert is_megabyte(config, GOLDENS / NAMES[0])
    assert not is_megabyte({"class": "HourglassTransformerLM"}, GOLDENS / NAMES[0])
    assert not is_megabyte({}, GOLDENS / NAMES[0])


def test_defaults_are_the_packages() -> None:
    """Arguments left out mean what the package's constructor means; one width serves every scale."""
    config = config_from_kwargs({"num_tokens": 50, "dim": 32, "depth": [3, 2], "max_seq_len": [8, 4]})
    assert (config.dims, config.heads, config.head_dim, config.ff_mult) == ((32, 32), 8, 64, 4)
    assert (config.rotary, config.learned_positions) == (False, False)


def test_arguments_that_change_nothing(checkpoint: Path) -> None:
    """Dropout, the id of padding and the kernel of attention are accepted."""
    change_kwargs(checkpoint, attn_dropout=0.1, ff_dropout=0.2, pad_id=3, flash_attn=True)
    io = np.load(checkpoint / "io.npz")
    np.testing.assert_allclose(logits_of(load(checkpoint), io["ids"].astype(np.int64)), io["logits"], atol=TOLERANCE)


@pytest.mark.parametrize("name", ["model.pt", "pytorch_model.bin"])
def test_a_plain_state_dict_file(checkpoint: Path, name: str) -> None:
    """Saved by torch.save, read with weights_only=True."""
    torch.save(load_file(checkpoint / "model.safetensors"), checkpoint / name)
    (checkpoint / "model.safetensors").unlink()
    io = np.load(checkpoint / "io.npz")
    np.testing.assert_allclose(logits_of(load(checkpoint), io["ids"].astype(np.int64)), io["logits"], atol=TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_saved_in_half_precision(checkpoint: Path, dtype: torch.dtype) -> None:
    """They are widened; the frequencies, which were rounded with them, are taken from the formula."""
    path = checkpoint / "model.safetensors"
    save_file({name: value.to(dtype) for name, value in load_file(path).items()}, path)
    io = np.load(checkpoint / "io.npz")
    np.testing.assert_allclose(logits_of(load(checkpoint), io["ids"].astype(np.int64)), io["logits"], atol=0.1)


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        ({"rel_pos_bias": True}, CheckpointError, "unknown field `rel_pos_bias`"),
        ({"depth": 2}, CheckpointError, r"Expected `array`, got `int` - at `\$.depth`"),
        ({"max_seq_len": [4, 3]}, ConfigError, "got 3 dims, 3 depths, 2 lengths"),
        ({"max_seq_len": [4, 1, 5]}, ConfigError, r"got lengths \[4, 1, 5\]"),
        ({"dim_head": 7}, ConfigError, "head_dim must be even, got 7"),
    ],
)
def test_arguments_that_can_not_be(checkpoint: Path, changes: Any, error: type[Exception], reason: str) -> None:
    """Refused before any weight is read."""
    (checkpoint / "model.safetensors").unlink()
    change_kwargs(checkpoint, **changes)
    with pytest.raises(error, match=reason):
        load(checkpoint)


def test_another_version_of_the_package(checkpoint: Path) -> None:
    """Version 0.2 shared keys among heads, 0.3.0 gave the tables of positions to the wrong scales."""
    change_config(checkpoint, version="0.3.0")
    with pytest.raises(CheckpointError, match=r'is of MEGABYTE-pytorch 0\.3\.0, expected 0\.3\.6: .* correct "version"'):
        load(checkpoint)


def test_tensors_that_do_not_fit_are_named_as_in_the_file(checkpoint: Path) -> None:
    """By the package's names, not ours."""
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    del tensors["start_tokens.1"]
    tensors["transformers.0.layers.0.0.to_kv.weight"] = torch.zeros(3, 3)
    tensors["pos_embs.0.weight"] = torch.zeros(4, 28)
    save_file(tensors, path)
    with pytest.raises(CheckpointError) as caught:
        load(checkpoint)
    for part in (
        "missing start_tokens.1",
        "extra pos_embs.0.weight",
        "transformers.0.layers.0.0.to_kv.weight has shape (3, 3), expected (32, 28)",
    ):
        assert part in str(caught.value)


def test_frequencies_of_another_rotation(checkpoint: Path) -> None:
    """The package knows one base only, so that others are of another model."""
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    tensors["transformers.1.rotary_emb.inv_freq"] *= 1.5
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"transformers\.1\.rotary_emb\.inv_freq in .* base 10000"):
        load(checkpoint)


def test_no_weights(checkpoint: Path) -> None:
    """The names that would do are listed."""
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no weights in .*; expected model\.safetensors, or one file"):
        load(checkpoint)


def test_no_arguments(checkpoint: Path) -> None:
    """A state_dict alone does not tell the heads."""
    change_config(checkpoint, kwargs=None)
    with pytest.raises(CheckpointError, match="has no kwargs, expected an object with the arguments of MEGABYTE"):
        load(checkpoint)
