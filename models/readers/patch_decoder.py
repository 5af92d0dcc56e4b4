"""Reader of NotaGen's and bGPT's checkpoints: `.pth` files of two GPT-2 towers of transformers, under the key `model`.

Sizes come from the shapes of the tensors. The names of published files tell them too, but not reliably: NotaGen-X leaves out
the inner tower's layers, and the fine-tuned large model has them in the wrong place. Only the number of heads is in neither: it
is one for each 64 of the width in both projects' code, unless `config.json` says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from ...contract import EndRule
from ...errors import CheckpointError
from ..patch_decoder import NORM_EPS, PatchDecoder, PatchDecoderConfig
from ..weights import Reading, names_in, read_weights
from .renaming import Original, fill, layers_below
from .settings import ANNOTATIONS, Tower, assumed, read_tower

CLASSES = {"NotaGenLMHeadModel": "notagen", "bGPTLMHeadModel": "bgpt"}
INNER_TOWERS = {"char_level_decoder.base.": "notagen", "byte_level_decoder.base.": "bgpt"}
PATCH_TOWER = "patch_level_decoder.base."
PATCH_EMBEDDING = "patch_level_decoder.patch_embedding"
HEAD_DIM = 64
BUFFERS = (".attn.bias", ".attn.masked_bias")
"""Causal masks, which older versions of transformers save."""


PATCH_KEYS = ("encoder_config", "patch_config", "patch_level_config", "patch_level_decoder")
INNER_KEYS = ("decoder_config", "char_config", "byte_config", "inner_config", "char_level_decoder", "byte_level_decoder")
"""What the configuration of each tower may be called; one for both stands at the top."""


def is_patch_decoder(config: Mapping[str, Any], path: Path) -> bool:
    """Whether a checkpoint is of this layout: by the class its `config.json` names, else by the names of its tensors.

    Args:
        config: the parsed `config.json`, empty if there is none.
        path: the checkpoint's directory, or its file of weights.
    """
    if "class" in config:
        return config["class"] in CLASSES
    return f"{PATCH_EMBEDDING}.weight" in names_in(path)


def load_patch_decoder(path: Path, config: Mapping[str, Any], reading: Reading | None = None) -> PatchDecoder:
    """Load a checkpoint; weights widened to fp32, in eval mode.

    Args:
        path: its directory with one file of weights, or that file.
        config: the parsed `config.json`: settings of both towers by transformers' names, or of each under `encoder_config` and
            `decoder_config`; empty if there is none.
        reading: which of several models in the file, and where to note what was assumed.

    Raises:
        CheckpointError: no weights or several files of them, tensors that are missing, left over or of another shape, or
            settings that are unknown or can't be honoured.
        ConfigError: heads that do not divide the width.
    """
    reading = reading or Reading()
    patch, inner = _towers(config)
    tensors = read_weights(path, reading)
    weights = {name: value for name, value in tensors.items() if not name.endswith(BUFFERS)}
    return from_state_dict(weights, patch, inner, path, reading.notes)


def _towers(config: Mapping[str, Any]) -> tuple[Tower, Tower]:
    """Settings of the tower over patches and of the one inside each."""
    nested = [[key for key in keys if key in config] for keys in (PATCH_KEYS, INNER_KEYS)]
    also = {"class", *ANNOTATIONS, *PATCH_KEYS, *INNER_KEYS}
    rest = {key: value for key, value in config.items() if key not in {*PATCH_KEYS, *INNER_KEYS}}
    common = read_tower(rest, "config.json", is_rotary=False, also=also)
    found = []
    for keys in nested:
        if len(keys) > 1:
            raise CheckpointError(f"config.json has both {' and '.join(keys)}; leave one")
        given = config[keys[0]] if keys else {}
        if not isinstance(given, Mapping):
            raise CheckpointError(f"{keys[0]} in config.json is {given!r}, expected an object")
        tower = read_tower(given, f"{keys[0]} in config.json" if keys else "config.json", is_rotary=False)
        merged = {name: value for name, value in msgspec.structs.asdict(tower).items() if value is not None}
        found.append(msgspec.structs.replace(common, **merged))
    return found[0], found[1]


def from_state_dict(
    tensors: Mapping[str, Tensor], patch: Tower, inside: Tower, where: Path, notes: list[str] | None = None
) -> PatchDecoder:
    """Build the model from the originals' `state_dict`; `where` is named in errors; heads not said: one per 64 of the width."""
    inner = next((tower for tower in INNER_TOWERS if f"{tower}transformer.wte.weight" in tensors), None)
    if inner is None:
        raise CheckpointError(
            f"{where} has no inner tower: expected {' or '.join(f'{tower}transformer.wte.weight' for tower in INNER_TOWERS)}; "
            "a classifier or a patch tower alone can't be decoded"
        )
    config = _sizes(tensors, inner, patch, inside, where)
    _check_sizes(config, patch, inside)
    said = {name: value for name, value in msgspec.structs.asdict(patch).items() if value is not None}
    eps = {"norm_eps": config.norm_eps, "activation": "gelu_new"}
    assumed(notes if notes is not None else [], said, {"heads": config.heads, **eps})
    dead = {f"{PATCH_TOWER}wte.weight": (1, config.dim)}  # GPT2Model insists on one; vectors are given to it
    if config.tie_embeddings and f"{inner}lm_head.weight" in tensors:
        dead[f"{inner}lm_head.weight"] = (config.vocab_size, config.dim)
    positions = _matrix(tensors, f"{inner}transformer.wpe.weight", where).shape[0]
    return fill(PatchDecoder(config), dict(_originals(config, inner, positions)), dead, tensors, where)


