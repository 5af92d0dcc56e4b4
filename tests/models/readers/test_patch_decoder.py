"""Checkpoints of NotaGen and bGPT: the originals' own logits, whatever the file is called and whatever lies in it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch_sessions import logits_of, torch_session

from foveal import CheckpointError, ConfigError
from foveal.models.readers.patch_decoder import is_patch_decoder, load_patch_decoder

GOLDENS = Path(__file__).parents[2] / "golden_families"
NAMES = ["notagen_tiny", "bgpt_tiny"]
TOLERANCE = 1e-5
PUBLISHED = "weights_notagen_pretrain_p_size_16_p_length_1024_p_layers_20_c_layers_6_h_size_1280_lr_0.0001_batch_4.pth"


def config_of(name: str) -> dict[str, Any]:
    """What the golden's config.json says."""
    return json.loads((GOLDENS / name / "config.json").read_text())


def tensors_of(name: str) -> dict[str, Tensor]:
    """The golden's weights, by their original names."""
    return safetensors.torch.load_file(GOLDENS / name / "model.safetensors")


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_the_original_generate(name: str) -> None:
    """From the end of the first patch on, zeros inside a patch included."""
    model, io = load_patch_decoder(GOLDENS / name, config_of(name)), np.load(GOLDENS / name / "io.npz")
    first = model.config.patch_size - 1
    np.testing.assert_allclose(logits_of(model, io["ids"])[:, first:], io["logits"], atol=TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_the_original_training(name: str) -> None:
    """Of all patches at once, with the masks that training has."""
    model, io = load_patch_decoder(GOLDENS / name, config_of(name)), np.load(GOLDENS / name / "io.npz")
    size, patches = model.config.patch_size, io["training"].shape[0]
    found = logits_of(model, io["free_ids"])[0, size - 1 :][: size * patches].reshape(patches, size, -1)
    np.testing.assert_allclose(found, io["training"][:, :size], atol=TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_streamed_logits_are_those_of_the_original_generate(name: str) -> None:
    """Token by token, where the original runs both towers anew for each."""
    model, io = load_patch_decoder(GOLDENS / name, config_of(name)), np.load(GOLDENS / name / "io.npz")
    session = torch_session(model)
    found = np.concatenate([session.advance(io["ids"][:, place : place + 1]) for place in range(io["ids"].shape[1])], 1)
    np.testing.assert_allclose(found[:, model.config.patch_size - 1 :], io["logits"], atol=TOLERANCE)


def test_sizes_are_read_from_the_tensors() -> None:
    """And the heads from config.json."""
    config = load_patch_decoder(GOLDENS / "bgpt_tiny", config_of("bgpt_tiny")).config
    assert (config.architecture, config.patch_size, config.max_patches, config.vocab_size) == ("bgpt", 4, 24, 257)
    assert (config.dim, config.heads, config.patch_layers, config.inner_layers, config.tie_embeddings) == (48, 3, 2, 1, True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("notagen_tiny", ["a patch of 4 is complete", "a patch contains 2", "a patch begins with 1, 2"]),
        ("bgpt_tiny", ["a patch of 4 is complete", "a patch contains 256"]),
    ],
)
def test_their_ids_mark_ends(name: str, expected: list[str]) -> None:
    """As the projects' own sampling scripts look for them."""
    model = load_patch_decoder(GOLDENS / name, config_of(name))
    rules = model.describe().end_rules
    assert [str(rule).replace(f"of {model.config.patch_size} ", "of 4 ") for rule in rules] == expected
    assert [rule.name for rule in rules] == ["patch"] * (len(rules) - 1) + ["piece"]


def training_checkpoint(directory: Path, tensors: dict[str, Tensor], name: str = PUBLISHED) -> Path:
    """A file as both projects' training scripts save it, and published it."""
    path = directory / name
    optimizer = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4}]}
    rest = {"lr_sched": {"last_epoch": 2}, "epoch": 3, "best_epoch": 3, "min_eval_loss": 0.5}
    torch.save({"model": tensors, "optimizer": optimizer, **rest}, path)
    return path


def test_a_published_file_alone_is_recognised_and_read(tmp_path: Path) -> None:
    """No config.json: by its directory and by its own path; heads are one for each 64 of the width, here one."""
    path = training_checkpoint(tmp_path, tensors_of("notagen_tiny"))
    for given in (tmp_path, path):
        assert is_patch_decoder({}, given)
        model = load_patch_decoder(given, {})
        assert (model.config.architecture, model.config.heads) == ("notagen", 1)
    same = load_patch_decoder(path, {"heads": 3})
    io = np.load(GOLDENS / "notagen_tiny" / "io.npz")
    np.testing.assert_allclose(logits_of(same, io["ids"])[:, 3:], io["logits"], atol=TOLERANCE)


