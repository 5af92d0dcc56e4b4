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
from ..config import LayerConfig
from ..weight_files import PAGE
from ..weights import Reading, names_in, read_weights
from .renaming import Original, fill, layers_below
from .settings import ANNOTATIONS, Tower, assumed, read_tower, require_known, words

CLASS = "BlockTransformer"
EMBEDDINGS = "embedder.embeddings.weight"
EXPANSION = "token_decoder.expansion_layer"
BLOCK_TOWER, TOKEN_TOWER = "block_decoder.gpt_neox.", "token_decoder.gpt_neox."
BUFFERS = (".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq")
"""Causal masks and angles, which older versions of transformers save."""


HEADS, ROTARY_SHARE, ROTARY_BASE, NORM_EPS, CONTEXT = 16, 0.25, 10_000.0, 1e-5, 2048
"""Those of pythia-410m."""
MAIN = (
    "what can be read are the project's main models: a lookup embedder whose vectors are laid side by side, GPT-NeoX towers "
    "and prefixes"
)


class _Tower(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tower, as `conf/trainer/*.yaml` has it; its `config` is transformers'."""

    config: dict[str, Any] = msgspec.field(default_factory=dict)
    cls: Literal["gpt-neo-x"] = "gpt-neo-x"
    decoding_strategy: Literal["prefix"] = "prefix"
    expansion_method: Literal["expansion_layer"] = "expansion_layer"
    expansion_ratio: Any = None
    model_name_or_path: str | None = None
    use_pretrained_weights: Any = None
    loss_name: Any = None
    attn_implementation: Any = None


class _Embedder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    cls: Literal["lookup"] = "lookup"
    n_embedding_tokens: Literal[1] = 1
    projection_method: Literal["concat"] | None = "concat"
    config: Any = None
    model_name_or_path: Any = None
    use_pretrained_weights: Any = None


class _Outside(msgspec.Struct, frozen=True, kw_only=True):
    """What surrounds the towers' own settings."""

    max_length: int = CONTEXT
    embedder: _Embedder = msgspec.field(default_factory=_Embedder)
    block_decoder: _Tower = msgspec.field(default_factory=_Tower)
    token_decoder: _Tower = msgspec.field(default_factory=_Tower)


_TOWERS = {"block_decoder": BLOCK_TOWER, "token_decoder": TOKEN_TOWER}
TRAINING = words(
    "name wandb wandb_project wandb_entity wandb_run_name wandb_run_id output_dir resume_from_checkpoint "
    "pythia_pile_idxmaps_path dataset block_length block_split total_batch_size per_device_train_batch_size "
    "gradient_accumulation_steps batch_size_rampup_steps tokenizer token_decoding_loss block_decoding_loss "
    "auto_encoding_loss adaptive_lr_auto_encoder freeze learning_rate adam_beta1 adam_beta2 weight_decay precision "
    "num_train_steps stop_steps num_warmup_steps save_steps save_total_limit logging_steps dataloader_num_workers "
    "deepspeed zero_shot_eval random_pad_first_block seed"
)
"""Keys of the project's configurations that are of training, or that the shapes show."""


def is_block_transformer(config: Mapping[str, Any], path: Path) -> bool:
    """Whether a checkpoint is of this layout: by its `config.json`, else by the names of its tensors.

    Args:
        config: the parsed `config.json`, empty if there is none.
        path: the checkpoint's directory, or its file of weights.
    """
    if "class" in config:
        return bool(config["class"] == CLASS)
    if config:
        return {"block_decoder", "token_decoder"} <= config.keys()
    return {EMBEDDINGS, f"{EXPANSION}.weight"} <= names_in(path)


def load_block_transformer(path: Path, config: Mapping[str, Any], reading: Reading | None = None) -> BlockTransformer:
    """Load a checkpoint; weights widened to fp32, in eval mode.

    Args:
        path: its directory with one file of weights, or that file.
        config: the parsed `config.json`; empty if there is none.
        reading: which of several models in the file, and where to note what was assumed.

    Raises:
        CheckpointError: no weights or several files of them, tensors that are missing, left over or of another shape, or a
            configuration of another kind than that of the main models.
        ConfigError: heads that do not divide a width, or a width that is no multiple of the block's length.
    """
    reading = reading or Reading()
    outside = _outside(config)
    towers = {prefix: _tower(getattr(outside, key), key) for key, prefix in _TOWERS.items()}
    tensors = {name: value for name, value in read_weights(path, reading).items() if not name.endswith(BUFFERS)}
    missing = [name for name in (EMBEDDINGS, f"{EXPANSION}.weight", f"{TOKEN_TOWER}embed_in.weight") if name not in tensors]
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(missing)}; {MAIN}")
    sizes = _sizes(tensors, towers, outside.max_length, path)
    for key, prefix in _TOWERS.items():
        _note(reading.notes, key, towers[prefix], sizes.block if key == "block_decoder" else sizes.token)
    unused = f"{BLOCK_TOWER}embed_in.weight"  # vectors are given to the block decoder
    dead = {unused: tuple(tensors[unused].shape)} if unused in tensors else {}
    return fill(BlockTransformer(sizes), dict(_originals(sizes)), dead, tensors, path)


