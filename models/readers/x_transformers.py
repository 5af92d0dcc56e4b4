"""Reader of vanilla checkpoints of lucidrains' x-transformers (MIT): a `TransformerWrapper` around a plain `Decoder`.

The model is an `Hourglass` of one level. What differs in more than names: neither norms nor the way out of attention have a
bias, for which ours get zeros; norms scale by `1 + gamma` (before the option `norm_add_unit_offset` there was: by `gamma`); and
learned positions, and the logits of a tied head, are scaled by `dim ** -0.5`. The package has a hundred options more, which
leave no trace in the names of tensors, so that `config.json` has to say which were used; others than the few below are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from torch import Tensor

from ...errors import CheckpointError
from ..checkpoint import check_tensors
from ..config import ModelConfig
from ..hourglass.model import Hourglass
from ..weight_files import PAGE
from ..weights import Reading, read_weights
from .settings import assumed, package_kwargs, words

CLASS = "TransformerWrapper"

Shapes = dict[str, tuple[int, ...]]


EXAMPLE = (
    f'{{"class": "{CLASS}", "kwargs": {{"num_tokens": 256, "max_seq_len": 512, '
    '"attn_layers": {"class": "Decoder", "dim": 64, "depth": 2, "heads": 4}}}'
)
_TRAINING = words(
    "emb_dropout emb_frac_gradient attn_z_loss_weight max_mem_len shift_mem_down train_max_recycle_steps attn_flash "
    "attn_dropout ff_dropout layer_dropout cross_attn_tokens_dropout attn_sublayer_dropout ff_sublayer_dropout "
    "zero_init_branch_output attn_zero_init_output ff_zero_init_output attn_onnxable layerscale_init_value "
    "num_cls_tokens dropout token_emb_dropout attn_use_flash ff_use_dropout"
)
"""Options of training, of kernels and of what is off: whatever they are, logits in eval mode are the same."""
_OFF = words(
    "emb_dim post_emb_norm num_memory_tokens memory_tokens_interspersed_every logits_dim return_only_embed "
    "scaled_sinu_pos_emb l2norm_embed recycling average_pool_embed use_cls_token squeeze_out_last_dim token_emb "
    "mixture_of_softmax sigsoftmax_logits to_logits cross_attend only_cross use_scalenorm use_rmsnorm "
    "use_simple_rmsnorm use_adaptive_layernorm use_adaptive_rmsnorm use_adaptive_layerscale dim_condition "
    "alibi_pos_bias rel_pos_bias dynamic_pos_bias rotary_pos_emb rotary_xpos weight_tie_layers custom_layers "
    "layers_execute_order sandwich_coef par_ratio residual_attn cross_residual_attn macaron gate_residual "
    "scale_residual shift_tokens sandwich_norm softclamp_output disable_abs_pos_emb use_layerscale unet_skips "
    "qkv_receive_diff_residuals reinject_input learned_reinject_input_gate add_value_residual attn_pre_talking_heads "
    "attn_post_talking_heads attn_head_scale attn_sparse_topk attn_num_mem_kv attn_gate_value_heads "
    "attn_swiglu_values attn_gate_values attn_hard attn_max_attend_past attn_qk_norm attn_l2_distance attn_sigmoid "
    "attn_selective attn_one_kv_head attn_kv_heads attn_value_dim_head attn_add_zero_kv attn_rotate_num_heads "
    "attn_data_dependent_alibi attn_use_cope attn_softclamp_logits attn_laser attn_use_latent_q attn_use_latent_kv "
    "ff_glu ff_swish ff_relu_squared ff_post_act_ln ff_no_bias ff_solu use_dynamic_tanh use_derf only_attn"
)
"""Options that change the model, and may be said to be off."""
_ON = {"pre_norm": True, "pre_norm_has_final_norm": True, "num_output_heads": 1, "num_residual_streams": 1, "causal": True}
"""Options that may have this value only, which is the default of a `Decoder`."""


class _Decoder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="class", tag="Decoder"):
    """The arguments of `Decoder` and their defaults; `norm_add_unit_offset` not given: as the tensors' names tell."""

    dim: int
    depth: int
    heads: int = 8
    attn_dim_head: int = 64
    ff_mult: int = 4
    norm_add_unit_offset: bool | None = None


