"""The networks of transformers' GPT-2 and GPT-NeoX in plain torch, written from their definitions: no code of foveal's.

Checked by hand against transformers 4.46.0 on 2026-11-29 (`GPT2Model`, `GPTNeoXModel` of random weights; 1, 3 and 6 heads, both
activations, both kinds of residual, two shares and bases of rotation): 1.4e-6 at most. Tensors and settings have its names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = Mapping[str, Tensor]


def _activation(name: str, x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh" if name == "gelu_new" else "none")


def _norm(weights: Weights, name: str, x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of `[B, H, T, W]`, as softmax of scores that may look back only; `[B, T, H * W]`."""
    length = q.shape[2]
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    ahead = torch.ones(length, length, dtype=torch.bool).triu(1)
    mixed = scores.masked_fill(ahead, -math.inf).softmax(-1) @ v
    return mixed.transpose(1, 2).flatten(2)


def gpt2(weights: Weights, name: str, x: Tensor, config: Mapping[str, Any]) -> Tensor:
    """`GPT2Model` on vectors `[B, T, D]` that have their positions; `name` leads to `h.0` and `ln_f`."""
    heads, eps = config.get("n_head", 12), config.get("layer_norm_epsilon", 1e-5)
    activation = config.get("activation_function", "gelu_new")

    def linear(place: str, y: Tensor) -> Tensor:  # a Conv1D: [inputs, outputs]
        return y @ weights[f"{place}.weight"] + weights[f"{place}.bias"]

    for index in range(_layers(weights, f"{name}h.")):
        block = f"{name}h.{index}."
        q, k, v = linear(f"{block}attn.c_attn", _norm(weights, f"{block}ln_1", x, eps)).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
        x = x + linear(f"{block}attn.c_proj", _attend(q, k, v))
        up = _activation(activation, linear(f"{block}mlp.c_fc", _norm(weights, f"{block}ln_2", x, eps)))
        x = x + linear(f"{block}mlp.c_proj", up)
    return _norm(weights, f"{name}ln_f", x, eps)


def gpt_neox(weights: Weights, name: str, x: Tensor, config: Mapping[str, Any]) -> Tensor:
    """`GPTNeoXModel` on vectors `[B, T, D]`; `name` leads to `layers.0` and `final_layer_norm`."""
    heads, eps = config["num_attention_heads"], config.get("layer_norm_eps", 1e-5)
    activation = config.get("hidden_act", "gelu")

    def linear(place: str, y: Tensor) -> Tensor:
        return F.linear(y, weights[f"{place}.weight"], weights[f"{place}.bias"])

    for index in range(_layers(weights, f"{name}layers.")):
        block = f"{name}layers.{index}."
        joined = linear(f"{block}attention.query_key_value", _norm(weights, f"{block}input_layernorm", x, eps))
        q, k, v = joined.unflatten(-1, (heads, 3, -1)).permute(3, 0, 2, 1, 4)  # head by head, each with its three
        q, k = (_rotated(part, config) for part in (q, k))
        attended = linear(f"{block}attention.dense", _attend(q, k, v))
        before = x if config.get("use_parallel_residual", True) else x + attended
        up = linear(f"{block}mlp.dense_h_to_4h", _norm(weights, f"{block}post_attention_layernorm", before, eps))
        x = x + attended + linear(f"{block}mlp.dense_4h_to_h", _activation(activation, up))
    return _norm(weights, f"{name}final_layer_norm", x, eps)


def _rotated(x: Tensor, config: Mapping[str, Any]) -> Tensor:
    """The first dimensions of each head turned: dimension i with i + half of them."""
    dims = int(x.shape[-1] * config.get("rotary_pct", 0.25))
    frequencies = config.get("rotary_emb_base", 10_000) ** (-torch.arange(0, dims, 2) / dims)
    angles = torch.arange(x.shape[2])[:, None] * frequencies
    cos, sin = angles.cos(), angles.sin()
    first, second, rest = x[..., : dims // 2], x[..., dims // 2 : dims], x[..., dims:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], -1)


def _layers(weights: Weights, name: str) -> int:
    return 1 + max(int(key.removeprefix(name).split(".")[0]) for key in weights if key.startswith(name))


def patch_decoder(weights: Weights, inner: str, patches: Tensor, outer_config: Any, inner_config: Any) -> Tensor:
    """NotaGen's and bGPT's logits of ids `[n, P]`, of all patches but the first: `[n - 1, P, V]`."""
    tower, vocabulary = f"{inner}.base.transformer.", weights[f"{inner}.base.transformer.wte.weight"]
    one_hot = F.one_hot(patches, len(vocabulary)).flatten(1).float()
    embedding = "patch_level_decoder.patch_embedding"
    rows = F.linear(one_hot, weights[f"{embedding}.weight"], weights[f"{embedding}.bias"])
    rows = rows + weights["patch_level_decoder.base.wpe.weight"][: len(patches)]
    contexts = gpt2(weights, "patch_level_decoder.base.", rows[None], outer_config)[0, :-1]
    inside = torch.cat([contexts[:, None], vocabulary[patches[1:, :-1]]], 1)
    inside = inside + weights[f"{tower}wpe.weight"][: patches.shape[1]]
    return gpt2(weights, tower, inside, inner_config) @ weights[f"{inner}.base.lm_head.weight"].T


def block_transformer(weights: Weights, blocks: Tensor, block_config: Any, token_config: Any) -> Tensor:
    """Block Transformer's logits of ids `[n, P]`, of all blocks but the first: `[n - 1, P, V]`."""
    rows = weights["embedder.embeddings.weight"][blocks].flatten(1)
    said = gpt_neox(weights, "block_decoder.gpt_neox.", rows[None], block_config)[0, :-1]
    tokens, expansion = weights["token_decoder.gpt_neox.embed_in.weight"], "token_decoder.expansion_layer"
    prefixes = F.linear(said, weights[f"{expansion}.weight"][:, :, 0], weights[f"{expansion}.bias"])
    prefixes = prefixes.unflatten(-1, (-1, tokens.shape[1]))
    inside = torch.cat([prefixes, tokens[blocks[1:, :-1]]], 1)
    found = gpt_neox(weights, "token_decoder.gpt_neox.", inside, token_config)[:, prefixes.shape[1] - 1 :]
    return found @ weights["token_decoder.embed_out.weight"].T