def _sizes(tensors: Mapping[str, Tensor], towers: Mapping[str, Tower], context: int, where: Path) -> BlockTransformerConfig:
    for name, axes in ((f"{EXPANSION}.weight", 3), (f"{TOKEN_TOWER}embed_in.weight", 2), (EMBEDDINGS, 2)):
        if tensors[name].dim() != axes:
            raise CheckpointError(f"{name} in {where} has shape {tuple(tensors[name].shape)}, expected {axes} axes")
    rows, block_dim, _ = tensors[f"{EXPANSION}.weight"].shape
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
        block=_layer(tensors, BLOCK_TOWER, block_dim, towers[BLOCK_TOWER]),
        block_layers=layers_below(f"{BLOCK_TOWER}layers.", tensors),
        token=_layer(tensors, TOKEN_TOWER, token_dim, towers[TOKEN_TOWER]),
        token_layers=layers_below(f"{TOKEN_TOWER}layers.", tensors),
        context=context,
    )


def _layer(tensors: Mapping[str, Tensor], tower: str, dim: int, given: Tower) -> LayerConfig:
    heads = HEADS if given.heads is None else given.heads
    if heads < 1 or dim % heads:
        raise ConfigError(f"num_attention_heads of {tower} must divide its width {dim}, got {heads}; say so in config.json")
    head_dim, up = dim // heads, tensors.get(f"{tower}layers.0.mlp.dense_h_to_4h.bias")
    rotary_dims = int(head_dim * (ROTARY_SHARE if given.rotary_share is None else given.rotary_share))
    if rotary_dims % 2:
        raise ConfigError(f"rotary_pct of {tower} rotates {rotary_dims} of {head_dim} dimensions, expected an even number")
    ff_dim = 4 * dim if up is None else up.shape[0]  # that of the 410M model, whatever the width
    given.require(f"config.json of {tower}", dim=dim, ff_dim=ff_dim, layers=layers_below(f"{tower}layers.", tensors))
    if given.tied:
        raise CheckpointError(
            f"config.json of {tower} says tie_word_embeddings true, expected false: its head is a matrix of its own"
        )
    base = ROTARY_BASE if given.rotary_base is None else given.rotary_base
    return LayerConfig(
        dim=dim,
        heads=heads,
        head_dim=head_dim,
        ff_dim=ff_dim,
        norm_eps=NORM_EPS if given.norm_eps is None else given.norm_eps,
        activation=given.gelu("gelu", f"config.json of {tower}"),
        qkv_bias=True,
        rotary_base=base if rotary_dims else None,
        rotary_dims=rotary_dims or None,
        parallel=given.parallel is not False,
    )


def _outside(config: Mapping[str, Any]) -> _Outside:
    """Read what is not of a tower itself; raises CheckpointError if it is of another kind than the main models."""
    require_known(config, {"class", "max_length", "embedder", *_TOWERS, *ANNOTATIONS, *TRAINING}, "config.json")
    try:
        given = msgspec.convert(dict(config), _Outside)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"config.json of the Block Transformer: {error}; {MAIN}; {PAGE}") from error
    if given.max_length < 1:
        raise ConfigError(f"max_length must be at least 1, got {given.max_length}")
    return given


def _tower(given: _Tower, key: str) -> Tower:
    tower = read_tower(given.config, f"config of {key} in config.json", is_rotary=True)
    origin = given.model_name_or_path
    if origin is not None and "pythia-410m" not in origin and tower.heads is None:
        raise CheckpointError(
            f"{key} in config.json is of {origin}, expected pythia-410m, whose heads and rotary dimensions are known; say "
            "num_attention_heads and rotary_pct in its config"
        )
    return tower


def _note(notes: list[str], key: str, given: Tower, taken: LayerConfig) -> None:
    said = {name: value for name, value in msgspec.structs.asdict(given).items() if value is not None}
    values = {
        "heads": taken.heads,
        "rotary_share": ROTARY_SHARE,
        "rotary_base": ROTARY_BASE,
        "norm_eps": taken.norm_eps,
        "activation": taken.activation,
        "parallel": taken.parallel,
    }
    assumed(notes, said, {name: f"{value} ({key})" for name, value in values.items()})


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