class _Kwargs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The arguments of `TransformerWrapper` and their defaults."""

    num_tokens: int
    max_seq_len: int
    attn_layers: _Decoder
    tie_embedding: bool = False
    tie_embedding_scale: float | None = None
    use_abs_pos_emb: Literal[True] = True


def is_x_transformers(config: Mapping[str, Any], _path: Path) -> bool:
    """Whether a checkpoint's `config.json` names the package's class."""
    return config.get("class") == CLASS


def load_x_transformers(path: Path, config: Mapping[str, Any], reading: Reading | None = None) -> Hourglass:
    """Load a checkpoint, its directory or its file of weights, given its parsed `config.json`; fp32, in eval mode.

    Raises:
        CheckpointError: arguments of another model than a plain decoder with learned positions; no weights; or tensors that are
            missing, left over or of another shape, by their original names.
        ConfigError: sizes that contradict each other.
    """
    reading = reading or Reading()
    kwargs = package_kwargs(config, CLASS, EXAMPLE)
    given = _given(kwargs)
    tensors = read_weights(path, reading)
    gamma, has_bias, is_offset = _norms(tensors, given, reading.notes)
    own = _config(given, has_head_bias="to_logits.bias" in tensors)
    model = Hourglass(own)
    origins = dict(_origins(own, given.tie_embedding, gamma, has_bias))
    check_tensors(tensors, {name: shape for shapes in origins.values() for name, shape in shapes.items()}, path)
    biases = {name: torch.zeros_like(value) for name, value in model.state_dict().items() if name not in origins}
    joined = {name: torch.cat([tensors[original] for original in shapes]) for name, shapes in origins.items()}
    model.load_state_dict({**biases, **_scaled(joined, given, is_offset)})
    decoder = kwargs["attn_layers"]
    assumed(reading.notes, decoder, {"heads": given.attn_layers.heads, "attn_dim_head": given.attn_layers.attn_dim_head})
    return model.eval()


def _norms(tensors: Mapping[str, Tensor], given: _Kwargs, notes: list[str]) -> tuple[tuple[str, str], bool, bool]:
    """What gamma and beta are called, whether there is a beta, and whether norms scale by 1 + gamma.

    Versions to 1.30 have PyTorch's LayerNorm (`weight`, to 1.26 also `bias`); those before PyTorch 2.1 had `gamma` beside a
    `beta`; since 1.31 `gamma` is counted from 1, unless `norm_add_unit_offset` is off.
    """
    final, asked = "attn_layers.final_norm.", given.attn_layers.norm_add_unit_offset
    gamma, beta = ("weight", "bias") if f"{final}weight" in tensors else ("gamma", "beta")
    has_beta = f"{final}{beta}" in tensors
    is_old = gamma == "weight" or has_beta
    if is_old and asked:
        raise CheckpointError(
            f"config.json says norm_add_unit_offset true, but norms with {beta if has_beta else gamma} are of versions before "
            "that option; remove it"
        )
    if not is_old and asked is None:
        notes.append(
            "not in config.json, nor seen in the tensors, so assumed: norm_add_unit_offset true (norms scale by 1 + gamma, as "
            "in x-transformers 1.31 and later)"
        )
    return (gamma, beta), has_beta, not is_old and asked is not False


def _scaled(tensors: dict[str, Tensor], given: _Kwargs, is_offset: bool) -> dict[str, Tensor]:
    """With what the package multiplies by in its forward."""
    scale = given.attn_layers.dim**-0.5
    tensors["embed.positions.weight"] = tensors["embed.positions.weight"] * scale
    if given.tie_embedding:
        tensors["head.logits.weight"] = tensors["head.logits.weight"] * (
            scale if given.tie_embedding_scale is None else given.tie_embedding_scale
        )
    if is_offset:
        tensors |= {name: 1 + gamma for name, gamma in tensors.items() if name.endswith("norm.weight")}
    return tensors


def _given(kwargs: Mapping[str, Any]) -> _Kwargs:
    try:
        plain = dict(_without_effect(kwargs))
        if isinstance(plain.get("attn_layers"), Mapping):
            plain["attn_layers"] = dict(_without_effect(plain["attn_layers"]))
        return msgspec.convert(plain, _Kwargs)
    except msgspec.ValidationError as error:
        raise CheckpointError(
            f"kwargs of {CLASS} in config.json: {error}; what can be read is a plain Decoder with learned "
            f"positions: {', '.join(_Kwargs.__struct_fields__)}, and of attn_layers: class, "
            f"{', '.join(_Decoder.__struct_fields__)}; {PAGE}"
        ) from error


def _without_effect(kwargs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in kwargs.items():
        is_off = key in _OFF and (value is None or value is False or (value == 0 and isinstance(value, (int, float))))
        is_usual = key in _ON and type(value) is type(_ON[key]) and value == _ON[key]
        if not (key in _TRAINING or is_off or is_usual):
            yield key, value


def _config(given: _Kwargs, has_head_bias: bool) -> ModelConfig:
    layers = given.attn_layers
    return ModelConfig(
        hierarchy=f"{layers.depth}@1",
        vocab_size=given.num_tokens,
        dim=layers.dim,
        heads=layers.heads,
        head_dim=layers.attn_dim_head,
        ff_dim=layers.ff_mult * layers.dim,
        max_positions=given.max_seq_len,
        tie_embeddings=False,
        head_bias=has_head_bias,
    )


def _origins(config: ModelConfig, is_tied: bool, norm: tuple[str, str], has_bias: bool) -> Iterator[tuple[str, Shapes]]:
    """Of each tensor of ours those that it is made of, put one below the other."""
    dim, inner, wide = config.dim, config.heads * config.head_dim, config.ff_dim

    def norms(ours: str, theirs: str) -> Iterator[tuple[str, Shapes]]:
        for kind, original in (("weight", norm[0]), *((("bias", norm[1]),) if has_bias else ())):
            yield f"{ours}norm.{kind}", {f"{theirs}{original}": (dim,)}

    yield "embed.tokens.weight", {"token_emb.emb.weight": (config.vocab_size, dim)}
    yield "embed.positions.weight", {"pos_emb.emb.weight": (config.max_positions, dim)}
    for index in range(config.levels.depth):
        ours = f"root.layers.{index}."
        attention, feed_forward = (f"attn_layers.layers.{2 * index + half}." for half in range(2))
        yield from norms(ours, f"{attention}0.0.")
        yield f"{ours}attention.qkv.weight", {f"{attention}1.to_{part}.weight": (inner, dim) for part in "qkv"}
        yield f"{ours}attention.out.weight", {f"{attention}1.to_out.weight": (dim, inner)}
        yield from norms(f"{ours}feed_forward.", f"{feed_forward}0.0.")
        yield f"{ours}feed_forward.up.weight", {f"{feed_forward}1.ff.0.0.weight": (wide, dim)}
        yield f"{ours}feed_forward.up.bias", {f"{feed_forward}1.ff.0.0.bias": (wide,)}
        yield f"{ours}feed_forward.down.weight", {f"{feed_forward}1.ff.2.weight": (dim, wide)}
        yield f"{ours}feed_forward.down.bias", {f"{feed_forward}1.ff.2.bias": (dim,)}
    yield from norms("head.", "attn_layers.final_norm.")
    logits = "token_emb.emb.weight" if is_tied else "to_logits.weight"
    yield "head.logits.weight", {logits: (config.vocab_size, dim)}
    if config.head_bias:
        yield "head.logits.bias", {"to_logits.bias": (config.vocab_size,)}