def test_what_is_recognised(tmp_path: Path) -> None:
    """The class that config.json names decides; else names of tensors; other files are not ours."""
    assert is_patch_decoder({"class": "bGPTLMHeadModel"}, tmp_path)
    assert not is_patch_decoder({"class": "HourglassTransformerLM"}, GOLDENS / "bgpt_tiny")
    assert not is_patch_decoder({}, tmp_path)
    assert not is_patch_decoder({}, tmp_path / "nowhere")
    torch.save({"token_emb.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    assert not is_patch_decoder({}, tmp_path)
    (tmp_path / "other.pth").write_bytes(b"no such thing")
    assert not is_patch_decoder({}, tmp_path)
    (tmp_path / "other.pth").rename(tmp_path / "other.safetensors")
    assert not is_patch_decoder({}, tmp_path)
    torch.save(torch.zeros(2), tmp_path / "second.pth")
    assert not is_patch_decoder({}, tmp_path / "second.pth")


def test_causal_masks_of_old_files_are_left_out(tmp_path: Path) -> None:
    """transformers once saved them; and weights that training has untied are two matrices."""
    tensors = tensors_of("notagen_tiny")
    tensors["patch_level_decoder.base.h.0.attn.bias"] = torch.ones(1, 1, 24, 24, dtype=torch.bool)
    tensors["patch_level_decoder.base.h.0.attn.masked_bias"] = torch.tensor(-1e4)
    tensors["char_level_decoder.base.lm_head.weight"] = tensors["char_level_decoder.base.lm_head.weight"] + 1
    model = load_patch_decoder(training_checkpoint(tmp_path, tensors), {"heads": 3})
    assert not model.config.tie_embeddings
    assert torch.equal(model.head.logits.weight, tensors["char_level_decoder.base.lm_head.weight"].float())


def test_a_head_that_is_not_there_is_the_embedding(tmp_path: Path) -> None:
    """Files without tied copies."""
    tensors = tensors_of("notagen_tiny")
    del tensors["char_level_decoder.base.lm_head.weight"]
    assert load_patch_decoder(training_checkpoint(tmp_path, tensors), {}).config.tie_embeddings


def test_tensors_that_do_not_belong_together(tmp_path: Path) -> None:
    """Missing, left over and misshapen ones are named as in the file."""
    tensors = tensors_of("notagen_tiny")
    del tensors["char_level_decoder.base.transformer.h.0.mlp.c_fc.bias"]
    tensors["classifier.weight"] = torch.zeros(2, 48)
    tensors["patch_level_decoder.base.h.1.attn.c_attn.weight"] = torch.zeros(48, 100)
    path = training_checkpoint(tmp_path, tensors)
    with pytest.raises(CheckpointError) as raised:
        load_patch_decoder(path, {})
    text = str(raised.value)
    assert "missing char_level_decoder.base.transformer.h.0.mlp.c_fc.bias" in text
    assert "extra classifier.weight" in text
    assert "patch_level_decoder.base.h.1.attn.c_attn.weight has shape (48, 100), expected (48, 144)" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"char_level_decoder.base.transformer.wte.weight": None}, "has no inner tower: expected char_level_decoder.base."),
        (
            {"patch_level_decoder.patch_embedding.weight": torch.zeros(48, 500)},
            "500 columns, expected as many for each of the 128",
        ),
        ({"patch_level_decoder.patch_embedding.weight": None}, "must be a matrix, got nothing"),
        ({"patch_level_decoder.base.wpe.weight": torch.zeros(48)}, r"must be a matrix, got \(48,\)"),
    ],
)
def test_files_whose_sizes_cannot_be_read(tmp_path: Path, change: dict[str, Tensor | None], message: str) -> None:
    """The tensor and what was found."""
    tensors = {**tensors_of("notagen_tiny"), **change}
    path = training_checkpoint(tmp_path, {name: value for name, value in tensors.items() if value is not None})
    with pytest.raises(CheckpointError, match=message):
        load_patch_decoder(path, {})


def test_what_config_json_may_say(tmp_path: Path) -> None:
    """Heads that divide the width."""
    with pytest.raises(ConfigError, match="heads must divide the width 48, got 5; GPT-2 has one for each 64"):
        load_patch_decoder(GOLDENS / "notagen_tiny", {"heads": 5})
    with pytest.raises(CheckpointError, match="config.json of the patch decoder in .*Expected `int | null`, got `str`"):
        load_patch_decoder(GOLDENS / "notagen_tiny", {"heads": "three"})


def test_one_file_of_weights_is_expected(tmp_path: Path) -> None:
    """None, or two, is an error that says which there are."""
    with pytest.raises(CheckpointError, match=r"no weights in .*; expected model.safetensors"):
        load_patch_decoder(tmp_path, {})
    for name in ("a.safetensors", "b.safetensors"):
        shutil.copy(GOLDENS / "notagen_tiny" / "model.safetensors", tmp_path / name)
    with pytest.raises(CheckpointError, match=r"has 2 files of weights \(a.safetensors, b.safetensors\), expected one; give"):
        load_patch_decoder(tmp_path, {})
