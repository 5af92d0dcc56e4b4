"""foveal's own checkpoint directory."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from specimens import full_forward, random_ids, random_model

from foveal import CheckpointError
from foveal.models import SHIPPED, SHIPPED_BYTES
from foveal.models.checkpoint import read_weights, save_checkpoint
from foveal.models.readers.loading import load_model


def test_a_checkpoint_is_the_model(tmp_path: Path) -> None:
    """Saved in fp32 and loaded again, the logits are the same."""
    model = random_model("1@1 2@3 1@1", shortening="attention", upsampling="linear")
    save_checkpoint(model, tmp_path, torch.float32)
    ids = random_ids(2, 20)
    loaded = load_model(tmp_path)
    assert loaded.source_format == "foveal"
    assert loaded.tokenizer_path is None
    np.testing.assert_array_equal(full_forward(loaded.model, ids), full_forward(model, ids))


def test_a_tied_head_is_stored_once(tmp_path: Path) -> None:
    """And is tied again when it is loaded."""
    save_checkpoint(random_model("1@1"), tmp_path)
    with safe_open(tmp_path / "model.safetensors", "np") as file:
        assert "head.logits.weight" not in file.keys()  # noqa: SIM118
    model = load_model(tmp_path).model
    assert model.head.logits.weight is model.embed.tokens.weight


def test_tensors_that_do_not_fit(tmp_path: Path) -> None:
    """Missing, extra and misshapen tensors are named in one message."""
    save_checkpoint(random_model("1@1"), tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    del tensors["root.layers.0.norm.bias"]
    tensors["stray"] = torch.zeros(1)
    tensors["head.norm.weight"] = torch.zeros(7)
    save_file(tensors, path)
    with pytest.raises(CheckpointError) as caught:
        load_model(tmp_path)
    for part in ("missing root.layers.0.norm.bias", "extra stray", "head.norm.weight has shape (7,), expected (24,)"):
        assert part in str(caught.value)


def test_a_pickle_is_not_taken_for_safetensors(tmp_path: Path) -> None:
    """Neither a plain pickle nor torch's zip; nothing of either is executed."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(CheckpointError, match=r"is a pickle, expected safetensors; name it \.pt"):
        read_weights(path)
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="is a pickle, expected safetensors"):
        read_weights(path)


def test_a_pickle_that_wants_to_run_code(tmp_path: Path) -> None:
    """weights_only=True refuses it."""

    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("executed",)

    torch.save({"a": Attack()}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"more than tensors \(print\), which was not unpickled, as a pickle"):
        read_weights(tmp_path / "model.pt")


def test_something_else_than_weights(tmp_path: Path) -> None:
    """A list, a broken file, no file."""
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="holds no weights: expected a state_dict, name -> tensor"):
        read_weights(tmp_path / "list.pt")
    (tmp_path / "broken.safetensors").write_bytes(b"not weights")
    with pytest.raises(CheckpointError, match="is not a whole safetensors file"):
        read_weights(tmp_path / "broken.safetensors")
    for name in ("none.safetensors", "none.pt"):
        with pytest.raises(CheckpointError, match="no weights in"):
            read_weights(tmp_path / name)


def test_directories_that_are_no_checkpoint(tmp_path: Path) -> None:
    """Each says what was found and what was expected."""
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_model(tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"no weights in .*; expected model\.safetensors, or one file"):
        load_model(tmp_path)
    config = tmp_path / "config.json"
    config.write_text("{")
    with pytest.raises(CheckpointError, match="is not JSON"):
        load_model(tmp_path)
    config.write_text(json.dumps({"class": "GPT2", "n_layer": 2}))
    with pytest.raises(CheckpointError, match=r"no weights in .*; expected model\.safetensors"):
        load_model(tmp_path)
    config.write_text(json.dumps({"hierarchy": "1@1", "dim": 8, "colour": "red"}))
    with pytest.raises(CheckpointError, match="is not a foveal model configuration"):
        load_model(tmp_path)


@pytest.mark.parametrize("directory", [*SHIPPED.values(), *SHIPPED_BYTES.values()], ids=lambda directory: directory.name)
def test_the_shipped_checkpoints_load(directory: Path) -> None:
    """They are there, small enough, with a tokenizer and a model card."""
    loaded = load_model(directory)
    assert loaded.tokenizer_path is not None
    assert loaded.model.config.max_positions >= 512
    assert (directory / "model.safetensors").stat().st_size <= 12_000_000
    assert "bits per byte" in (directory / "README.md").read_text(encoding="utf-8")
