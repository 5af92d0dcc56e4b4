"""The `config.json` of transformers beside towers of GPT-2 or GPT-NeoX is honoured: heads above all, which no shape shows.

Logits are compared with those of the networks' definitions (tests/transformers_reference.py), and of the originals.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from specimens import random_ids
from torch import Tensor
from torch_sessions import logits_of
from transformers_reference import block_transformer, patch_decoder

from foveal.models.readers.loading import load_model

GOLDENS = Path(__file__).parents[2] / "golden_families"
INNER = {"notagen_tiny": "char_level_decoder", "bgpt_tiny": "byte_level_decoder"}
BLOCKS = "block_transformer_tiny"
TOLERANCE = 1e-5

GPT2 = {
    "_name_or_path": "",
    "activation_function": "gelu_new",
    "architectures": ["NotaGenLMHeadModel"],
    "attn_pdrop": 0.1,
    "bos_token_id": 50256,
    "embd_pdrop": 0.1,
    "eos_token_id": 50256,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_embd": 48,
    "n_head": 3,
    "n_inner": None,
    "n_layer": 2,
    "n_positions": 24,
    "reorder_and_upcast_attn": False,
    "resid_pdrop": 0.1,
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "transformers_version": "4.46.0",
    "use_cache": True,
    "vocab_size": 1,
}
"""What `GPT2Config(n_layer=2, n_head=3, n_embd=48, n_positions=24, vocab_size=1)` of transformers 4.46.0 saves."""
OTHERWISE = {"n_head": 6, "layer_norm_epsilon": 0.05, "activation_function": "gelu"}
PATCH_CONFIGS: dict[str, dict[str, Any]] = {
    "as transformers saves it": GPT2,
    "one head": {**GPT2, "n_head": 1},
    "everything otherwise": {**GPT2, **OTHERWISE},
    "each tower's own": {"encoder_config": {**GPT2, **OTHERWISE}, "decoder_config": {**OTHERWISE, "n_layer": 1}},
}
AS_NEOX = {"n_head": "num_attention_heads", "layer_norm_epsilon": "layer_norm_eps", "activation_function": "hidden_act"}


def weights_of(name: str) -> dict[str, Tensor]:
    """A golden's in fp32, by their names in the file."""
    return {key: value.float() for key, value in safetensors.torch.load_file(GOLDENS / name / "model.safetensors").items()}


