"""Reader of H-Net checkpoints (github.com/goombalab/hnet at 3673fe1, MIT): its JSON of sizes, and the weights beside it.

The original's model is an `HNet` with other names, nested as the scales are. Its feed-forward blocks have the gate below what
is gated, ours above. Its window is of rows before a row, and does not count that row itself.
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
from ..hnet.config import HNetConfig, ScaleConfig, layers_of
from ..hnet.model import HNet
from ..weight_files import PAGE
from ..weights import Reading, read_weights
from .settings import ANNOTATIONS, package_kwargs

CLASS = "HNetForCausalLM"
LAYOUT = "arch_layout"
EXAMPLE = (
    '{"arch_layout": ["m4", ["T22"], "m4"], "d_model": [1024, 1536], "d_intermediate": [0, 4096], "vocab_size": 256, '
    '"ssm_cfg": {"chunk_size": 256, "d_conv": 4, "d_state": 128, "expand": 2}, "attn_cfg": {"num_heads": [16, 16], '
    '"rotary_emb_dim": [32, 48], "window_size": [1023, -1]}, "tie_embeddings": false}'
)
EVERYTHING = -1
"""What the original calls a window that has no end."""
_CHUNK, _CHUNK_OF_SEVERAL = 4.5, 3.0
"""Rows of a chunk that the paper's models come to with one router, and with two each. Nothing is computed with it."""
_HEAD, _TABLE = "lm_head.weight", "embeddings.weight"


class _Ssm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of the Mamba-2 layers, with the original's defaults. `chunk_size` is of its kernel, and changes no sum."""

    d_conv: int = 4
    expand: int = 2
    d_state: int = 128
    chunk_size: int = 256


class _Attention(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of the attention layers of each scale."""

    num_heads: list[int]
    rotary_emb_dim: list[int]
    window_size: list[int]


class _Kwargs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The original's configuration and its defaults."""

    arch_layout: list[Any]
    d_model: list[int]
    d_intermediate: list[int]
    vocab_size: int = 256
    ssm_cfg: _Ssm = _Ssm()
    attn_cfg: _Attention
    tie_embeddings: bool = False


def is_hnet(config: Mapping[str, Any], _path: Path) -> bool:
    """Whether a checkpoint's `config.json` is one of the original's, or names its class."""
    return config.get("class") == CLASS or (LAYOUT in config and "class" not in config)


def config_from_kwargs(kwargs: Mapping[str, Any]) -> HNetConfig:
    """Translate the original's configuration.

    Raises:
        CheckpointError: settings that the original does not have, or of another type, or not for every scale.
        ConfigError: sizes that contradict each other.
    """
    try:
        given = msgspec.convert(dict(kwargs), _Kwargs)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"config.json of {CLASS}: {error}; expected something like {EXAMPLE}; {PAGE}") from error
    towers = list(_towers(given.arch_layout))
    attention, ssm = given.attn_cfg, given.ssm_cfg
    lists = {
        "d_model": given.d_model,
        "d_intermediate": given.d_intermediate,
        "attn_cfg.num_heads": attention.num_heads,
        "attn_cfg.rotary_emb_dim": attention.rotary_emb_dim,
        "attn_cfg.window_size": attention.window_size,
    }
    for name, values in lists.items():
        if len(values) != len(towers):
            raise CheckpointError(f"config.json of {CLASS} has {len(values)} {name}, but {LAYOUT} has {len(towers)} scales")
    return HNetConfig(
        vocab_size=given.vocab_size,
        scales=tuple(_scale(given, place, layouts) for place, layouts in enumerate(towers)),
        state=ssm.d_state,
        taps=ssm.d_conv,
        expand=ssm.expand,
        tied=given.tie_embeddings,
        chunk=_CHUNK if len(towers) == 2 else _CHUNK_OF_SEVERAL,
    )


def load_hnet(path: Path, config: Mapping[str, Any], reading: Reading | None = None) -> HNet:
    """Load a checkpoint, its directory or its file of weights, given its parsed `config.json`; fp32, in eval mode.

    Raises:
        CheckpointError: no weights, tensors that are missing, left over or of another shape, by their original names; a head
            that is said to be the token table and is not.
        ConfigError: as `config_from_kwargs`.
    """
    if "class" in config:
        kwargs = package_kwargs(config, CLASS, EXAMPLE, ("repository", "commit", "stages"))
    else:
        kwargs = {key: value for key, value in config.items() if key not in ANNOTATIONS}
    return from_state_dict(read_weights(path, reading or Reading()), config_from_kwargs(kwargs), path)


def from_state_dict(tensors: dict[str, Tensor], config: HNetConfig, where: Path) -> HNet:
    """Build the model from the original's own `state_dict`; `where` is named in errors."""
    model = HNet(config)
    ours, names = model.state_dict(), dict(_names(config))
    if config.tied:
        table, head = tensors.get(_TABLE), tensors.get(_HEAD)
        if table is not None and head is not None and not torch.equal(table, head):
            raise CheckpointError(
                f'config.json says "tie_embeddings": true, but {_HEAD} in {where} is not {_TABLE}; correct it'
            )
        tensors = {name: value for name, value in tensors.items() if name != _HEAD}
        names["exit.logits.weight"] = _TABLE
    expected = _originals({key: tuple(ours[key].shape) for key in ours}, names)
    check_tensors(tensors, expected, where)
    model.load_state_dict({key: _value(tensors, theirs) for key, theirs in names.items()})
    return model.eval()


