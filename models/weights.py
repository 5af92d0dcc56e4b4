"""The weights of a checkpoint, however they lie: one file, shards with an index, a trainer's dict, names under wrappers.

Nothing is unpickled but tensors, containers, numbers and a few types that can do nothing (`_INERT`).
"""

from __future__ import annotations

import argparse
import json
import re
import types
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PosixPath, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import CheckpointError, plain
from .weight_files import PAGE, is_safetensors, read_index, require_weights, weight_files

WRAPPERS = ("module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""What PyTorch puts into names, at any depth; no layout has a module called so."""
OUTER = (
    "net", "network", "model", "ema_model", "online_model", "ema", "model_ema", "student", "teacher", "generator", "state_dict",
)  # fmt: skip
"""What trainers call a model that they wrap, with other things beside it; no layout has a module called so at the top."""
HEAD = "lm_head"
"""What transformers puts beside `model`, the rest of a language model, which then is no wrapper."""
SCRIPT = (
    "import torch; saved = torch.load({path!r}, weights_only=False); torch.save(saved['model'], 'weights.pt') "
    "(saved.state_dict() if it is the module itself)"
)

_INERT: list[Any] = [
    argparse.Namespace,
    types.SimpleNamespace,
    (types.SimpleNamespace, "utils.vocabulary.Vocab"),
    PosixPath,
    PurePosixPath,
    PureWindowsPath,
    (PureWindowsPath, "pathlib.WindowsPath"),
    np.dtype,
    np.ndarray,
    *{type(np.dtype(kind)) for kind in "?bBhHiIlLqQefdSU"},
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
    (np.zeros(1).__reduce__()[0], "numpy.core.multiarray._reconstruct"),
    (np.zeros(1).__reduce__()[0], "numpy._core.multiarray._reconstruct"),
]
"""Types that trainers save beside weights, and stand-ins for classes of theirs that hold data alone (dynamic-pooling's
vocabulary). Making one runs nothing, whatever it is given."""


@dataclass
class Reading:
    """How a checkpoint is read.

    Attributes:
        entry: which of several models in its file is asked for; None: the only one.
        boundaries: another rule for where patches end, of layouts that have one (`"space"`, `"fixed:4"`); None: their own.
        threshold: another threshold of such a rule; None: their own.
        ids: what a reader knows of its ids: `"bytes+4"`; None: nothing.
        notes: what was assumed, chosen, taken off or widened, one line each.
    """

    entry: str | None = None
    boundaries: str | None = None
    threshold: float | None = None
    ids: str | None = None
    notes: list[str] = field(default_factory=list)


def read_weights(path: Path, reading: Reading | None = None) -> dict[str, Tensor]:
    """Read the weights of a checkpoint by their names without wrappers, in float32 where they are floating point.

    Args:
        path: its directory, its file of weights, or the index of its shards.
        reading: which of several models is asked for; what was chosen, taken off or widened is added to its notes.

    Raises:
        CheckpointError: no weights, several files or several models; a file of another kind, which is named; one that is not
            whole; shards that do not fit their index; weights that are not floating point.
    """
    reading = reading or Reading()
    path = require_weights(path)
    tensors = _read_shards(path, reading) if path.suffix == ".json" else _read_file(path, reading)
    _require_values(tensors, path)
    return _widened(unwrapped(tensors, path, reading.notes), reading.notes)


def names_in(path: Path) -> set[str]:
    """Names that `read_weights` would give, without the values where the format allows; empty if it would fail."""
    try:
        files = weight_files(path)
        if len(files) != 1:
            return set()
        if files[0].suffix == ".json":
            models = _split(dict.fromkeys(read_index(files[0]), torch.empty(2)))
        elif _holds_safetensors(files[0]):
            with safe_open(files[0], "pt") as file:
                models = _split(dict.fromkeys(file.keys(), torch.empty(2)))
        else:
            models = _models_in(_unpickled(files[0]))
        # Which of several models does not matter here: they have the same names.
        return {name for found in models.values() for name in unwrapped(found.tensors, files[0], [])}
    except (CheckpointError, SafetensorError, OSError):
        return set()


def saved_beside(path: Path) -> dict[str, Any]:
    """What a trainer saved beside the weights, by the names of entries; empty if the format can't hold any.

    Raises:
        CheckpointError: as `read_weights`, of a file that is not whole or asks for more than containers, numbers and text.
    """
    path = require_weights(path)
    if path.suffix == ".json" or _holds_safetensors(path):
        return {}
    saved = _unpickled(path)
    return {name: value for name, value in saved.items() if isinstance(name, str)} if isinstance(saved, Mapping) else {}


def unwrapped(tensors: Mapping[str, Tensor], where: Path, notes: list[str]) -> dict[str, Tensor]:
    """The same tensors by names without the wrappers' part.

    Raises:
        CheckpointError: two of them would have one name.
    """
    names = {name: name.split(".") for name in tensors}
    taken = {part for parts in names.values() for part in parts[:-1] if part in WRAPPERS}
    names = {name: [part for part in parts[:-1] if part not in WRAPPERS] + parts[-1:] for name, parts in names.items()}
    twice = [name for name, count in Counter(".".join(parts) for parts in names.values()).items() if count > 1]
    if twice:
        raise CheckpointError(
            f"{where} has {twice[0]} twice once the wrappers {', '.join(sorted(taken))} are taken off its names"
        )
    # No layout has all of its tensors in one module, so that one is a wrapper, whatever it is called.
    while len(heads := {parts[0] for parts in names.values()}) == 1 and all(len(parts) > 1 for parts in names.values()):
        taken |= heads
        names = {name: parts[1:] for name, parts in names.items()}
    if taken:
        notes.append(f"taken off the names of tensors: {', '.join(sorted(f'{part}.' for part in taken))}")
    return {".".join(names[name]): value for name, value in tensors.items()}


def _widened(tensors: dict[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    other = Counter(_dtype(value) for value in tensors.values() if value.is_floating_point() and value.dtype != torch.float32)
    for kind, count in sorted(other.items()):
        notes.append(
            f"{count} of {len(tensors)} tensors are {kind}: {'rounded' if kind == 'float64' else 'widened'} to float32"
        )
    # A value beyond float32's range becomes infinite here, which `check_tensors` then refuses by name.
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def _require_values(tensors: Mapping[str, Tensor], where: Path) -> None:
    """Raise a CheckpointError for a tensor whose values are not there, or lie in another form than row after row."""
    for name, value in tensors.items():
        if value.is_meta or value.layout != torch.strided:
            kind = (
                "no values (it is on the meta device)" if value.is_meta else f"the layout {value.layout}, expected a dense one"
            )
            raise CheckpointError(f"{name} in {where} has {kind}; save the model again with dense weights that are loaded")


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _read_shards(index: Path, reading: Reading) -> dict[str, Tensor]:
    """Raises CheckpointError if a shard is missing, or tensors stand where the index does not say."""
    places = read_index(index)
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        shard = index.parent / name
        if not shard.is_file():
            raise CheckpointError(f"{index} names the shard {name}, which is not in {index.parent}; add it")
        found = _read_file(require_weights(shard), reading)
        expected = {tensor for tensor, place in places.items() if place == name}
        wrong = sorted(expected ^ found.keys())
        if wrong:
            is_missing = wrong[0] in expected
            raise CheckpointError(
                f"{shard} {'lacks' if is_missing else 'also holds'} {wrong[0]}, which is {'' if is_missing else 'not '}there "
                f"by {index.name}; got the shards of several checkpoints?"
            )
        tensors |= found
    return tensors


def _read_file(path: Path, reading: Reading) -> dict[str, Tensor]:
    if _holds_safetensors(path):
        try:
            saved: Any = safetensors.torch.load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{path} is not a whole safetensors file{_missing_bytes(path)}: {error}") from error
    else:
        saved = _unpickled(path)
    return _chosen(_models_in(saved), path, reading)


def _holds_safetensors(path: Path) -> bool:
    """By its contents, else by its name."""
    with path.open("rb") as file:
        head = file.read(9)
    return is_safetensors(head) or path.suffix == ".safetensors"


def _missing_bytes(path: Path) -> str:
    """How many bytes the header promises, if the file has fewer."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > size:
                return f" (it is cut short: {size} bytes, whose header alone says {length})"
            header = json.loads(file.read(length))
        end = (
            8 + length + max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return ""
    return f" (it is cut short: {size} of {end} bytes)" if size < end else ""


def _unpickled(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_INERT), warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the broken file provokes
        text = plain(str(error))
        asked = re.search(r"(?:GLOBAL|Unsupported (?:class|global):?(?: GLOBAL)?|disallowed) ([\w.]+)", text)
        if asked:
            what = asked.group(1)
            raise CheckpointError(
                f"{path} holds more than tensors ({what}), which was not unpickled, as a pickle can run anything. "
                f"If you trust it, save its weights alone where it was made: {SCRIPT.format(path=path.name)}; {PAGE}"
            ) from None
        if path.read_bytes()[:4] == b"PK\x03\x04" and "central directory" in text:
            text = "the archive is cut short"
        raise CheckpointError(
            f"{path} could not be read as a state_dict with weights_only=True ({_innermost(text) or type(error).__name__}); "
            "save it again as torch.save(model.state_dict(), path), or as safetensors"
        ) from None


def _innermost(text: str) -> str:
    """The first line that says why."""
    why = text.rpartition("WeightsUnpickler error:")[2] or text
    return next((line.strip() for line in why.splitlines() if line.strip()), "")


class _Found(NamedTuple):
    """The weights of a model in a file, and the names of tensors that lie beside it and are not its own."""

    tensors: dict[str, Tensor]
    aside: tuple[str, ...] = ()


def _chosen(models: dict[str, _Found], path: Path, reading: Reading) -> dict[str, Tensor]:
    """The one model, or the one asked for."""
    if not models:
        raise CheckpointError(
            f"{path} holds no weights: expected a state_dict, name -> tensor, or a dict with one under a name such as "
            f'"model" or "state_dict"; {PAGE}'
        )
    if (entry := reading.entry) is not None:
        if entry not in models:
            named = ", ".join(filter(None, models))
            expected = f"one of {named}" if named else f"no #{entry}: it holds one model"
            raise CheckpointError(f'{path} has no weights "{entry}", expected {expected}')
        models = {entry: models[entry]}
    if len(models) > 1:
        names = list(models)
        raise CheckpointError(f"{path} holds several models: {', '.join(names)}; say which, for instance {path}#{names[0]}")
    name, found = next(iter(models.items()))
    if name:
        reading.notes.append(f'the weights are the entry "{name}" of {path.name}')
    if found.aside:
        more = f" and {len(found.aside) - 4} more" if len(found.aside) > 4 else ""
        reading.notes.append(f"left aside, as no part of the model: {', '.join(found.aside[:4])}{more}")
    return found.tensors


_ASIDE = re.compile(r"optim|^opt$|sched|scaler|rng|^args?$|config|hparams|hyper_parameters|callbacks|loops|metrics|loss")
"""What trainers save beside a model, by the names of entries."""


def _models_in(loaded: Any, depth: int = 3) -> dict[str, _Found]:
    """The models in what a trainer saved, by the path of entries to each; one at the top has none.

    A model is a dict of tensors, of which one at least is a matrix of numbers. What else a dict has is left aside.
    """
    if isinstance(loaded, torch.nn.Module) or not isinstance(loaded, Mapping):
        return {}
    found: dict[str, _Found] = {}
    own = {name: value for name, value in loaded.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if any(value.dim() >= 2 and value.dtype != torch.bool for value in own.values()):
        found |= _split(own)
    for name, value in loaded.items():
        if depth and isinstance(name, str) and isinstance(value, Mapping) and not _ASIDE.search(name.lower()):
            inside = _models_in(value, depth - 1)
            found |= {f"{name}/{inner}" if inner else name: model for inner, model in inside.items()}
    return found


def _split(tensors: dict[str, Tensor]) -> dict[str, _Found]:
    """A state_dict of what wraps a model: the model, apart from the wrapper's own tensors (losses, metrics, steps, flags); or
    models with the same names side by side (its running average, as ema_pytorch's; a student and its teacher)."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        head = next(part for part in [*(part for part in name.split(".") if part not in WRAPPERS), ""])
        groups.setdefault(head, {})[name] = value
    models = {head: group for head, group in groups.items() if head in OUTER and HEAD not in groups}
    if not models:
        large = {head: group for head, group in groups.items() if any(value.numel() > 1 for value in group.values())}
        inner = {frozenset(name.split(f"{head}.", 1)[-1] for name in group) for head, group in large.items()}
        models = large if len(large) > 1 and len(inner) == 1 else {"": tensors}
    taken = {name for group in models.values() for name in group}
    aside = tuple(name for name in tensors if name not in taken)
    return {head if len(models) > 1 else "": _Found(group, aside) for head, group in models.items()}
