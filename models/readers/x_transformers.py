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
from ..checkpoint import check_tensors, read_weights
from ..config import ModelConfig
from ..hourglass.model import Hourglass
from .files import package_kwargs, package_weights

CLASS = "TransformerWrapper"

Shapes = dict[str, tuple[int, ...]]


class _Decoder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="class", tag="Decoder"):
    """The arguments of `Decoder` and their defaults."""

    dim: int
    depth: int
    heads: int = 8
    attn_dim_head: int = 64
    ff_mult: int = 4
    norm_add_unit_offset: bool = True


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


def load_x_transformers(directory: Path, config: Mapping[str, Any]) -> Hourglass:
    """Load a checkpoint directory given its parsed `config.json`; weights widened to fp32, in eval mode.

    Weights are `model.safetensors`, or a plain `state_dict` saved by torch, which is read with `weights_only=True`.

    Raises:
        CheckpointError: arguments of another model than a plain decoder with learned positions; no weights; or tensors that are
            missing, left over or of another shape, by their original names.
        ConfigError: sizes that contradict each other.
    """
    given = _given(package_kwargs(directory, config, CLASS), directory)
    model, path = Hourglass(_config(given)), package_weights(directory)
    tensors, origins = read_weights(path), dict(_origins(model.config, given.tie_embedding))
    check_tensors(tensors, {name: shape for shapes in origins.values() for name, shape in shapes.items()}, path)
    biases = {name: torch.zeros_like(value) for name, value in model.state_dict().items() if name not in origins}
    joined = {name: torch.cat([tensors[original].float() for original in shapes]) for name, shapes in origins.items()}
    model.load_state_dict({**biases, **_scaled(joined, given)})
    return model.eval()


def _scaled(tensors: dict[str, Tensor], given: _Kwargs) -> dict[str, Tensor]:
    """With what the package multiplies by in its forward."""
    scale = given.attn_layers.dim**-0.5
    tensors["embed.positions.weight"] *= scale
    if given.tie_embedding:
        tensors["head.logits.weight"] *= scale if given.tie_embedding_scale is None else given.tie_embedding_scale
    if given.attn_layers.norm_add_unit_offset:
        tensors |= {name: 1 + gamma for name, gamma in tensors.items() if name.endswith("norm.weight")}
    return tensors


def _given(kwargs: Mapping[str, Any], directory: Path) -> _Kwargs:
    try:
        return msgspec.convert(dict(kwargs), _Kwargs)
    except msgspec.ValidationError as error:
        raise CheckpointError(
            f"kwargs of {CLASS} in {directory / 'config.json'}: {error}; what can be read is a plain Decoder with learned "
            f"positions: {', '.join(_Kwargs.__struct_fields__)}, and of attn_layers: class, "
            f"{', '.join(_Decoder.__struct_fields__)}"
        ) from error


def _config(given: _Kwargs) -> ModelConfig:
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
    )


def _origins(config: ModelConfig, is_tied: bool) -> Iterator[tuple[str, Shapes]]:
    """Of each tensor of ours those that it is made of, put one below the other."""
    dim, inner, wide = config.dim, config.heads * config.head_dim, config.ff_dim
    yield "embed.tokens.weight", {"token_emb.emb.weight": (config.vocab_size, dim)}
    yield "embed.positions.weight", {"pos_emb.emb.weight": (config.max_positions, dim)}
    for index in range(config.levels.depth):
        ours = f"root.layers.{index}."
        attention, feed_forward = (f"attn_layers.layers.{2 * index + half}." for half in range(2))
        yield f"{ours}norm.weight", {f"{attention}0.0.gamma": (dim,)}
        yield f"{ours}attention.qkv.weight", {f"{attention}1.to_{part}.weight": (inner, dim) for part in "qkv"}
        yield f"{ours}attention.out.weight", {f"{attention}1.to_out.weight": (dim, inner)}
        yield f"{ours}feed_forward.norm.weight", {f"{feed_forward}0.0.gamma": (dim,)}
        yield f"{ours}feed_forward.up.weight", {f"{feed_forward}1.ff.0.0.weight": (wide, dim)}
        yield f"{ours}feed_forward.up.bias", {f"{feed_forward}1.ff.0.0.bias": (wide,)}
        yield f"{ours}feed_forward.down.weight", {f"{feed_forward}1.ff.2.weight": (dim, wide)}
        yield f"{ours}feed_forward.down.bias", {f"{feed_forward}1.ff.2.bias": (dim,)}
    yield "head.norm.weight", {"attn_layers.final_norm.gamma": (dim,)}
    logits = "token_emb.emb.weight" if is_tied else "to_logits.weight"
    yield "head.logits.weight", {logits: (config.vocab_size, dim)}
