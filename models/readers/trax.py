"""Reader of google/trax's `HourglassLM` checkpoints (commit 7c189c2c, Apache-2.0).

trax saves arrays without names and nothing of the model's arguments, so that a `config.json` must say these. Arrays are read
from `model.weights.npy.gz`, where trax's training now puts them; from `model.pkl.gz`, as it did before, and as `save_to_file`
does; or from a `model.safetensors` in which they have names (models/readers/trax_order.py).
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import torch
from torch import Tensor

from ...errors import CheckpointError, ConfigError
from ..trax.config import TraxConfig
from ..trax.model import TraxHourglass
from ..weight_files import PAGE, weight_files
from ..weights import Reading, read_weights
from .numpy_pickle import Array, arrays_in, opened, read_pickle
from .settings import ANNOTATIONS, assumed, require_known
from .trax_order import name_in_order
from .trax_weights import model_of

CLASS = "HourglassLM"
CONTEXT = 2048
"""The context unless config.json says another: a training sequence in trax's configurations for enwik8 and wiki40b."""
NPY, PICKLES = ".weights.npy.gz", (".pkl.gz", ".pkl")
WEIGHT_FILES = ("model.safetensors", f"model{NPY}", *(f"model{ending}" for ending in PICKLES))
EXAMPLE = (
    f'{{"class": "{CLASS}", "context": {CONTEXT}, "kwargs": {{"vocab_size": 256, "d_model": 512, "d_ff": 2048, '
    '"vanilla_layers": [5, 5], "hierarchy": "24@3", "n_heads": 8, "attention_upsampling_fn": "NaiveUpsampling"}}'
)


class _Kwargs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The original's arguments and their defaults; functions by their names. Of others than these there is no stage."""

    vocab_size: int
    d_model: int = 512
    d_ff: int = 2048
    vanilla_layers: tuple[int, int] = (1, 1)
    hierarchy: str = "6@3"
    n_heads: int = 8
    dropout: float = 0.1
    dropout_shared_axes: Any = None
    mode: str = "train"
    ff_activation: Literal["FastGelu", "Gelu"] = "FastGelu"
    vanilla_attn_type: Literal["RelativeAttentionWrapper"] = "RelativeAttentionWrapper"
    middle_attn_type: Literal["RelativeAttentionWrapper"] = "RelativeAttentionWrapper"
    downsampling_fn: Literal["AttentionResampling"] = "AttentionResampling"
    upsampling_fn: Literal["AttentionResampling"] = "AttentionResampling"
    attention_downsampling_fn: Literal["AveragePooling", "LinearPooling"] = "AveragePooling"
    attention_upsampling_fn: Literal["NaiveUpsampling", "LinearUpsampling"] = "LinearUpsampling"


def is_trax(config: Mapping[str, Any], checkpoint: Path) -> bool:
    """Whether `config.json` names trax's class or arguments that only it has, or says nothing and the files are trax's."""
    if "class" in config:
        return bool(config["class"] == CLASS)
    kwargs = config.get("kwargs")
    if isinstance(kwargs, Mapping):
        return "vanilla_layers" in kwargs
    names = [checkpoint.name] if checkpoint.is_file() else [name for name in WEIGHT_FILES if (checkpoint / name).is_file()]
    return "hierarchy" not in config and any(name.endswith((NPY, *PICKLES)) for name in names)


def load_trax(checkpoint: Path, config: Mapping[str, Any], reading: Reading | None = None) -> TraxHourglass:
    """Load a checkpoint directory, or one of its files, given the parsed `config.json`; fp32, in eval mode.

    Raises:
        CheckpointError: no arguments or unknown ones, no weights, a pickle of other things than arrays, or arrays that are
            not those of a model with these arguments.
        ConfigError: a hierarchy that the original would not build.
    """
    reading = reading or Reading()
    trax_config = config_from_json(config, checkpoint)
    _note(config, trax_config, reading.notes)
    path = checkpoint
    if checkpoint.is_dir():
        found = [checkpoint / name for name in WEIGHT_FILES if (checkpoint / name).is_file()]
        if not found and not weight_files(checkpoint):
            raise CheckpointError(f"no weights in {checkpoint}; expected one of {', '.join(WEIGHT_FILES)}; {PAGE}")
        path = found[0] if found else checkpoint
    if not path.name.endswith((NPY, *PICKLES)):
        tensors = read_weights(path, reading)
    else:
        tensors = name_in_order([_tensor(array) for array in read_arrays(path)], trax_config, path)
    return model_of(tensors, trax_config, path)