def checkpoint(directory: Path, name: str, config: dict[str, Any], **changed: Tensor) -> Path:
    """A golden's weights beside a configuration."""
    safetensors.torch.save_file({**weights_of(name), **changed}, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def check_patch_decoder(path: Path, name: str, config: dict[str, Any]) -> None:
    """Every logit that a patch before it leads to, against the definition."""
    model = load_model(path).model
    ids = random_ids(1, 5 * model.config.patch_size, model.config.vocab_size)
    found = logits_of(model, ids)[0, model.config.patch_size - 1 : -1]
    patches = torch.from_numpy(ids).reshape(5, -1)
    expected = patch_decoder(weights_of(name), INNER[name], patches, config, config).flatten(0, 1)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


@pytest.mark.parametrize("how", PATCH_CONFIGS)
@pytest.mark.parametrize("name", INNER)
def test_settings_of_gpt2_shape_the_logits(name: str, how: str, tmp_path: Path) -> None:
    """By GPT-2's names."""
    config = PATCH_CONFIGS[how]
    check_patch_decoder(checkpoint(tmp_path, name, config), name, config.get("encoder_config", config))


@pytest.mark.parametrize("name", INNER)
def test_settings_by_the_names_of_gpt_neox(name: str, tmp_path: Path) -> None:
    """Which mean the same."""
    config = {AS_NEOX[key]: value for key, value in OTHERWISE.items()}
    check_patch_decoder(checkpoint(tmp_path, name, {**config, "num_hidden_layers": 2, "hidden_size": 48}), name, OTHERWISE)


@pytest.mark.parametrize("name", INNER)
def test_heads_that_transformers_says_give_the_originals_logits(name: str, tmp_path: Path) -> None:
    """Those of the projects' own code on transformers, with 3 heads; one, which the width suggests, is far off."""
    io, path = np.load(GOLDENS / name / "io.npz"), checkpoint(tmp_path, name, GPT2)
    model = load_model(path).model
    first = model.config.patch_size - 1
    np.testing.assert_allclose(logits_of(model, io["ids"])[:, first:], io["logits"], atol=TOLERANCE)
    other = load_model(checkpoint(tmp_path, name, {**GPT2, "n_head": 1})).model
    assert np.abs(logits_of(other, io["ids"])[:, first:] - io["logits"]).max() > 0.5


def test_an_inner_table_of_positions_may_be_gpt2s_own(tmp_path: Path) -> None:
    """1,024 rows, of which a patch reads the first: the logits are those of the table without the others."""
    name, table = "notagen_tiny", "char_level_decoder.base.transformer.wpe.weight"
    rows = torch.randn(1024, 48, generator=torch.Generator().manual_seed(0))
    known = weights_of(name)[table]
    rows[: len(known)] = known
    io, model = np.load(GOLDENS / name / "io.npz"), load_model(checkpoint(tmp_path, name, GPT2, **{table: rows})).model
    np.testing.assert_allclose(logits_of(model, io["ids"])[:, model.config.patch_size - 1 :], io["logits"], atol=TOLERANCE)
    assert model.embed.positions.weight.shape == (model.config.patch_size, 48)


NEOX = {
    "architectures": ["GPTNeoXForCausalLM"],
    "attention_bias": True,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "classifier_dropout": 0.1,
    "eos_token_id": 2,
    "hidden_act": "gelu",
    "hidden_dropout": 0.0,
    "hidden_size": 48,
    "initializer_range": 0.02,
    "intermediate_size": 80,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048,
    "model_type": "gpt_neox",
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "partial_rotary_factor": 0.25,
    "rope_scaling": None,
    "rope_theta": 10000,
    "rotary_emb_base": 10000,
    "rotary_pct": 0.25,
    "tie_word_embeddings": False,
    "transformers_version": "4.46.0",
    "use_cache": True,
    "use_parallel_residual": True,
    "vocab_size": 61,
}
"""What `GPTNeoXConfig` of transformers 4.46.0 says of the golden's towers."""
NEOX_OTHERWISE = {
    "num_attention_heads": 6,
    "layer_norm_eps": 0.05,
    "hidden_act": "gelu_new",
    "rotary_pct": 0.5,
    "rotary_emb_base": 100,
    "use_parallel_residual": False,
}
REST = {key: value for key, value in NEOX.items() if key not in ("partial_rotary_factor", "rope_theta")}


@pytest.mark.parametrize(
    ("block", "token"),
    [
        (NEOX, NEOX),
        ({**NEOX, "num_attention_heads": 1}, NEOX),
        (NEOX, {**REST, **NEOX_OTHERWISE}),
        ({**REST, **NEOX_OTHERWISE}, NEOX),
    ],
    ids=["as transformers saves it", "one head in the block decoder", "token decoder otherwise", "block decoder otherwise"],
)
def test_settings_of_gpt_neox_shape_the_logits(block: dict[str, Any], token: dict[str, Any], tmp_path: Path) -> None:
    """Of each tower its own."""
    config = {"class": "BlockTransformer", "block_decoder": {"config": block}, "token_decoder": {"config": token}}
    model = load_model(checkpoint(tmp_path, BLOCKS, config)).model
    ids, size = random_ids(1, 6 * 4, 61), model.config.block_length
    expected = block_transformer(weights_of(BLOCKS), torch.from_numpy(ids).reshape(6, size), block, token).flatten(0, 1)
    np.testing.assert_allclose(logits_of(model, ids)[0, size - 1 : -1], expected, atol=TOLERANCE)
