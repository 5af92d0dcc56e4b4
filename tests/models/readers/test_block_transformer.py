"""Checkpoints of Block Transformer: the original's own logits and tokens, and what can't be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch_sessions import logits_of, torch_session

from foveal import CheckpointError, ConfigError
from foveal.models.block_transformer import BlockTransformer
from foveal.models.readers.block_transformer import is_block_transformer, load_block_transformer

GOLDEN = Path(__file__).parents[2] / "golden_families" / "block_transformer_tiny"
CONFIG: dict[str, Any] = json.loads((GOLDEN / "config.json").read_text())
TOLERANCE = 1e-5


@pytest.fixture
def model() -> BlockTransformer:
    """The golden's."""
    return load_block_transformer(GOLDEN, CONFIG)


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    """The golden's weights, by their original names."""
    return safetensors.torch.load_file(GOLDEN / "model.safetensors")


@pytest.fixture
def io() -> dict[str, np.ndarray]:
    """What the original was given, and what it gave."""
    return dict(np.load(GOLDEN / "io.npz"))


def test_logits_are_those_of_the_original(model: BlockTransformer, io: dict[str, np.ndarray]) -> None:
    """Of every token that its forward predicts: all but those of the first block."""
    found = logits_of(model, io["ids"])[:, 3:-1].reshape(io["logits"].shape)
    np.testing.assert_allclose(found, io["logits"], atol=TOLERANCE)


def test_streamed_logits_are_those_of_the_original(model: BlockTransformer, io: dict[str, np.ndarray]) -> None:
    """Token by token."""
    session = torch_session(model, batch=2)
    found = np.concatenate([session.advance(io["ids"][:, place : place + 1]) for place in range(io["ids"].shape[1])], 1)
    np.testing.assert_allclose(found[:, 3:-1].reshape(io["logits"].shape), io["logits"], atol=TOLERANCE)


def test_greedy_tokens_are_those_of_the_original_generate(model: BlockTransformer, io: dict[str, np.ndarray]) -> None:
    """Which keeps the caches of both towers."""
    session, ids = torch_session(model), io["greedy_prompt"].tolist()[0]
    logits = session.advance([ids])
    while len(ids) < io["greedy_ids"].shape[1]:
        ids.append(int(logits[0, -1].argmax()))
        logits = session.advance([ids[-1:]])
    assert ids == io["greedy_ids"][0].tolist()


def test_sizes_are_read_from_the_tensors(model: BlockTransformer) -> None:
    """The feed-forward width too, which the published models keep at that of the 410M model, whatever their own."""
    config = model.config
    assert (config.block_length, config.prefixes, config.vocab_size, config.context) == (4, 2, 61, 64)
    assert (config.block_layers, config.token_layers) == (2, 2)
    assert (config.token.dim, config.token.heads, config.token.ff_dim, config.token.rotary_dims) == (48, 3, 80, 4)
    assert config.block == config.token
    assert config.token.parallel


def test_without_a_config_json_it_has_the_heads_of_pythia_410m() -> None:
    """As every published model: 16, a quarter of whose dimensions is rotated."""
    for path in (GOLDEN, GOLDEN / "model.safetensors"):
        config = load_block_transformer(path, {}).config
        assert (config.token.heads, config.token.head_dim, config.token.rotary_dims, config.context) == (16, 3, None, 2048)


def test_what_is_recognised(tmp_path: Path) -> None:
    """A config.json of the class, or with the keys of the project's own; else the names of tensors."""
    assert is_block_transformer(CONFIG, tmp_path)
    assert is_block_transformer({"name": "block_main_b4_5", "block_decoder": {}, "token_decoder": {}}, tmp_path)
    assert not is_block_transformer({"class": "NotaGenLMHeadModel"}, GOLDEN)
    assert is_block_transformer({}, GOLDEN)
    assert is_block_transformer({}, GOLDEN / "model.safetensors")
    assert not is_block_transformer({}, GOLDEN.parent / "bgpt_tiny")
    assert not is_block_transformer({}, tmp_path)


def test_weights_are_found_among_what_a_trainer_saves(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    """An optimizer's state and the like; masks and angles, which old versions of transformers saved, are left out."""
    tensors["token_decoder.gpt_neox.layers.0.attention.bias"] = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    tensors["token_decoder.gpt_neox.layers.0.attention.rotary_emb.inv_freq"] = torch.ones(2)
    del tensors["block_decoder.gpt_neox.embed_in.weight"]
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin"):
        (tmp_path / name).write_bytes(b"")
    assert is_block_transformer({}, tmp_path)
    assert load_block_transformer(tmp_path, CONFIG).config.block_length == 4


def test_tensors_that_do_not_belong_together(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    """Missing, left over and misshapen ones are named as in the file."""
    del tensors["block_decoder.gpt_neox.layers.1.mlp.dense_4h_to_h.bias"]
    tensors["embedder.projection_layer.weight"] = torch.zeros(48, 12, 4)
    tensors["token_decoder.gpt_neox.layers.0.attention.query_key_value.weight"] = torch.zeros(144, 40)
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError) as raised:
        load_block_transformer(tmp_path, CONFIG)
    text = str(raised.value)
    assert "missing block_decoder.gpt_neox.layers.1.mlp.dense_4h_to_h.bias" in text
    assert "extra embedder.projection_layer.weight" in text
    assert "token_decoder.gpt_neox.layers.0.attention.query_key_value.weight has shape (144, 40), expected (144, 48)" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"embedder.embeddings.weight": None},
            "lacks embedder.embeddings.weight; what can be read are the project's main models",
        ),
        (
            {"token_decoder.expansion_layer.weight": torch.zeros(96, 50, 1)},
            r"has shape \(96, 50, 1\), expected some times 48 .*12",
        ),
    ],
)
def test_files_whose_sizes_cannot_be_read(
    tmp_path: Path, tensors: dict[str, Tensor], change: dict[str, Tensor | None], message: str
) -> None:
    """The tensor and what was found."""
    changed = {name: value for name, value in {**tensors, **change}.items() if value is not None}
    safetensors.torch.save_file(changed, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load_block_transformer(tmp_path, CONFIG)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"embedder": {"cls": "roberta"}}, "Invalid enum value 'roberta' - at `.*embedder.cls`.*a lookup embedder"),
        ({"token_decoder": {"cls": "t5"}}, "Invalid enum value 't5' - at `.*token_decoder.cls`"),
        ({"token_decoder": {"decoding_strategy": "summation"}}, "Invalid enum value 'summation'"),
        ({"embedder": {"projection_method": "projection_layer"}}, "Invalid enum value 'projection_layer'"),
    ],
)
def test_kinds_of_the_ablations_are_refused(config: dict[str, Any], message: str) -> None:
    """The setting, what it is, and what can be read."""
    with pytest.raises(CheckpointError, match=message):
        load_block_transformer(GOLDEN, config)


def test_heads_that_do_not_divide_the_width() -> None:
    """The tower, the width and the heads."""
    config = {"block_decoder": {"config": {"num_attention_heads": 5}}}
    with pytest.raises(ConfigError, match=r"num_attention_heads of block_decoder.gpt_neox. must divide its width 48, got 5"):
        load_block_transformer(GOLDEN, config)