def config_from_json(config: Mapping[str, Any], where: Path) -> TraxConfig:
    """Translate `config.json`, whose `kwargs` are the original's arguments.

    Raises:
        CheckpointError: there are none, or the original has no such ones.
        ConfigError: as `load_trax`.
    """
    require_known(config, {"class", "kwargs", "context", *ANNOTATIONS}, "config.json")
    kwargs = config.get("kwargs")
    if not isinstance(kwargs, Mapping):
        raise CheckpointError(
            f"{where} has no config.json with the kwargs of {CLASS}, which trax's files do not hold; write those the model was "
            f"trained with (what is left out has trax's defaults), for instance {EXAMPLE}"
        )
    try:
        given, context = msgspec.convert(dict(kwargs), _Kwargs), msgspec.convert(config.get("context", CONTEXT), int)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"config.json of {CLASS}: {error}; expected something like {EXAMPLE}") from error
    entries = given.hierarchy.split()
    if entries != entries[::-1]:
        raise ConfigError(f'hierarchy "{given.hierarchy}" is no palindrome, as {CLASS} wants it; for instance "1@2 2@6 1@2"')
    pre, post = given.vanilla_layers
    return TraxConfig(
        hierarchy=f"{pre}@1 {given.hierarchy} {post}@1",
        vocab_size=given.vocab_size,
        dim=given.d_model,
        heads=given.n_heads,
        ff_dim=given.d_ff,
        context=context,
        shortening="linear" if given.attention_downsampling_fn == "LinearPooling" else "average",
        upsampling="linear" if given.attention_upsampling_fn == "LinearUpsampling" else "repeat",
        activation="gelu" if given.ff_activation == "Gelu" else "gelu_tanh",
    )


def _note(config: Mapping[str, Any], taken: TraxConfig, notes: list[str]) -> None:
    """What the arrays do not show."""
    values = {"n_heads": taken.heads, "ff_activation": "FastGelu", "context": taken.context}
    assumed(notes, {**config.get("kwargs", {}), **config}, values)


def read_arrays(path: Path) -> Sequence[Array]:
    """The weights in one of trax's files, in its order; of a pickle that only counts them, those in the file beside it.

    Raises:
        CheckpointError: it holds something else.
    """
    if path.name.endswith(NPY):
        return list(_npy_arrays(path))
    saved = read_pickle(path)
    key = next((key for key in ("flat_weights", "weights") if isinstance(saved, dict) and key in saved), None)
    if key is None:
        found = f"the keys {sorted(map(str, saved))}" if isinstance(saved, dict) else f"a {type(saved).__name__}"
        raise CheckpointError(f'{path} holds {found}, expected a dict with "flat_weights" or "weights", as trax saves it')
    if isinstance(saved[key], int):  # how far the other file is compressed
        return list(_npy_arrays(path.with_name(path.name.removesuffix(".gz").removesuffix(".pkl") + NPY)))
    try:
        return list(arrays_in(saved[key]))
    except CheckpointError as error:
        raise CheckpointError(f'"{key}" of {path}: {error}') from None


def _npy_arrays(path: Path) -> Iterator[Array]:
    """Arrays as `np.save` writes them, one after the other."""
    if not path.is_file():
        raise CheckpointError(f"no {path.name} in {path.parent}, where trax puts the weights of the pickle beside it; add it")
    try:
        with opened(path) as file:
            stream = io.BytesIO(file.read())
        while stream.tell() < stream.getbuffer().nbytes:
            yield np.lib.format.read_array(stream, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise CheckpointError(f"{path} is not whole, or not a file of arrays: {error}") from error


def _tensor(array: Array) -> Tensor:
    """A tensor of its own; trax writes bfloat16 as integers of 16 bits."""
    if array.dtype == np.uint16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.ascontiguousarray(array).copy())
