"""A program's steps as the library takes them: `struct fv_step` of `native/src/api.h`, which says what each field is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ...contract.program import (
    Activate,
    Add,
    Angles,
    Attend,
    Copy,
    Embed,
    Gate,
    GroupAttend,
    Mean,
    Mul,
    Norm,
    Product,
    Program,
    Repeat,
    Take,
)
from .native_library import FvStep

_ACTIVATIONS = {"none": 0, "relu": 1, "gelu": 2, "gelu_tanh": 3, "silu": 4}
_FORMATS = {"fp32": 0, "int8": 1, "w8": 2, "w4": 3}
_NORMS = {"layer": 0, "rms_clamp": 1, "rms": 2}
_DTYPES = {"float32": 0, "int8": 1, "uint8": 2, "float16": 3}


class _Fields(NamedTuple):
    """What is in a `struct fv_step`: buffers that are not there are None, and so are arrays."""

    kind: int
    inputs: Sequence[int | None]
    outputs: Sequence[int | None]
    n: Sequence[int] = ()
    f: Sequence[float] = ()
    data: Sequence[int | None] = ()


def steps_of(program: Program, ids: Sequence[int], data: int) -> Any:
    """An array of `FvStep`, of a program that was checked.

    Args:
        program: the steps.
        ids: the buffer of each of its inputs.
        data: address of the weights.
    """
    made = (FvStep * len(program.steps))()
    for place, step in zip(made, program.steps, strict=True):
        fields = _FIELDS[type(step)](program, step)
        place.kind = fields.kind
        inputs = [ids[step.ids]] if isinstance(step, Embed) else fields.inputs
        place.inputs[:] = _filled([-1 if one is None else one for one in inputs], 4, -1)
        place.outputs[:] = _filled([-1 if one is None else one for one in fields.outputs], 2, -1)
        place.n[:] = _filled(fields.n, 12, 0)
        place.f[:] = _filled(fields.f, 6, 0.0)
        place.data[:] = _filled([None if one is None else data + one for one in fields.data], 8, None)
    return made


def _filled(given: Sequence[Any], length: int, rest: Any) -> list[Any]:
    return [*given, *[rest] * (length - len(given))]


def _embed(program: Program, step: Embed) -> _Fields:
    numbers = [_DTYPES[step.dtype], step.tokens, step.width, step.position_rows, step.count]
    return _Fields(1, [], [step.out], numbers, data=[step.table, step.scales, step.positions])


def _add(program: Program, step: Add) -> _Fields:
    return _Fields(2, [step.a, step.b, step.c], [step.out])


def _mul(program: Program, step: Mul) -> _Fields:
    return _Fields(3, [step.a, step.b], [step.out])


def _norm(program: Program, step: Norm) -> _Fields:
    numbers = [_NORMS[step.kind], program.buffers[step.x].width // step.width]
    return _Fields(4, [step.x, step.added], [step.out, step.total], numbers, [step.eps], [step.gamma, step.beta])


def _product(program: Program, step: Product) -> _Fields:
    weight = step.weight
    numbers = [_FORMATS[weight.format], weight.rows, weight.columns, weight.block, _ACTIVATIONS[step.activation], step.count]
    return _Fields(5, [step.x, step.added], [step.out], numbers, [step.x_scale], [weight.place, step.bias])


def _attend(program: Program, step: Attend) -> _Fields:
    cache = program.caches[step.key]
    rotated = 0 if step.angles is None else program.buffers[step.angles].width
    numbers = [step.key, step.value, step.heads, step.kv_heads, step.head_dim, cache.width, _DTYPES[cache.dtype]]
    numbers += [step.window, rotated, int(step.neighbours)]
    return _Fields(6, [step.qkv, step.angles], [step.out], numbers, [step.scale, step.key_scale, step.value_scale])


def _take(program: Program, step: Take) -> _Fields:
    return _Fields(7, [step.x], [step.out])


def _mean(program: Program, step: Mean) -> _Fields:
    return _Fields(8, [step.x], [step.out], [step.count])


def _repeat(program: Program, step: Repeat) -> _Fields:
    return _Fields(9, [step.x], [step.out], [step.count])


def _gate(program: Program, step: Gate) -> _Fields:
    return _Fields(10, [step.x], [step.out], [_ACTIVATIONS[step.activation]])


def _angles(program: Program, step: Angles) -> _Fields:
    return _Fields(11, [], [step.out], data=[step.frequencies])


def _activate(program: Program, step: Activate) -> _Fields:
    return _Fields(12, [step.x], [step.out], [_ACTIVATIONS[step.activation]])


def _group_attend(program: Program, step: GroupAttend) -> _Fields:
    return _Fields(13, [step.query, step.key_values], [step.out], [step.heads, step.head_dim, step.count], [step.scale])


def _copy(program: Program, step: Copy) -> _Fields:
    return _Fields(14, [step.x], [step.out], [step.width, step.at, step.to])


_FIELDS: dict[type[Any], Callable[[Program, Any], _Fields]] = {
    Embed: _embed,
    Add: _add,
    Mul: _mul,
    Norm: _norm,
    Product: _product,
    Attend: _attend,
    Take: _take,
    Mean: _mean,
    Repeat: _repeat,
    Gate: _gate,
    Angles: _angles,
    Activate: _activate,
    GroupAttend: _group_attend,
    Copy: _copy,
}
