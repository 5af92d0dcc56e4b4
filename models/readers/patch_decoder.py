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

from ...errors import CheckpointError
from ..checkpoint import read_weights
from ..patch_decoder import PatchDecoder, PatchDecoderConfig
from .files import names_in, weight_file, weight_files
from .renaming import Original, fill, layers_below

CLASSES = {"NotaGenLMHeadModel": "notagen", "bGPTLMHeadModel": "bgpt"}
INNER_TOWERS = {"char_level_decoder.base.": "notagen", "byte_level_decoder.base.": "bgpt"}
PATCH_TOWER = "patch_level_decoder.base."
PATCH_EMBEDDING = "patch_level_decoder.patch_embedding"
HEAD_DIM = 64
BUFFERS = (".attn.bias", ".attn.masked_bias")
"""Causal masks, which older versions of transformers save."""


class _Config(msgspec.Struct, frozen=True, kw_only=True):
    """What a `config.json` beside the weights may say."""

    heads: int | None = None


def is_patch_decoder(config: Mapping[str, Any], path: Path) -> bool:
    """Whether a checkpoint is of this layout: by the class its `config.json` names, else by the names of its tensors.

    Args:
        config: the parsed `config.json`, empty if there is none.
        path: the checkpoint's directory, or its file of weights.
    """
    if "class" in config:
        return config["class"] in CLASSES
    files = weight_files(path)
    return len(files) == 1 and f"{PATCH_EMBEDDING}.weight" in names_in(files[0])


def load_patch_decoder(path: Path, config: Mapping[str, Any]) -> PatchDecoder:
    """Load a checkpoint; weights widened to fp32, in eval mode.

    Args:
        path: its directory with one file of weights, or that file.
        config: the parsed `config.json`, which may give `heads`; empty if there is none.

    Raises:
        CheckpointError: no weights or several files of them, or tensors that are missing, left over or of another shape.
        ConfigError: heads that do not divide the width.
    """
    try:
        given = msgspec.convert(dict(config), _Config)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"config.json of the patch decoder in {path}: {error}") from error
    file = weight_file(path)
    tensors = read_weights(file, entry="model")
    weights = {name: value for name, value in tensors.items() if not name.endswith(BUFFERS)}
    return from_state_dict(weights, given.heads, file)


def from_state_dict(tensors: Mapping[str, Tensor], heads: int | None, where: Path) -> PatchDecoder:
    """Build the model from the originals' `state_dict`; `where` is named in errors; heads None: one per 64 of the width."""
    inner = next((tower for tower in INNER_TOWERS if f"{tower}transformer.wte.weight" in tensors), None)
    if inner is None:
        raise CheckpointError(
            f"{where} has no inner tower: expected {' or '.join(f'{tower}transformer.wte.weight' for tower in INNER_TOWERS)}; "
            "a classifier or a patch tower alone can't be decoded"
        )
    config = _sizes(tensors, inner, heads, where)
    dead = {f"{PATCH_TOWER}wte.weight": (1, config.dim)}  # GPT2Model insists on one; vectors are given to it
    if config.tie_embeddings and f"{inner}lm_head.weight" in tensors:
        dead[f"{inner}lm_head.weight"] = (config.vocab_size, config.dim)
    return fill(PatchDecoder(config), dict(_originals(config, inner)), dead, tensors, where)


def _sizes(tensors: Mapping[str, Tensor], inner: str, heads: int | None, where: Path) -> PatchDecoderConfig:
    tokens, head = tensors[f"{inner}transformer.wte.weight"], tensors.get(f"{inner}lm_head.weight")
    vocab_size, dim = tokens.shape
    columns = _matrix(tensors, f"{PATCH_EMBEDDING}.weight", where).shape[1]
    if columns % vocab_size:
        raise CheckpointError(
            f"{PATCH_EMBEDDING}.weight in {where} has {columns} columns, "
            f"expected as many for each of the {vocab_size} ids of the inner tower"
        )
    return PatchDecoderConfig(
        architecture=INNER_TOWERS[inner],
        patch_size=columns // vocab_size,
        max_patches=_matrix(tensors, f"{PATCH_TOWER}wpe.weight", where).shape[0],
        vocab_size=vocab_size,
        dim=dim,
        heads=max(dim // HEAD_DIM, 1) if heads is None else heads,
        patch_layers=layers_below(f"{PATCH_TOWER}h.", tensors),
        inner_layers=layers_below(f"{inner}transformer.h.", tensors),
        tie_embeddings=head is None or torch.equal(head, tokens),
    )


def _matrix(tensors: Mapping[str, Tensor], name: str, where: Path) -> Tensor:
    if name not in tensors or tensors[name].dim() != 2:
        found = tuple(tensors[name].shape) if name in tensors else "nothing"
        raise CheckpointError(f"{name} in {where} must be a matrix, got {found}")
    return tensors[name]


def _originals(config: PatchDecoderConfig, inner: str) -> Iterator[tuple[str, Original]]:
    size, vocab_size, dim = config.patch_size, config.vocab_size, config.dim
    yield "patch_embed.columns.weight", Original(f"{PATCH_EMBEDDING}.weight", (dim, size * vocab_size), torch.t)
    yield "patch_embed.bias", Original(f"{PATCH_EMBEDDING}.bias", (dim,))
    yield "patch_embed.positions.weight", Original(f"{PATCH_TOWER}wpe.weight", (config.max_patches, dim))
    yield from _layers("patches.", PATCH_TOWER, config.patch_layers, dim)
    yield from _norm("hand_down.norm", f"{PATCH_TOWER}ln_f", dim)
    tower = f"{inner}transformer."
    tokens = Original(f"{tower}wte.weight", (vocab_size, dim))
    yield "embed.tokens.weight", tokens
    # The row after a whole patch, which the originals compute in training only, gives no logits that anybody reads.
    yield "embed.positions.weight", Original(f"{tower}wpe.weight", (size + 1, dim), lambda table: table[:size])
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