def _towers(layout: Any, depth: int = 0) -> Iterator[tuple[str, ...]]:
    """Layers of the towers of each scale, outermost first, out of `[encoder, [...], decoder]` and at last `[only one]`."""
    if isinstance(layout, list) and len(layout) == 1 and isinstance(layout[0], str):
        yield (layout[0],)
        return
    is_nested = isinstance(layout, list) and len(layout) == 3 and isinstance(layout[1], list)
    if not is_nested or not all(isinstance(layout[place], str) for place in (0, 2)) or depth > 8:
        raise CheckpointError(
            f'config.json of {CLASS} has {LAYOUT} {str(layout)[:80]}, expected ["encoder", [...], "decoder"] and, innermost, '
            '["layers"], such as ["m4", ["T22"], "m4"]'
        )
    yield layout[0], layout[2]
    yield from _towers(layout[1], depth + 1)


def _scale(given: _Kwargs, place: int, towers: tuple[str, ...]) -> ScaleConfig:
    attention, window = given.attn_cfg, given.attn_cfg.window_size[place]
    if window < EVERYTHING:
        raise CheckpointError(f"attn_cfg.window_size of scale {place} is {window}, expected {EVERYTHING} (all rows) or more")
    attends = any(kind in "tT" for layout in towers for kind in layers_of(layout))
    return ScaleConfig(
        towers=towers,
        dim=given.d_model[place],
        heads=attention.num_heads[place] if attends else 1,
        ff_dim=given.d_intermediate[place],
        rotary_dims=attention.rotary_emb_dim[place] if attends else 0,
        window=None if window == EVERYTHING else window + 1,
    )


Names = Iterator[tuple[str, str]]
"""Names of tensors of ours, and of the originals; behind `#`, what is in another order there: taps last, or the gate below."""


def _originals(ours: Mapping[str, tuple[int, ...]], names: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """Shapes of the originals."""
    found = {}
    for key, theirs in names.items():
        name, _, order = theirs.partition("#")
        rows, *rest = ours[key]
        found[name] = (*rest, 1, rows) if order == "taps" else (rows, *rest)
    return found


def _value(tensors: Mapping[str, Tensor], theirs: str) -> Tensor:
    """A tensor of ours out of theirs."""
    name, _, order = theirs.partition("#")
    value = tensors[name].float()
    if order == "taps":
        return value[:, 0].T.contiguous()
    return torch.cat(value.chunk(2)[::-1]) if order == "halves" else value


def _names(config: HNetConfig) -> Names:
    yield "embed.weight", _TABLE
    yield "exit.logits.weight", _HEAD
    theirs = "backbone."
    for place, scale in enumerate(config.scales):
        is_core = place == len(config.scales) - 1
        ours = "core." if is_core else f"scales.{place}."
        if place and scale.dim > config.scales[place - 1].dim:
            yield f"{ours}widen.columns", f"{theirs}pad_dimension"
        if is_core:
            yield from _tower_names(f"{ours}tower.", f"{theirs}main_network.", scale.towers[0])
            return
        yield from _tower_names(f"{ours}encoder.", f"{theirs}encoder.", scale.towers[0])
        yield from _tower_names(f"{ours}decoder.", f"{theirs}decoder.", scale.towers[1])
        yield f"{ours}router.query.weight", f"{theirs}routing_module.q_proj_layer.weight"
        yield f"{ours}router.key.weight", f"{theirs}routing_module.k_proj_layer.weight"
        for kind in ("weight", "bias"):
            yield f"{ours}residual.{kind}", f"{theirs}residual_proj.{kind}"
        theirs += "main_network."


def _tower_names(ours: str, theirs: str, layout: str) -> Names:
    yield f"{ours}norm.scale", f"{theirs}rmsnorm.weight"
    for number, kind in enumerate(layers_of(layout)):
        layer, original = f"{ours}layers.{number}.", f"{theirs}layers.{number}."
        yield f"{layer}norm.scale", f"{original}norm1.weight"
        if kind in "tT":
            yield f"{layer}attention.qkv.weight", f"{original}mixer.Wqkv.weight"
            yield f"{layer}attention.out.weight", f"{original}mixer.out_proj.weight"
        else:
            yield from _mamba_names(f"{layer}mamba.", f"{original}mixer.")
        if kind in "MT":
            yield f"{layer}feed_forward.norm.scale", f"{original}norm2.weight"
            yield f"{layer}feed_forward.up.weight", f"{original}mlp.fc1.weight#halves"
            yield f"{layer}feed_forward.down.weight", f"{original}mlp.fc2.weight"


def _mamba_names(ours: str, theirs: str) -> Names:
    yield f"{ours}project.weight", f"{theirs}in_proj.weight"
    yield f"{ours}conv_weight", f"{theirs}conv1d.weight#taps"
    yield f"{ours}conv_bias", f"{theirs}conv1d.bias"
    yield f"{ours}rate_bias", f"{theirs}dt_bias"
    yield f"{ours}log_decay", f"{theirs}A_log"
    yield f"{ours}skip", f"{theirs}D"
    yield f"{ours}norm.scale", f"{theirs}norm.weight"
    yield f"{ours}out.weight", f"{theirs}out_proj.weight"
