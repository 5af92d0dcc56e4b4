"""Reader of lucidrains' `HourglassTransformerLM` checkpoints (hourglass-transformer-pytorch 0.0.6, MIT).

The package's model is an `Hourglass` with other names. What differs in more than names: one projection makes queries, another
keys and values; and the attention that resamples after the valley has a single key, so that its query, its key and its norm
are dead weights, which are checked and dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from torch import Tensor

from ...errors import CheckpointError, ConfigError
from ...hierarchy import Hierarchy
from ..checkpoint import check_tensors
from ..config import ModelConfig, Shortening, Upsampling
from ..hourglass.model import Hourglass
from ..weight_files import PAGE
from ..weights import Reading, read_weights
from .settings import assumed, package_kwargs

CLASS = "HourglassTransformerLM"
EXAMPLE = (
    f'{{"class": "{CLASS}", "kwargs": {{"num_tokens": 256, "dim": 64, "max_seq_len": 512, "depth": [2, [1, 2, 1], 2], '
    '"shorten_factor": [2, 4], "heads": 4, "dim_head": 16}}'
)
FF_MULT = 4  # fixed in the package


class _Kwargs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The package's constructor arguments and their defaults."""

    num_tokens: int
    dim: int
    max_seq_len: int
    depth: Any
    shorten_factor: int | list[int] | None = None
    heads: int = 8
    dim_head: int = 64
    attn_resampling: bool = True
    updown_sample_type: Literal["naive", "linear"] = "naive"
    causal: bool = True


