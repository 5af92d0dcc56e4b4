"""`config.pbtxt`: what Triton has to know of a model, as a protobuf message `inference.ModelConfig` in its text form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Union

from .settings import ServerSettings
from .tensors import CONTROLS, Tensor, inputs, outputs

Field = tuple[str, "Value"]
Value = Union[str, int, "Name", "list[Field]"]


@dataclass(frozen=True)
class Name:
    """A value that stands without quotes: one of an enumeration, or `true`."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Triton's sequence batching: which request continues which.

    Attributes:
        most: sequences that the server follows at once; more wait until one ends.
        idle_seconds: one that has had no request for so long is over: its next request must begin it again.
    """

    most: int = 256
    idle_seconds: int = 600


FOLLOWED = Sequences()
"""What is followed if nothing else is said."""


def config_text(
    name: str, has_text: bool, on_gpu: bool, settings: ServerSettings, sequences: Sequences | None, instances: int
) -> str:
    """The config of a model.

    Args:
        name: of the model, and of its folder.
        has_text: whether the bundle has a tokenizer.
        on_gpu: whether an instance has a GPU for itself.
        settings: what each instance is to have.
        sequences: None if every request stands for itself.
        instances: of the model, each with weights, slots and sequences of its own.
    """
    followed: list[Field] = [] if sequences is None else [("sequence_batching", _sequence_batching(sequences))]
    fields: list[Field] = [
        ("name", name),
        ("backend", "python"),
        ("max_batch_size", 0),  # requests come one by one: the runtime makes the batch, of sequences at positions of their own
        ("model_transaction_policy", [("decoupled", Name("true"))]),  # a response for each piece of text
        *(("input", _tensor(tensor)) for tensor in inputs(has_text)),
        *(("output", _tensor(tensor)) for tensor in outputs(has_text)),
        *followed,
        ("instance_group", [("count", instances), ("kind", Name("KIND_GPU" if on_gpu else "KIND_CPU"))]),
        *(("parameters", _parameter(key, value)) for key, value in settings.parameters().items()),
    ]
    return "\n".join(_lines(fields, "")) + "\n"


def _tensor(tensor: Tensor) -> list[Field]:
    return [
        ("name", tensor.name),
        ("data_type", Name(tensor.data_type)),
        *(("dims", dim) for dim in tensor.dims),
        *((("optional", Name("true")),) if tensor.optional else ()),
    ]


def _sequence_batching(sequences: Sequences) -> list[Field]:
    """Oldest first: any number of sequences for an instance; the direct strategy has one for each row of a batch."""
    return [
        ("max_sequence_idle_microseconds", sequences.idle_seconds * 1_000_000),
        *(("control_input", _control_input(kind, tensor)) for kind, tensor in CONTROLS.items()),
        ("oldest", [("max_candidate_sequences", sequences.most)]),
    ]


def _control_input(kind: str, tensor: Tensor) -> list[Field]:
    control: list[Field] = [("kind", Name(kind))]
    if tensor.data_type == "TYPE_BOOL":
        control += [("bool_false_true", Name("false")), ("bool_false_true", Name("true"))]
    else:
        control += [("data_type", Name(tensor.data_type))]
    return [("name", tensor.name), ("control", control)]


def _parameter(key: str, value: str) -> list[Field]:
    return [("key", key), ("value", [("string_value", value)])]


def _lines(fields: Sequence[Field], indent: str) -> Iterator[str]:
    for name, value in fields:
        if isinstance(value, list):
            yield f"{indent}{name} {{"
            yield from _lines(value, indent + "  ")
            yield f"{indent}}}"
        elif isinstance(value, Name):
            yield f"{indent}{name}: {value.text}"
        else:
            yield f"{indent}{name}: {value}" if isinstance(value, int) else f'{indent}{name}: "{_escaped(value)}"'


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
