"""foveal's own checkpoint directory: `config.json`, `model.safetensors`, `tokenizer.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import safetensors.torch
import torch
from torch import Tensor

from ..errors import CheckpointError
from ..files import write_atomically
from ..json_files import decode
from .architectures import OwnModel, build_model
from .config import ModelConfig
from .weight_files import PAGE
from .weights import Reading, read_weights

TIED = "head.logits.weight"


def save_checkpoint(model: OwnModel, directory: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write `config.json` and `model.safetensors` (weights in `dtype`, a tied head once only)."""
    tensors = {name: value.detach().to(dtype).contiguous() for name, value in model.state_dict().items()}
    if model.config.tie_embeddings:
        del tensors[TIED]
    write_atomically(directory / "model.safetensors", safetensors.torch.save(tensors, {"format": "pt"}))
    write_atomically(directory / "config.json", msgspec.json.format(msgspec.json.encode(model.config), indent=2) + b"\n")


def read_config(directory: Path) -> ModelConfig:
    """Read `config.json`.

    Raises:
        CheckpointError: the file is missing or says something else than a model's configuration.
    """
    path = directory / "config.json"
    try:
        return decode(path.read_text(encoding="utf-8-sig").encode(), ModelConfig)
    except FileNotFoundError:
        raise CheckpointError(f"no config.json in {directory}; a checkpoint directory holds config.json and weights") from None
    except (UnicodeDecodeError, msgspec.DecodeError, msgspec.ValidationError) as error:
        raise CheckpointError(f"{path} is not a foveal model configuration: {error}") from error


def load_tensors(model: OwnModel, tensors: dict[str, Tensor], where: Path) -> OwnModel:
    """Fill `model` with exactly `tensors`, in fp32.

    Raises:
        CheckpointError: tensors are missing, left over or of another shape; every one is named.
    """
    if model.config.tie_embeddings:
        tensors = {name: value for name, value in tensors.items() if name != TIED}
        tensors[TIED] = tensors.get("embed.tokens.weight", torch.empty(0))
    check_tensors(tensors, {name: tuple(value.shape) for name, value in model.state_dict().items()}, where)
    model.load_state_dict({name: value.float() for name, value in tensors.items()})
    return model.eval()


def check_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], where: Path) -> None:
    """See that these are exactly the weights of a model.

    Raises:
        CheckpointError: tensors that are missing, extra, of another shape, no floating point, or not finite; named.
    """
    quantised = [name for name, value in tensors.items() if name in expected and not value.is_floating_point()]
    if quantised:
        kind = str(tensors[quantised[0]].dtype).removeprefix("torch.")
        raise CheckpointError(
            f"{quantised[0]} in {where} holds {kind}, expected floating point: quantised checkpoints can't be read; give the "
            f"one it was made from, and quantise with `foveal build --precision`; {PAGE}"
        )
    problems = [f"missing {name}" for name in expected if name not in tensors]
    problems += [f"extra {name}" for name in tensors if name not in expected]
    problems += [
        f"{name} has shape {tuple(tensors[name].shape)}, expected {shape}"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    if problems:
        shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise CheckpointError(f"the tensors in {where} do not match the configuration: {shown}; {PAGE}")
    broken = not_finite(tensors)
    if broken:
        raise CheckpointError(f"{broken} in {where}, expected numbers that float32 can hold; the training had gone astray")


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """What the first tensor with infinities or NaN has, in words; empty if there is none."""
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            bad = ~value.isfinite()
            return f"{name} has {int(bad.sum())} of {value.numel()} values that are infinite or NaN"
    return ""


def load_foveal(path: Path, reading: Reading | None = None) -> OwnModel:
    """Load foveal's own checkpoint, its directory or its file of weights; widened to fp32, in eval mode."""
    config = read_config(path if path.is_dir() else path.parent)
    return load_tensors(build_model(config), read_weights(path, reading), path)
