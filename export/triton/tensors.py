"""The tensors of a request and of a response, named as Triton's own backends of language models name theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

DataType = Literal["TYPE_STRING", "TYPE_INT64", "TYPE_UINT64", "TYPE_BOOL"]

NUMPY: dict[DataType, type[Any]] = {
    "TYPE_STRING": np.object_,
    "TYPE_INT64": np.int64,
    "TYPE_UINT64": np.uint64,
    "TYPE_BOOL": np.bool_,
}
"""What Triton's Python backend gives and takes for each type; of strings the elements are bytes."""


@dataclass(frozen=True)
class Tensor:
    """One tensor: `dims` as in the config, -1 for any length; there is no dimension of a batch."""

    name: str
    data_type: DataType
    dims: tuple[int, ...]
    optional: bool = False


TEXT = Tensor("text_input", "TYPE_STRING", (1,), optional=True)
"""Text to continue."""
IDS = Tensor("input_ids", "TYPE_INT64", (-1,), optional=True)
"""Or token ids to continue."""
SETTINGS = Tensor("sampling_parameters", "TYPE_STRING", (1,), optional=True)
"""A JSON object of the settings that `Model.generate` has."""

START = Tensor("START", "TYPE_BOOL", (1,))
"""Whether the request begins its sequence; Triton fills it in, as the two below."""
END = Tensor("END", "TYPE_BOOL", (1,))
"""Whether it is the last of its sequence."""
CORRELATION = Tensor("CORRID", "TYPE_UINT64", (1,))
"""Which sequence it belongs to."""
CONTROLS = {
    "CONTROL_SEQUENCE_START": START,
    "CONTROL_SEQUENCE_END": END,
    "CONTROL_SEQUENCE_CORRID": CORRELATION,
}
"""By their kind in Triton's protobuf."""

TEXT_OUT = Tensor("text_output", "TYPE_STRING", (1,))
"""Text that can no longer change; it may be empty while a character is not whole."""
IDS_OUT = Tensor("output_ids", "TYPE_INT64", (-1,))
"""The tokens that were drawn since the response before."""
REASON = Tensor("finish_reason", "TYPE_STRING", (1,))
"""Empty, but in the last response of a request: why it ended."""


def inputs(has_text: bool) -> tuple[Tensor, ...]:
    """What a request to a model holds; one without a tokenizer takes ids only."""
    return (TEXT, IDS, SETTINGS) if has_text else (IDS, SETTINGS)


def outputs(has_text: bool) -> tuple[Tensor, ...]:
    """What each of its responses holds."""
    return (TEXT_OUT, IDS_OUT, REASON) if has_text else (IDS_OUT, REASON)


BUNDLE = "bundle"
"""The folder of the bundle, beside `model.py`."""
