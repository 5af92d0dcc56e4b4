"""Reader of lucidrains' `MEGABYTE` checkpoints (MEGABYTE-pytorch 0.3.6, MIT).

The package's model is a `Megabyte` with other names. Its list of token embeddings runs from fine to coarse, all others run from
coarse to fine. One projection makes queries, another keys and values. The frequencies of rotation are saved too, and checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from ...errors import CheckpointError
from ..checkpoint import check_tensors
from ..layers.rotary import Rotary
from ..megabyte.config import MegabyteConfig
from ..megabyte.model import Megabyte
from ..weight_files import PAGE
from ..weights import Reading, read_weights
from .settings import assumed, package_kwargs

CLASS = "MEGABYTE"
EXAMPLE = (
    f'{{"class": "{CLASS}", "kwargs": {{"num_tokens": 256, "dim": [64, 48], "depth": [2, 2], "max_seq_len": [64, 4], '
    '"heads": 4, "dim_head": 16, "rel_pos": true}}'
)
VERSION = "0.3.6"
FREQUENCIES = "rotary_emb.inv_freq"


class _Kwargs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The package's constructor arguments and their defaults.

    Dropout, the id of padding (which only the loss and what follows an incomplete patch see) and the kernel of attention do not
    change what the model computes.
    """

    num_tokens: int
    dim: int | list[int]
    depth: list[int]
    max_seq_len: list[int]
    dim_head: int = 64
    heads: int = 8
    attn_dropout: float = 0.0
    ff_mult: int = 4
    ff_dropout: float = 0.0
    pad_id: int = 0
    rel_pos: bool = False
    pos_emb: bool = False
    flash_attn: bool = False


def is_megabyte(config: Mapping[str, Any], path: Path) -> bool:
    """Whether a checkpoint's `config.json` names the package's class."""
    return config.get("class") == CLASS


def config_from_kwargs(kwargs: Mapping[str, Any]) -> MegabyteConfig:
    """Translate the constructor's arguments.

    Raises:
        CheckpointError: arguments the package does not have, or of another type.
        ConfigError: sizes that contradict each other.
    """
    try:
        given = msgspec.convert(dict(kwargs), _Kwargs)
    except msgspec.ValidationError as error:
        raise CheckpointError(
            f"kwargs of {CLASS} in config.json: {error}; expected something like {EXAMPLE}; {PAGE}"
        ) from error
    return MegabyteConfig(
        vocab_size=given.num_tokens,
        dims=(given.dim,) * len(given.depth) if isinstance(given.dim, int) else tuple(given.dim),
        depths=tuple(given.depth),
        lengths=tuple(given.max_seq_len),
        heads=given.heads,
        head_dim=given.dim_head,
        ff_mult=given.ff_mult,
        rotary=given.rel_pos,
        learned_positions=given.pos_emb,
    )


def load_megabyte(path: Path, config: Mapping[str, Any], reading: Reading | None = None) -> Megabyte:
    """Load a checkpoint, its directory or its file of weights, given its parsed `config.json`; fp32, in eval mode.

    Raises:
        CheckpointError: another version of the package, no weights, tensors that are missing, left over or of another shape, by
            their original names, or frequencies that are not the package's.
        ConfigError: as `config_from_kwargs`.
    """
    reading = reading or Reading()
    version = config.get("version", VERSION)
    if version != VERSION:
        raise CheckpointError(
            f"config.json is of MEGABYTE-pytorch {version}, expected {VERSION}: other versions compute other "
            f'things under the same names; if it was trained with {VERSION}, correct "version"; {PAGE}'
        )
    kwargs = package_kwargs(config, CLASS, EXAMPLE)
    model_config = config_from_kwargs(kwargs)
    values = {"version": VERSION, "heads": model_config.heads, "dim_head": model_config.head_dim}
    assumed(reading.notes, {**kwargs, **config}, values)
    return from_state_dict(read_weights(path, reading), model_config, path)


