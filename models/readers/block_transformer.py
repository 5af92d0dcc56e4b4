"""Reader of Block Transformer checkpoints (github.com/itsnamgyu/block-transformer): `model.safetensors` of two GPT-NeoX towers.

Sizes come from the shapes of the tensors; their files have no `config.json`. What shapes do not tell (heads, rotary dimensions)
is that of `EleutherAI/pythia-410m-deduped`, which every published model takes over; a `config.json` beside the weights may say
otherwise, with the keys of the project's `conf/trainer/*.yaml`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec
from torch import Tensor

from ...errors import CheckpointError, ConfigError
from ..block_transformer import BlockTransformer, BlockTransformerConfig
from ..checkpoint import read_weights
from ..config import LayerConfig
from .files import names_in, weight_file, weight_files
from .renaming import Original, fill, layers_below

CLASS = "BlockTransformer"
EMBEDDINGS = "embedder.embeddings.weight"
EXPANSION = "token_decoder.expansion_layer"
BLOCK_TOWER, TOKEN_TOWER = "block_decoder.gpt_neox.", "token_decoder.gpt_neox."
BUFFERS = (".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq")
"""Causal masks and angles, which older versions of transformers save."""


class _Neox(msgspec.Struct, frozen=True, kw_only=True):
    """What shapes do not tell of a tower."""

    num_attention_heads: int = 16
    rotary_pct: float = 0.25
    rotary_emb_base: float = 10_000.0
    layer_norm_eps: float = 1e-5
    use_parallel_residual: bool = True
    hidden_act: Literal["gelu"] = "gelu"


class _Tower(msgspec.Struct, frozen=True, kw_only=True):
    config: _Neox = msgspec.field(default_factory=_Neox)
    cls: Literal["gpt-neo-x"] = "gpt-neo-x"
    decoding_strategy: Literal["prefix"] = "prefix"


class _Embedder(msgspec.Struct, frozen=True, kw_only=True):
    cls: Literal["lookup"] = "lookup"
    n_embedding_tokens: Literal[1] = 1
    projection_method: Literal["concat"] | None = "concat"


class _Config(msgspec.Struct, frozen=True, kw_only=True):
    """A `conf/trainer/*.yaml` as JSON, as far as it matters."""

    max_length: int = 2048
    embedder: _Embedder = msgspec.field(default_factory=_Embedder)
    block_decoder: _Tower = msgspec.field(default_factory=_Tower)
    token_decoder: _Tower = msgspec.field(default_factory=_Tower)


def is_block_transformer(config: Mapping[str, Any], path: Path) -> bool:
    """Whether a checkpoint is of this layout: by its `config.json`, else by the names of its tensors.

    Args:
        config: the parsed `config.json`, empty if there is none.
        path: the checkpoint's directory, or its file of weights.
    """
    if config:
        return config.get("class") == CLASS or {"block_decoder", "token_decoder"} <= config.keys()
    files = weight_files(path)
    return len(files) == 1 and {EMBEDDINGS, f"{EXPANSION}.weight"} <= names_in(files[0])


def load_block_transformer(path: Path, config: Mapping[str, Any]) -> BlockTransformer:
    """Load a checkpoint; weights widened to fp32, in eval mode.

    Args:
        path: its directory with one file of weights, or that file.
        config: the parsed `config.json`; empty if there is none.

    Raises:
        CheckpointError: no weights or several files of them, tensors that are missing, left over or of another shape, or a
            configuration of another kind than that of the main models.
        ConfigError: heads that do not divide a width, or a width that is no multiple of the block's length.
    """
    try:
        given = msgspec.convert(dict(config), _Config)
    except msgspec.ValidationError as error:
        raise CheckpointError(
            f"config.json of the Block Transformer in {path}: {error}; what can be read are the project's main models: "
            "a lookup embedder whose vectors are laid side by side, GPT-NeoX towers and prefixes"
        ) from error
    file = weight_file(path)
    tensors = {name: value for name, value in read_weights(file).items() if not name.endswith(BUFFERS)}
    missing = [name for name in (EMBEDDINGS, f"{EXPANSION}.weight", f"{TOKEN_TOWER}embed_in.weight") if name not in tensors]
    if missing:
        raise CheckpointError(
            f"{file} lacks {', '.join(missing)}; what can be read are the project's main models: "
            "a lookup embedder whose vectors are laid side by side, GPT-NeoX towers and prefixes"
        )
    sizes = _sizes(tensors, given, file)
    unused = f"{BLOCK_TOWER}embed_in.weight"  # vectors are given to the block decoder
    dead = {unused: tuple(tensors[unused].shape)} if unused in tensors else {}
    return fill(BlockTransformer(sizes), dict(_originals(sizes)), dead, tensors, file)


def _sizes(tensors: Mapping[str, Tensor], given: _Config, where: Path) -> BlockTransformerConfig:
    rows, block_dim, *_ = tensors[f"{EXPANSION}.weight"].shape
    vocab_size, token_dim = tensors[f"{TOKEN_TOWER}embed_in.weight"].shape
    piece = tensors[EMBEDDINGS].shape[1]
    if block_dim % piece or rows % token_dim:
        raise CheckpointError(
            f"{EXPANSION}.weight in {where} has shape {tuple(tensors[f'{EXPANSION}.weight'].shape)}, expected some times "
            f"{token_dim} (the width of the token decoder) by some times {piece} (that of the embedder)"
        )
    return BlockTransformerConfig(
        block_length=block_dim // piece,
        prefixes=rows // token_dim,
        vocab_size=vocab_size,
        block=_layer(tensors, BLOCK_TOWER, block_dim, given.block_decoder.config),
        block_layers=layers_below(f"{BLOCK_TOWER}layers.", tensors),
        token=_layer(tensors, TOKEN_TOWER, token_dim, given.token_decoder.config),
        token_layers=layers_below(f"{TOKEN_TOWER}layers.", tensors),
        context=given.max_length,
    )


def _layer(tensors: Mapping[str, Tensor], tower: str, dim: int, given: _Neox) -> LayerConfig:
    heads = given.num_attention_heads
    if heads < 1 or dim % heads:
        raise ConfigError(f"num_attention_heads of {tower} must divide its width {dim}, got {heads}; say so in config.json")
    head_dim, up = dim // heads, tensors.get(f"{tower}layers.0.mlp.dense_h_to_4h.bias")
    rotary_dims = int(head_dim * given.rotary_pct)
    return LayerConfig(
        dim=dim,
        heads=heads,
        head_dim=head_dim,
        ff_dim=4 * dim if up is None else up.shape[0],  # that of the 410M model, whatever the width
        norm_eps=given.layer_norm_eps,
        qkv_bias=True,
        rotary_base=given.rotary_emb_base if rotary_dims else None,
        rotary_dims=rotary_dims or None,
        parallel=given.use_parallel_residual,
    )


def _originals(config: BlockTransformerConfig) -> Iterator[tuple[str, Original]]:
    block, token, vocab_size = config.block, config.token, config.vocab_size
    yield "block_embed.tokens.weight", Original(EMBEDDINGS, (vocab_size, block.dim // config.block_length))
    yield from _layers("blocks.", BLOCK_TOWER, block, config.block_layers)
    yield from _pair("hand_down.norm", f"{BLOCK_TOWER}final_layer_norm", (block.dim,))
    expanded = config.prefixes * token.dim
    yield "expand.out.weight", Original(f"{EXPANSION}.weight", (expanded, block.dim, 1), _matrix_of_convolution)
    yield "expand.out.bias", Original(f"{EXPANSION}.bias", (expanded,))
    yield "embed.weight", Original(f"{TOKEN_TOWER}embed_in.weight", (vocab_size, token.dim))
    yield from _layers("inner.", TOKEN_TOWER, token, config.token_layers)
    yield from _pair("head.norm", f"{TOKEN_TOWER}final_layer_norm", (token.dim,))
    yield "head.logits.weight", Original("token_decoder.embed_out.weight", (vocab_size, token.dim))


def _layers(ours: str, tower: str, config: LayerConfig, layers: int) -> Iterator[tuple[str, Original]]:
    dim, wide = config.dim, config.ff_dim
    for index in range(layers):
        block, original = f"{ours}layers.{index}.", f"{tower}layers.{index}."
        yield from _pair(f"{block}norm", f"{original}input_layernorm", (dim,))
        joined = partial(_by_part, heads=config.heads)
        for part, shape in (("weight", (3 * dim, dim)), ("bias", (3 * dim,))):
            yield f"{block}attention.qkv.{part}", Original(f"{original}attention.query_key_value.{part}", shape, joined)
        yield from _pair(f"{block}attention.out", f"{original}attention.dense", (dim, dim))
        yield from _pair(f"{block}feed_forward.norm", f"{original}post_attention_layernorm", (dim,))
        yield from _pair(f"{block}feed_forward.up", f"{original}mlp.dense_h_to_4h", (wide, dim))
        yield from _pair(f"{block}feed_forward.down", f"{original}mlp.dense_4h_to_h", (dim, wide))


def _by_part(rows: Tensor, heads: int) -> Tensor:
    """Rows of `query_key_value`, which stand head by head, each with its query, key and value, to all queries first."""
    parts = rows.reshape(heads, 3, rows.shape[0] // (3 * heads), *rows.shape[1:])
    return parts.transpose(0, 1).reshape(rows.shape)


def _matrix_of_convolution(weight: Tensor) -> Tensor:
    """A convolution over one row is a matrix."""
    return weight[:, :, 0]


def _pair(ours: str, theirs: str, shape: tuple[int, ...]) -> Iterator[tuple[str, Original]]:
    yield f"{ours}.weight", Original(f"{theirs}.weight", shape)
    yield f"{ours}.bias", Original(f"{theirs}.bias", shape[:1])