def _check_sizes(config: PatchDecoderConfig, patch: Tower, inner: Tower) -> None:
    """What is said of both towers at once is the tower's of patches, whose configuration transformers saves."""
    patch.require(
        "config.json", dim=config.dim, layers=config.patch_layers, positions=config.max_patches, ff_dim=4 * config.dim
    )
    inner.require("config.json", dim=config.dim, ff_dim=4 * config.dim)
    if inner.layers not in (None, config.inner_layers, patch.layers):
        inner.require("config.json", layers=config.inner_layers)
    if inner.vocab_size not in (None, 1, config.vocab_size):
        inner.require("config.json", vocab_size=config.vocab_size)
    if inner.tied is not None and inner.tied is not config.tie_embeddings:
        found = "one matrix as" if config.tie_embeddings else "different ones as"
        raise CheckpointError(
            f"config.json says tie_word_embeddings {inner.tied}, but the tensors have {found} head and embedding"
        )


def _sizes(tensors: Mapping[str, Tensor], inner: str, patch: Tower, inside: Tower, where: Path) -> PatchDecoderConfig:
    tokens, head = _matrix(tensors, f"{inner}transformer.wte.weight", where), tensors.get(f"{inner}lm_head.weight")
    vocab_size, dim = tokens.shape
    columns = _matrix(tensors, f"{PATCH_EMBEDDING}.weight", where).shape[1]
    if columns % vocab_size:
        raise CheckpointError(
            f"{PATCH_EMBEDDING}.weight in {where} has {columns} columns, "
            f"expected as many for each of the {vocab_size} ids of the inner tower"
        )
    for name in ("heads", "norm_eps", "activation"):
        if getattr(patch, name) != getattr(inside, name):
            raise CheckpointError(
                f"config.json says {name} {getattr(patch, name)} of the tower over patches and {getattr(inside, name)} of the "
                "one inside a patch, expected the same: both towers are computed alike"
            )
    return PatchDecoderConfig(
        architecture=INNER_TOWERS[inner],
        patch_size=columns // vocab_size,
        max_patches=_matrix(tensors, f"{PATCH_TOWER}wpe.weight", where).shape[0],
        vocab_size=vocab_size,
        dim=dim,
        heads=max(dim // HEAD_DIM, 1) if patch.heads is None else patch.heads,
        patch_layers=layers_below(f"{PATCH_TOWER}h.", tensors),
        inner_layers=layers_below(f"{inner}transformer.h.", tensors),
        tie_embeddings=head is None or torch.equal(head, tokens),
        norm_eps=NORM_EPS if patch.norm_eps is None else patch.norm_eps,
        activation=patch.gelu("gelu_tanh", "config.json"),
        end_rules=_end_rules(INNER_TOWERS[inner], columns // vocab_size, vocab_size),
    )


def _end_rules(architecture: str, period: int, vocab_size: int) -> tuple[EndRule, ...]:
    """What marks ends in the ids of a project; `inference/utils.py` of NotaGen, `inference.py` of bGPT."""
    rules = {
        "notagen": (
            EndRule(name="patch", period=period, ids=(2,), gives_out=True),
            EndRule(name="piece", period=period, ids=(1, 2), place=0),
        ),
        "bgpt": (EndRule(name="piece", period=period, ids=(256,)),),
    }
    return tuple(rule for rule in rules[architecture] if max(rule.ids) < vocab_size)


def _matrix(tensors: Mapping[str, Tensor], name: str, where: Path) -> Tensor:
    if name not in tensors or tensors[name].dim() != 2:
        found = tuple(tensors[name].shape) if name in tensors else "nothing"
        raise CheckpointError(f"{name} in {where} must be a matrix, got {found}")
    return tensors[name]


def _originals(config: PatchDecoderConfig, inner: str, positions: int) -> Iterator[tuple[str, Original]]:
    size, vocab_size, dim = config.patch_size, config.vocab_size, config.dim
    yield "patch_embed.columns.weight", Original(f"{PATCH_EMBEDDING}.weight", (dim, size * vocab_size), torch.t)
    yield "patch_embed.bias", Original(f"{PATCH_EMBEDDING}.bias", (dim,))
    yield "patch_embed.positions.weight", Original(f"{PATCH_TOWER}wpe.weight", (config.max_patches, dim))
    yield from _layers("patches.", PATCH_TOWER, config.patch_layers, dim)
    yield from _norm("hand_down.norm", f"{PATCH_TOWER}ln_f", dim)
    tower = f"{inner}transformer."
    tokens = Original(f"{tower}wte.weight", (vocab_size, dim))
    yield "embed.tokens.weight", tokens
    # The row after a whole patch, which the originals compute in training only, gives no logits that anybody reads; a table may
    # have more, as GPT-2's own has 1,024, but no fewer than there are rows.
    rows = max(positions, size)
    yield "embed.positions.weight", Original(f"{tower}wpe.weight", (rows, dim), lambda table: table[:size])
    yield from _layers("inner.", tower, config.inner_layers, dim)
    yield from _norm("head.norm", f"{tower}ln_f", dim)
    yield "head.logits.weight", tokens if config.tie_embeddings else Original(f"{inner}lm_head.weight", (vocab_size, dim))


def _layers(ours: str, theirs: str, layers: int, dim: int) -> Iterator[tuple[str, Original]]:
    for index in range(layers):
        block, original = f"{ours}layers.{index}.", f"{theirs}h.{index}."
        yield from _norm(f"{block}norm", f"{original}ln_1", dim)
        yield from _transposed(f"{block}attention.qkv", f"{original}attn.c_attn", dim, 3 * dim)
        yield from _transposed(f"{block}attention.out", f"{original}attn.c_proj", dim, dim)
        yield from _norm(f"{block}feed_forward.norm", f"{original}ln_2", dim)
        yield from _transposed(f"{block}feed_forward.up", f"{original}mlp.c_fc", dim, 4 * dim)
        yield from _transposed(f"{block}feed_forward.down", f"{original}mlp.c_proj", 4 * dim, dim)


def _norm(ours: str, theirs: str, dim: int) -> Iterator[tuple[str, Original]]:
    for part in ("weight", "bias"):
        yield f"{ours}.{part}", Original(f"{theirs}.{part}", (dim,))


def _transposed(ours: str, theirs: str, inputs: int, outputs: int) -> Iterator[tuple[str, Original]]:
    """A `Conv1D` of GPT-2, whose matrix is [inputs, outputs]."""
    yield f"{ours}.weight", Original(f"{theirs}.weight", (inputs, outputs), torch.t)
    yield f"{ours}.bias", Original(f"{theirs}.bias", (outputs,))
