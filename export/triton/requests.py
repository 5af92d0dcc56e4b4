"""What a request asks for, read from its tensors, and what a response says, as arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ...errors import InputError
from ...runtime.generation.settings import NAMES
from ...runtime.ids import written_id
from ...runtime.service.event import Event
from .tensors import CORRELATION, END, IDS, IDS_OUT, NUMPY, REASON, SETTINGS, START, TEXT, TEXT_OUT, Tensor

Array = npt.NDArray[Any]
Read = Callable[[str], "Array | None"]
"""A tensor by its name; None: the request has none of it."""

_NOT_HERE = {
    "logits_hook": "a function of Python",
    "constraint": "an object of Python; give json_schema, regex or grammar",
    "logprobs": "not among the outputs",
    "prompt_logprobs": "not among the outputs",
}
"""Settings of `Model.generate` that a request can't have, and why."""


@dataclass(frozen=True)
class Asked:
    """A request.

    Attributes:
        sequence: which one it belongs to; None: it stands for itself.
        begins, ends: whether it is the first, and the last, of its sequence.
        prompt: text or ids; None: none was given.
        settings: as of `Model.generate`.
    """

    sequence: int | None
    begins: bool
    ends: bool
    prompt: str | Array | None
    settings: dict[str, Any]


def asked(read: Read) -> Asked:
    """Read a request.

    Raises:
        InputError: both text and ids, tensors of other shapes, text that is no UTF-8, settings that are no JSON object.
    """
    sequence, begins, ends = controls(read)
    return Asked(sequence, begins, ends, _prompt(read), _settings(_text(read, SETTINGS)))


def controls(read: Read) -> tuple[int | None, bool, bool]:
    """Which sequence a request belongs to, and whether it is its first and its last; a model without sequences has none."""
    sequence, begins, ends = (_array(read, tensor) for tensor in (CORRELATION, START, END))
    if sequence is None or begins is None or ends is None:
        return None, True, True
    return int(sequence[0]), bool(begins[0]), bool(ends[0])


def said(event: Event, has_text: bool) -> dict[Tensor, Array]:
    """The tensors of a response."""
    ids = [] if event.token is None else [event.token]
    of_text = {TEXT_OUT: _bytes(event.text)} if has_text else {}
    return {**of_text, IDS_OUT: np.array(ids, NUMPY[IDS_OUT.data_type]), REASON: _bytes(event.finish_reason or "")}


def _bytes(text: str) -> Array:
    return np.array([text.encode()], np.object_)


def _prompt(read: Read) -> str | Array | None:
    text, ids = _text(read, TEXT), _array(read, IDS)
    if text is not None and ids is not None:
        raise InputError(f"got both {TEXT.name} and {IDS.name}, expected one of them")
    return text if ids is None else ids


def _text(read: Read, tensor: Tensor) -> str | None:
    found = _array(read, tensor)
    if found is None:
        return None
    data = found[0]
    try:
        return data.decode() if isinstance(data, bytes) else str(data)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{tensor.name} is no UTF-8: byte {error.start} is 0x{data[error.start]:02x}; send text in UTF-8"
        ) from None


def _array(read: Read, tensor: Tensor) -> Array | None:
    """Triton has checked types and shapes against the config; one that somebody altered may promise something else."""
    found = read(tensor.name)
    if found is None:
        return None
    fits = len(found.shape) == len(tensor.dims) and all(
        dim in (-1, size) for dim, size in zip(tensor.dims, found.shape, strict=True)
    )
    if not fits or found.dtype != NUMPY[tensor.data_type]:
        raise InputError(
            f"{tensor.name} is {found.dtype} of shape {list(found.shape)}, expected {tensor.data_type} of {list(tensor.dims)}"
        )
    return found


def _settings(text: str | None) -> dict[str, Any]:
    if not text:
        return {}
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise InputError(f"{SETTINGS.name} is no JSON ({error}); expected an object such as {_EXAMPLE}") from None
    if not isinstance(found, Mapping):
        raise InputError(f"{SETTINGS.name} is {type(found).__name__}, expected a JSON object such as {_EXAMPLE}")
    settings = {str(name): value for name, value in found.items()}
    for name in settings:
        if name in _NOT_HERE:
            raise InputError(f'the setting "{name}" can\'t be had here: it is {_NOT_HERE[name]}')
        if name not in NAMES:
            there = ", ".join(sorted(NAMES - _NOT_HERE.keys()))
            raise InputError(f'there is no setting "{name}"; there are: {there}')
    if isinstance(settings.get("logit_bias"), Mapping):
        settings["logit_bias"] = {_id(key): value for key, value in settings["logit_bias"].items()}
    return settings


_EXAMPLE = '{"max_new_tokens": 32, "temperature": 0.8}'


def _id(key: object) -> object:
    """JSON has no keys but texts; what is no id is refused by who knows the setting."""
    found = written_id(key) if isinstance(key, str) else None
    return key if found is None else found