def is_lucidrains(config: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's `config.json` names the package's class."""
    return config.get("class") == CLASS


def config_from_kwargs(kwargs: Mapping[str, Any]) -> ModelConfig:
    """Translate the constructor's arguments.

    Raises:
        CheckpointError: arguments the package does not have, or of another type.
        ConfigError: a model that can't be decoded incrementally, or factors that do not fit the depth.
    """
    try:
        given = msgspec.convert(dict(kwargs), _Kwargs)
    except msgspec.ValidationError as error:
        raise CheckpointError(
            f"kwargs of {CLASS} in config.json: {error}; expected something like {EXAMPLE}; {PAGE}"
        ) from error
    if not given.causal:
        raise ConfigError("the checkpoint has causal=False; only causal models can be decoded token by token")
    is_linear, is_attention = given.updown_sample_type == "linear", given.attn_resampling
    shortening: dict[tuple[bool, bool], Shortening] = {
        (False, False): "average",
        (False, True): "attention",
        (True, False): "linear",
        (True, True): "linear+attention",
    }
    upsampling: dict[tuple[bool, bool], Upsampling] = {
        (False, False): "repeat",
        (False, True): "attention",
        (True, False): "linear",
        (True, True): "linear+attention",
    }
    return ModelConfig(
        hierarchy=str(_hierarchy(given.depth, given.shorten_factor)),
        vocab_size=given.num_tokens,
        dim=given.dim,
        heads=given.heads,
        head_dim=given.dim_head,
        ff_dim=FF_MULT * given.dim,
        max_positions=given.max_seq_len,
        shortening=shortening[is_linear, is_attention],
        upsampling=upsampling[is_linear, is_attention],
        tie_embeddings=False,
        head_bias=True,
    )


def _hierarchy(depth: Any, shorten_factor: int | list[int] | None) -> Hierarchy:
    """Unfold `(pre, (pre, valley, post), post)`; an int factor serves every level, a list is used outermost first."""
    outside: list[tuple[int, int]] = []
    while type(depth) is not int:
        if not isinstance(depth, (list, tuple)) or len(depth) != 3:
            raise ConfigError(f"depth must be an integer or [pre, inside, post], got {depth!r}")
        if not all(type(count) is int for count in (depth[0], depth[2])):
            raise ConfigError(f"depth must have integers of layers before and after, got {depth!r}")
        outside.append((depth[0], depth[2]))
        depth = depth[1]
    if outside and shorten_factor is None:
        shorten_factor = 2  # the package's default for a level
    factors = list(shorten_factor) if isinstance(shorten_factor, list) else [shorten_factor or 1] * len(outside)
    if len(factors) < len(outside):
        raise ConfigError(
            f"shorten_factor {factors} has {len(factors)} entries, expected one for each of {len(outside)} levels"
        )
    return Hierarchy.nested(outside, depth, factors[: len(outside)])


def load_lucidrains(path: Path, config: Mapping[str, Any], reading: Reading | None = None) -> Hourglass:
    """Load a checkpoint, its directory or its file of weights, given its parsed `config.json`; fp32, in eval mode.

    Raises:
        CheckpointError: no weights, or tensors that are missing, left over or of another shape, by their original names.
        ConfigError: as `config_from_kwargs`.
    """
    reading = reading or Reading()
    kwargs = package_kwargs(config, CLASS, EXAMPLE)
    model_config = config_from_kwargs(kwargs)
    assumed(reading.notes, kwargs, {"heads": model_config.heads, "dim_head": model_config.head_dim})
    return from_state_dict(read_weights(path, reading), model_config, path)


def from_state_dict(tensors: dict[str, Tensor], config: ModelConfig, where: Path) -> Hourglass:
    """Build the model from the package's own `state_dict`; `where` is named in errors."""
    model = Hourglass(config)
    ours = model.state_dict()
    parts = list(_model_parts(config))
    check_tensors(tensors, _expected_shapes(parts, ours, config), where)
    renamed = {part.ours: part.take(tensors) for part in parts if part.ours is not None}
    model.load_state_dict(renamed)
    return model.eval()


@dataclass(frozen=True)
class _Part:
    """Where one of our tensors comes from: originals put one below the other, or the second half of one.

    `ours` is None for an original that nothing depends on; then `like` names a tensor of ours with its shape.
    """

    ours: str | None
    originals: tuple[str, ...]
    is_second_half: bool = False
    dead_shape: tuple[int, ...] = ()

    def take(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Our tensor, fp32."""
        joined = torch.cat([tensors[name].float() for name in self.originals])
        return joined.chunk(2)[1] if self.is_second_half else joined


def _expected_shapes(parts: list[_Part], ours: Mapping[str, Tensor], config: ModelConfig) -> dict[str, tuple[int, ...]]:
    inner = config.heads * config.head_dim
    shapes: dict[str, tuple[int, ...]] = {}
    for part in parts:
        if part.ours is None:
            shapes[part.originals[0]] = part.dead_shape
        elif part.is_second_half:
            rows, *rest = ours[part.ours].shape
            shapes[part.originals[0]] = (2 * rows, *rest)
        elif len(part.originals) == 2:  # to_q [inner, D] above to_kv [2 inner, D]
            shapes[part.originals[0]] = (inner, config.dim)
            shapes[part.originals[1]] = (2 * inner, config.dim)
        else:
            shapes[part.originals[0]] = tuple(ours[part.ours].shape)
    return shapes


def _model_parts(config: ModelConfig) -> Iterator[_Part]:
    yield _Part("embed.tokens.weight", ("token_emb.weight",))
    yield _Part("embed.positions.weight", ("pos_emb.weight",))
    hierarchy = config.levels
    if hierarchy.is_vanilla:
        yield from _stack_parts("root.", "transformer.", hierarchy.depth)
    else:
        yield from _level_parts("root.", "transformer.", hierarchy, config)
    yield from _pair("head.norm", "transformer.norm" if hierarchy.is_vanilla else "transformer.norm_out")
    yield from _pair("head.logits", "to_logits")


def _level_parts(ours: str, theirs: str, hierarchy: Hierarchy, config: ModelConfig) -> Iterator[_Part]:
    yield from _stack_parts(f"{ours}pre.", f"{theirs}pre_transformer.", hierarchy.levels[0].layers)
    yield from _stack_parts(f"{ours}post.", f"{theirs}post_transformer.", hierarchy.levels[-1].layers)
    if config.shortening.startswith("linear"):
        yield from _pair(f"{ours}shorten.pool", f"{theirs}downsample.proj")
        yield from _pair(f"{ours}lengthen.spread", f"{theirs}upsample.proj")
    if config.shortening.endswith("attention"):
        yield from _resampling_parts(ours, theirs, config)
    inside, inner = hierarchy.inner, f"{theirs}valley_transformer."
    if inside.is_vanilla:
        yield from _stack_parts(f"{ours}inner.", inner, inside.depth)
    else:
        yield from _level_parts(f"{ours}inner.", inner, inside, config)


def _stack_parts(ours: str, theirs: str, layers: int) -> Iterator[_Part]:
    for index in range(layers):
        block, attention = f"{ours}layers.{index}.", f"{theirs}layers.{index}.0."
        yield from _pair(f"{block}norm", f"{attention}norm")
        yield _Part(f"{block}attention.qkv.weight", (f"{attention}fn.to_q.weight", f"{attention}fn.to_kv.weight"))
        yield from _pair(f"{block}attention.out", f"{attention}fn.to_out")
        yield from _feed_forward_parts(f"{block}feed_forward.", f"{theirs}layers.{index}.1.")


def _feed_forward_parts(ours: str, theirs: str) -> Iterator[_Part]:
    yield from _pair(f"{ours}norm", f"{theirs}norm")
    yield from _pair(f"{ours}up", f"{theirs}fn.0")
    yield from _pair(f"{ours}down", f"{theirs}fn.3")


def _resampling_parts(ours: str, theirs: str, config: ModelConfig) -> Iterator[_Part]:
    down = f"{theirs}attn_resampling_pre_valley.layers.0."
    yield from _pair(f"{ours}shorten.attention.norm", f"{down}0.norm")
    yield _Part(f"{ours}shorten.attention.query.weight", (f"{down}0.fn.to_q.weight",))
    yield _Part(f"{ours}shorten.attention.key_value.weight", (f"{down}0.fn.to_kv.weight",))
    yield from _pair(f"{ours}shorten.attention.out", f"{down}0.fn.to_out")
    yield from _feed_forward_parts(f"{ours}shorten.feed_forward.", f"{down}1.")
    up = f"{theirs}attn_resampling_post_valley.layers.0."
    yield _Part(None, (f"{up}0.norm.weight",), dead_shape=(config.dim,))
    yield _Part(None, (f"{up}0.norm.bias",), dead_shape=(config.dim,))
    yield _Part(None, (f"{up}0.fn.to_q.weight",), dead_shape=(config.heads * config.head_dim, config.dim))
    yield _Part(f"{ours}lengthen.value.weight", (f"{up}0.fn.to_kv.weight",), is_second_half=True)
    yield from _pair(f"{ours}lengthen.out", f"{up}0.fn.to_out")
    yield from _feed_forward_parts(f"{ours}merge.feed_forward.", f"{up}1.")


def _pair(ours: str, theirs: str) -> Iterator[_Part]:
    for kind in ("weight", "bias"):
        yield _Part(f"{ours}.{kind}", (f"{theirs}.{kind}",))
