"""A program's steps as the library takes them: `struct fv_step` of numbers, buffers and addresses (`native/src/api.h`).

    kind           in                    out          n                                              f          data
    1 embed        ids input, added      out          width, tokens, position rows, count, table                table, scales,
                                                      (0 none, 1 fp32, 2 int8)                                  positions
    2 add          a, b, c               out          width
    3 norm         x, added              out, total   width, kind (0 layer, 1 rms, 2 rms_clamp),     eps        gamma, beta
                                                      count
    4 product      x, added              out          K, N, format (0 fp32, 1 int8, 2 w8, 3 w4),     x_scale    values, scales,
                                                      block, activation, count                                  bias
    5 gate         x                     out          width, activation
    6 attend       qkv                   out          heads, kv heads, head dim, key cache, value    scale, key frequencies
                                                      cache, cache width, window, int8 caches,       scale, value
                                                      rotary dims, neighbours                        scale
    7 group_attend query, key_values     out          heads, head dim, count                         scale
    8 take         x                     out          width
    9 mean         x                     out          width of out, count
    10 repeat      x, added              out          width of x, count
    11 copy        x                     out          width, at, to, width of x, width of out

Activations: 0 none, 1 relu, 2 gelu, 3 gelu_tanh, 4 silu. `count` of norm and product: rows of theirs in a row of the buffer.
What is not there is -1, or NULL. Inputs of rows, and the output, are buffers whose memory is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...contract.program import (
    Add,
    Attend,
    Copy,
    Embed,
    Gate,
    GroupAttend,
    Mean,
    Norm,
    Product,
    Program,
    Repeat,
    Take,
)
from .native_library import FvStep

_ACTIVATIONS = {"none": 0, "relu": 1, "gelu": 2, "gelu_tanh": 3, "silu": 4}
_FORMATS = {"fp32": 0, "int8": 1, "w8": 2, "w4": 3}
_NORMS = {"layer": 0, "rms": 1, "rms_clamp": 2}


def steps_of(program: Program, data: int) -> Any:
    """An array of `FvStep`, of a program that was checked.

    Args:
        program: the steps.
        data: address of the weights.
    """
    made = (FvStep * len(program.steps))()
    for place, step in zip(made, program.steps, strict=True):
        kind, inputs, outputs, n, f, arrays = _FIELDS[type(step)](program, step)
        place.kind = kind
        place.inputs[:] = _filled([-1 if one is None else one for one in inputs], 4, -1)
        place.outputs[:] = _filled([-1 if one is None else one for one in outputs], 2, -1)
        place.n[:] = _filled(n, 12, 0)
        place.f[:] = _filled(f, 6, 0.0)
        place.data[:] = _filled([None if one is None else data + one for one in arrays], 8, None)
    return made


def _filled(given: list[Any], length: int, rest: Any) -> list[Any]:
    return given + [rest] * (length - len(given))


_Fields = tuple[int, list[int | None], list[int | None], list[int], list[float], list[int | None]]


def _embed(program: Program, step: Embed) -> _Fields:
    table = 0 if step.table is None else 1 if step.scales is None else 2
    numbers = [step.width, step.tokens, step.position_rows, step.count, table]
    return 1, [step.ids, step.added], [step.out], numbers, [], [step.table, step.scales, step.positions]


def _add(program: Program, step: Add) -> _Fields:
    return 2, [step.a, step.b, step.c], [step.out], [program.buffers[step.out].width], [], []


def _norm(program: Program, step: Norm) -> _Fields:
    count = program.buffers[step.x].width // step.width
    numbers = [step.width, _NORMS[step.kind], count]
    return 3, [step.x, step.added], [step.out, step.total], numbers, [step.eps], [step.gamma, step.beta]


def _product(program: Program, step: Product) -> _Fields:
    weight = step.weight
    numbers = [weight.rows, weight.columns, _FORMATS[weight.format], weight.block, _ACTIVATIONS[step.activation], step.count]
    return 4, [step.x, step.added], [step.out], numbers, [step.x_scale], [weight.values, weight.scales, step.bias]


def _gate(program: Program, step: Gate) -> _Fields:
    return 5, [step.x], [step.out], [step.width, _ACTIVATIONS[step.activation]], [], []


def _attend(program: Program, step: Attend) -> _Fields:
    cache = program.caches[step.key]
    numbers = [step.heads, step.kv_heads, step.head_dim, step.key, step.value, cache.width, step.window]
    numbers += [int(cache.dtype == "int8"), step.rotary_dims, int(step.neighbours)]
    return 6, [step.qkv], [step.out], numbers, [step.scale, step.key_scale, step.value_scale], [step.frequencies]


def _group_attend(program: Program, step: GroupAttend) -> _Fields:
    return 7, [step.query, step.key_values], [step.out], [step.heads, step.head_dim, step.count], [step.scale], []


def _take(program: Program, step: Take) -> _Fields:
    return 8, [step.x], [step.out], [program.buffers[step.out].width], [], []


def _mean(program: Program, step: Mean) -> _Fields:
    return 9, [step.x], [step.out], [program.buffers[step.out].width, step.count], [], []


def _repeat(program: Program, step: Repeat) -> _Fields:
    return 10, [step.x, step.added], [step.out], [program.buffers[step.x].width, step.count], [], []


def _copy(program: Program, step: Copy) -> _Fields:
    widths = [program.buffers[step.x].width, program.buffers[step.out].width]
    return 11, [step.x], [step.out], [step.width, step.at, step.to, *widths], [], []


_FIELDS: dict[type[Any], Callable[[Program, Any], _Fields]] = {
    Embed: _embed,
    Add: _add,
    Norm: _norm,
    Product: _product,
    Gate: _gate,
    Attend: _attend,
    GroupAttend: _group_attend,
    Take: _take,
    Mean: _mean,
    Repeat: _repeat,
    Copy: _copy,
}
