"""foveal's own checkpoint directory: `config.json`, `model.safetensors`, `tokenizer.json`."""

from __future__ import annotations

from pathlib import Path

import msgspec
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ..errors import CheckpointError
from ..files import write_atomically
from ..json_files import decode
from .architectures import OwnModel, build_model
from .config import ModelConfig

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
        return decode(path.read_bytes(), ModelConfig)
    except FileNotFoundError:
        raise CheckpointError(f"no config.json in {directory}; a checkpoint directory holds config.json and weights") from None
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise CheckpointError(f"{path} is not a foveal model configuration: {error}") from error


def read_weights(path: Path, entry: str | None = None) -> dict[str, Tensor]:
    """Read a `.safetensors` file, or a plain torch `state_dict` through the unpickler that admits tensors only.

    Args:
        path: the file.
        entry: what the state_dict is called in files that hold more than that, such as an optimizer's state.

    Raises:
        CheckpointError: the file is neither, or is a pickle named `.safetensors`.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"no weights at {path}") from None
    except Exception as error:  # torch.load raises whatever the broken file provokes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} could not be read as a state_dict with weights_only=True ({reason}); "
            "save it again as torch.save(model.state_dict(), path), or as safetensors"
        ) from error
    if entry is not None and isinstance(loaded, dict) and isinstance(loaded.get(entry), dict):
        loaded = loaded[entry]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise CheckpointError(f"{path} holds a {type(loaded).__name__}, expected a flat state_dict of name -> tensor")
    return {str(name): value for name, value in loaded.items()}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"no weights at {path}") from None
    except SafetensorError as error:
        head = path.read_bytes()[:4]
        if head[:1] == b"\x80" or head == b"PK\x03\x04":
            raise CheckpointError(
                f"{path} is a pickle, expected safetensors; name it .pt to have it read with weights_only=True"
            ) from None
        raise CheckpointError(f"{path} is not a safetensors file: {error}") from error


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


def check_tensors(tensors: dict[str, Tensor], expected: dict[str, tuple[int, ...]], where: Path) -> None:
    """Raise a CheckpointError that names every missing, extra or misshapen tensor."""
    problems = [f"missing {name}" for name in expected if name not in tensors]
    problems += [f"extra {name}" for name in tensors if name not in expected]
    problems += [
        f"{name} has shape {tuple(tensors[name].shape)}, expected {shape}"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    if problems:
        shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise CheckpointError(f"the tensors in {where} do not match the configuration: {shown}")


def load_foveal(directory: Path) -> OwnModel:
    """Load foveal's own checkpoint directory, weights widened to fp32, in eval mode."""
    config = read_config(directory)
    path = directory / "model.safetensors"
    return load_tensors(build_model(config), read_weights(path), path)