def from_state_dict(tensors: dict[str, Tensor], config: MegabyteConfig, where: Path) -> Megabyte:
    """Build the model from the package's own `state_dict`; `where` is named in errors."""
    model = Megabyte(config)
    ours, names = model.state_dict(), dict(_names(config))
    expected = {name: shape for key, theirs in names.items() for name, shape in _shapes(theirs, tuple(ours[key].shape))}
    frequencies = [f"transformers.{scale}.{FREQUENCIES}" for scale in range(len(config.dims)) if config.rotary]
    check_tensors(tensors, {**expected, **dict.fromkeys(frequencies, (config.head_dim // 2,))}, where)
    for name in frequencies:
        _check_frequencies(tensors[name], config, f"{name} in {where}")
    model.load_state_dict({key: torch.cat([tensors[name].float() for name in theirs]) for key, theirs in names.items()})
    return model.eval()


def _shapes(names: tuple[str, ...], shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Of the originals of a tensor of ours: itself, or queries `[I, D]` above keys and values `[2 I, D]`."""
    if len(names) == 1:
        yield names[0], shape
    else:
        rows, *rest = shape
        yield names[0], (rows // 3, *rest)
        yield names[1], (rows // 3 * 2, *rest)


def _check_frequencies(found: Tensor, config: MegabyteConfig, what: str) -> None:
    """They are no weights, so that others than the package's mean another model; half precision has rounded them."""
    expected = Rotary(config.layer(0)).inverse_frequency
    stored = [expected.to(dtype).float() for dtype in (torch.float32, torch.float16, torch.bfloat16)]
    if not any(torch.allclose(found, frequencies, rtol=1e-5, atol=1e-7) for frequencies in stored):
        raise CheckpointError(f"{what} are not the frequencies of rotary positions of base 10000, the only ones it has")


Names = Iterator[tuple[str, tuple[str, ...]]]
"""Names of tensors of ours, and of the originals that make up each, one above the other."""


def _names(config: MegabyteConfig) -> Names:
    last = len(config.dims) - 1
    for scale in range(last):
        ours, embed = f"coarse.{scale}.", f"token_embs.{last - scale}."
        yield from _scale_names(ours, scale, config)
        yield f"{ours}embed.tokens.weight", (f"{embed}0.weight",)
        yield from _pair(f"{ours}embed.norm", f"{embed}2")
        yield from _pair(f"{ours}embed.project", f"{embed}3")
        yield from _pair(f"{ours}embed.norm_out", f"{embed}4")
        yield from _pair(f"{ours}down", f"to_next_transformer_projections.{scale}.1")
    yield from _scale_names("fine.", last, config)
    yield "fine.embed.weight", ("token_embs.0.weight",)
    yield from _pair("fine.logits", "to_logits")


def _scale_names(ours: str, scale: int, config: MegabyteConfig) -> Names:
    theirs = f"transformers.{scale}."
    yield f"{ours}start", (f"start_tokens.{scale}",)
    if config.learned_positions:
        yield f"{ours}positions.weight", (f"pos_embs.{scale}.weight",)
    yield f"{ours}norm.scale", (f"{theirs}norm.g",)
    for layer in range(config.depths[scale]):
        block, attention, ff = (f"{ours}stack.layers.{layer}.", *(f"{theirs}layers.{layer}.{part}." for part in (0, 1)))
        yield f"{block}norm.scale", (f"{attention}norm.g",)
        yield f"{block}attention.qkv.weight", (f"{attention}to_q.weight", f"{attention}to_kv.weight")
        yield f"{block}attention.out.weight", (f"{attention}to_out.weight",)
        yield f"{block}feed_forward.norm.scale", (f"{ff}0.g",)
        yield from _pair(f"{block}feed_forward.up", f"{ff}1")
        yield from _pair(f"{block}feed_forward.down", f"{ff}4")


def _pair(ours: str, theirs: str) -> Names:
    for kind in ("weight", "bias"):
        yield f"{ours}.{kind}", (f"{theirs}.{kind}",)
