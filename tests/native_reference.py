"""The native library in numpy: what each step of `native/src/api.h` computes, written plainly, for a row at a time.

It takes the structs that the library takes, so that engines run on it as they are: where there is no library, and to say what
the library should give.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import erf

from foveal.runtime.engines.native_library import FvCall, FvProgram, FvRows

Floats = npt.NDArray[np.float32]
EMBED, ADD, MUL, NORM, PRODUCT, ATTEND, TAKE, MEAN, REPEAT, GATED, ANGLES, ACTIVATE, GROUP_ATTEND, COPY = range(1, 15)
PANEL = 16


class ReferenceLibrary:
    """As `runtime.engines.native_library.NativeLibrary`; stages are numbered."""

    isa = "numpy"

    def __init__(self) -> None:
        self._stages: dict[int, _Stage] = {}
        self._failure = ""

    def pool_open(self, threads: int, spin_us: int) -> int:
        """A handle of nothing."""
        return 1

    def pool_close(self, handle: int) -> None:
        """Nothing."""

    def open(self, pool: int, program: Any) -> int:
        """As `fv_open`."""
        number = len(self._stages) + 1
        self._stages[number] = _Stage(program._obj)
        return number

    def close(self, handle: ctypes.c_void_p) -> None:
        """As `fv_close`."""
        del self._stages[handle.value or 0]

    def run(self, handle: ctypes.c_void_p, call: Any) -> int:
        """As `fv_run`."""
        try:
            self._stages[handle.value or 0].run(call._obj)
        except IndexError as error:
            self._failure = str(error)
            return 1
        return 0

    def error(self) -> str:
        """As `fv_error`."""
        return self._failure


@dataclass(frozen=True)
class _Step:
    kind: int
    inputs: list[int]
    outputs: list[int]
    n: list[int]
    f: list[float]
    data: list[int | None]


class _Stage:
    """A program that was opened, and one run's buffers."""

    def __init__(self, program: FvProgram) -> None:
        self.steps = [
            _Step(one.kind, list(one.inputs), list(one.outputs), list(one.n), list(one.f), list(one.data))
            for one in program.steps[: program.n_steps]
        ]
        self.widths = program.widths[: program.n_buffers]
        self.inputs = [(one.buffer, bool(one.is_ids), one.parts) for one in program.inputs[: program.n_inputs]]
        self.n_caches, self.output, self.output_parts = program.n_caches, program.output, program.output_parts
        self.most_rows = program.most_rows
        self.buffers: dict[int, Any] = {}

    def run(self, call: FvCall) -> None:
        if not 1 <= call.rows <= self.most_rows or call.logit_count > self.most_rows:
            raise IndexError(f"{call.rows} rows, expected 1 to {self.most_rows}")
        self.call, rows = call, call.rows
        self.index = _array(call.row_index, (rows,), np.int64)
        self.slot = np.zeros(rows, np.int32) if not call.slot else _array(call.slot, (rows,), np.int32)
        self.wanted = _array(call.logit_rows, (call.logit_count,), np.int64) if call.logit_count else np.zeros(0, np.int64)
        for (buffer, is_ids, parts), given in zip(self.inputs, call.inputs[: len(self.inputs)], strict=True):
            width = self.widths[buffer]
            found = _rows(given, rows, 1 if is_ids else parts, width, np.int64 if is_ids else np.float32)
            self.buffers[buffer] = np.array(found).reshape(rows, width)
        for step in self.steps:
            _DO[step.kind](self, step)
        result = self.buffers[self.output]
        if len(result):
            given = _rows(call.output, len(result), self.output_parts, self.widths[self.output], np.float32)
            given[...] = result.reshape(given.shape)

    def x(self, step: _Step, index: int = 0) -> Any:
        return self.buffers[step.inputs[index]]

    def put(self, step: _Step, rows: Any, index: int = 0) -> None:
        buffer = step.outputs[index]
        self.buffers[buffer] = rows.astype(np.float32).reshape(len(rows), self.widths[buffer])

    def embed(self, step: _Step) -> None:
        dtype, tokens, width, position_rows = step.n[:4]
        ids = self.x(step)
        if ((ids < 0) | (ids >= tokens)).any():
            raise IndexError(f"an id of {ids.max()}, expected below {tokens}")
        table = _array(step.data[0], (tokens, width), {0: np.float32, 2: np.uint8, 3: np.float16}[dtype])
        rows = table[ids].astype(np.float32)
        if dtype == 2:
            rows = (rows - 128) * _array(step.data[1], (tokens,), np.float32)[ids][..., None]
        if position_rows:
            if (self.index >= position_rows).any():
                raise IndexError(f"row {self.index.max()}, expected below {position_rows}")
            rows = rows + _array(step.data[2], (position_rows, width), np.float32)[self.index][:, None]
        self.put(step, rows)

    def add(self, step: _Step) -> None:
        total = self.x(step) + self.x(step, 1)
        self.put(step, total if step.inputs[2] < 0 else total + self.x(step, 2))

    def mul(self, step: _Step) -> None:
        self.put(step, self.x(step) * self.x(step, 1))

    def norm(self, step: _Step) -> None:
        kind, count = step.n[0], max(step.n[1], 1)
        x = self.x(step)
        if step.inputs[1] >= 0:
            x = x + self.x(step, 1)
            if step.outputs[1] >= 0:
                self.put(step, x, 1)
        width = x.shape[1] // count
        rows = x.reshape(len(x), count, width).astype(np.float64)
        if kind == 0:
            rows = rows - rows.mean(-1, keepdims=True)
        square, eps = (rows**2).mean(-1, keepdims=True), step.f[0]
        divisor = np.maximum(np.sqrt(square), eps) if kind == 1 else np.sqrt(square + eps)
        y = rows / divisor * _array(step.data[0], (width,), np.float32)
        if step.data[1]:
            y = y + _array(step.data[1], (width,), np.float32)
        self.put(step, y)

    def product(self, step: _Step) -> None:
        form, k, columns, block, activation, count = step.n[:6]
        given = self.x(step).reshape(-1, k)
        weight = _weight(step, form, k, columns, block)
        y = np.stack([weight(row) for row in given]) if len(given) else np.zeros((0, columns), np.float32)
        if step.data[1]:
            y = y + _array(step.data[1], (columns,), np.float32)
        y = _activated(y, activation).reshape(-1, max(count, 1) * columns)
        self.put(step, y if step.inputs[1] < 0 else y + self.x(step, 1))

    def attend(self, step: _Step) -> None:
        key, value, heads, kv_heads, width, cache_width, dtype = step.n[:7]
        rotated, neighbours = step.n[8:10]
        qkv = self.x(step).reshape(-1, heads + 2 * kv_heads, width).copy()
        if rotated:
            qkv[:, : heads + kv_heads] = _turned(
                qkv[:, : heads + kv_heads], self.x(step, 1)[:, None], rotated, bool(neighbours)
            )
        caches = [self.cache(index, kv_heads, cache_width, dtype) for index in (key, value)]
        new = (qkv[:, heads : heads + kv_heads], qkv[:, heads + kv_heads :])
        scales = [1.0, 1.0] if dtype == 0 else step.f[1:3]
        for cache, rows, scale in zip(caches, new, scales, strict=True):
            stored = rows if dtype == 0 else np.clip(np.rint(rows / np.float32(scale)), -128, 127)
            for row, (slot, place) in enumerate(zip(self.slot, self.index, strict=True)):
                if place >= cache.shape[2]:
                    raise IndexError(f"row {place}, expected below {cache.shape[2]}")
                cache[slot, :, place] = 0
                cache[slot, :, place, :width] = stored[row]
        found = [self._attended(step, row, qkv[row, :heads], caches, scales) for row in range(len(qkv))]
        self.put(step, np.array(found).reshape(len(qkv), heads * width))

    def _attended(self, step: _Step, row: int, queries: Floats, caches: list[Any], scales: list[float]) -> Floats:
        heads, kv_heads, width, window = step.n[2], step.n[3], step.n[4], step.n[7]
        slot, last = self.slot[row], self.index[row]
        first = max(0, last + 1 - window) if window else 0
        keys, values = (
            cache[slot, :, first : last + 1, :width].astype(np.float64) * scale
            for cache, scale in zip(caches, scales, strict=True)
        )
        grouped = queries.reshape(kv_heads, heads // kv_heads, width)
        scores = np.einsum("hgd,hnd->hgn", grouped, keys) * step.f[0]
        return np.einsum("hgn,hnd->hgd", _softmax(scores), values).reshape(-1)

    def cache(self, index: int, heads: int, width: int, dtype: int) -> Any:
        """`[slots, heads, rows, width]`."""
        cache = self.call.caches[index]
        item = np.dtype(np.int8 if dtype else np.float32)
        slots = int(self.slot.max()) + 1
        flat = _array(cache.data, (cache.slot_bytes * (slots - 1) + cache.head_bytes * heads,), np.uint8)
        strides = (cache.slot_bytes, cache.head_bytes, width * item.itemsize, item.itemsize)
        return np.ndarray((slots, heads, cache.rows, width), item, flat, strides=strides)

    def take(self, step: _Step) -> None:
        if ((self.wanted < 0) | (self.wanted >= self.call.rows)).any():
            raise IndexError(f"wanted row {self.wanted.max()}, expected below {self.call.rows}")
        self.put(step, self.x(step)[self.wanted])

    def mean(self, step: _Step) -> None:
        x = self.x(step)
        self.put(step, x.reshape(len(x), step.n[0], -1).mean(1))

    def repeat(self, step: _Step) -> None:
        self.put(step, np.tile(self.x(step), step.n[0]))

    def gated(self, step: _Step) -> None:
        gate, wide = np.split(self.x(step), 2, axis=1)
        self.put(step, _activated(gate, step.n[0]) * wide)

    def angles(self, step: _Step) -> None:
        half = self.widths[step.outputs[0]] // 2
        angles = self.index[:, None].astype(np.float32) * _array(step.data[0], (half,), np.float32)
        self.put(step, np.concatenate([np.cos(angles), np.sin(angles)], axis=1))

    def activate(self, step: _Step) -> None:
        self.put(step, _activated(self.x(step), step.n[0]))

    def group_attend(self, step: _Step) -> None:
        heads, width, count = step.n[:3]
        query = self.x(step).reshape(-1, heads, width).astype(np.float64)
        key, value = self.x(step, 1).reshape(-1, count, 2, heads, width).transpose(2, 0, 3, 1, 4)
        shares = _softmax(np.einsum("rhd,rhnd->rhn", query, key) * step.f[0])
        self.put(step, np.einsum("rhn,rhnd->rhd", shares, value))

    def copy(self, step: _Step) -> None:
        width, at, to = step.n[:3]
        x, out = self.x(step), step.outputs[0]
        rows = self.buffers.get(out)
        if rows is None or len(rows) != len(x):
            rows = self.buffers[out] = np.zeros((len(x), self.widths[out]), np.float32)
        rows[:, to : to + width] = x[:, at : at + width]


_DO = {
    EMBED: _Stage.embed,
    ADD: _Stage.add,
    MUL: _Stage.mul,
    NORM: _Stage.norm,
    PRODUCT: _Stage.product,
    ATTEND: _Stage.attend,
    TAKE: _Stage.take,
    MEAN: _Stage.mean,
    REPEAT: _Stage.repeat,
    GATED: _Stage.gated,
    ANGLES: _Stage.angles,
    ACTIVATE: _Stage.activate,
    GROUP_ATTEND: _Stage.group_attend,
    COPY: _Stage.copy,
}


def _array(address: int | None, shape: tuple[int, ...], dtype: Any) -> Any:
    """Memory at an address."""
    assert address, "an array that is not there"
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), dtype).reshape(shape)


def _rows(given: FvRows, rows: int, parts: int, width: int, dtype: Any) -> Any:
    """Rows in parts that lie apart, `[rows, parts, width / parts]`, in place."""
    item = np.dtype(dtype)
    inner = width // parts
    size = (rows - 1) * given.row_bytes + (parts - 1) * given.part_bytes + inner * item.itemsize
    strides = (given.row_bytes, given.part_bytes, item.itemsize)
    return np.ndarray((rows, parts, inner), item, _array(given.data, (size,), np.uint8), strides=strides)


def _weight(step: _Step, form: int, k: int, columns: int, block: int) -> Any:
    """What multiplies one row."""
    panels = -(-columns // PANEL)
    if form == 0:
        packed = _array(step.data[0], (panels, k, PANEL), np.float32)
        matrix = packed.transpose(1, 0, 2).reshape(k, -1)[:, :columns]
        return lambda row: row @ matrix
    rows = -(-k // 8) * 8
    blocks, size = (-(-rows // block), block) if block else (1, rows)
    per_column = rows // 2 if form == 3 else rows
    panel_bytes = PANEL * (4 * blocks + per_column)
    packed = _array(step.data[0], (panels, panel_bytes), np.uint8)
    values, scales, at = [], [], 0
    for index in range(blocks):
        count = min(size, rows - index * size)
        scales.append(packed[:, at : at + 4 * PANEL].copy().view(np.float32).reshape(-1))
        at += 4 * PANEL
        taken = PANEL * (count // 2 if form == 3 else count)
        part = packed[:, at : at + taken].reshape(panels, -1, PANEL, 4)
        at += taken
        if form == 3:
            part = np.concatenate([part & 15, part >> 4], axis=-1)
        values.append(part.transpose(1, 3, 0, 2).reshape(count, -1).astype(np.int64) - (8 if form == 3 else 128))

    def multiply(row: Floats) -> Floats:
        row = np.concatenate([row, np.zeros(rows - k, np.float32)])
        total = np.zeros(panels * PANEL, np.float32)
        for index, (matrix, scale) in enumerate(zip(values, scales, strict=True)):
            part = row[index * size : index * size + len(matrix)]
            if form == 1:
                own, rounded = np.float32(step.f[0]), np.clip(np.rint(part / np.float32(step.f[0])), -128, 127)
            else:
                most = np.abs(part).max()
                own = np.float32(most / np.float32(127))
                rounded = np.rint(part * (np.float32(127) / most)) if most else np.zeros_like(part)
            total += (rounded.astype(np.int64) @ matrix).astype(np.float32) * (own * scale)
        return total[:columns]

    return multiply


def _activated(x: Any, activation: int) -> Any:
    wide = x.astype(np.float64)
    if activation == 1:
        return np.maximum(x, 0)
    if activation == 2:
        return wide * 0.5 * (1 + erf(wide / np.sqrt(2)))
    if activation == 3:
        return wide * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)))
    if activation == 4:
        return wide / (1 + np.exp(-wide))
    return x


def _softmax(scores: Any) -> Any:
    raised = np.exp(scores - scores.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def _turned(heads: Floats, angles: Floats, dims: int, neighbours: bool) -> Floats:
    half = dims // 2
    cos, sin = angles[..., :half], angles[..., half:]
    first, second = (heads[..., 0:dims:2], heads[..., 1:dims:2]) if neighbours else (heads[..., :half], heads[..., half:dims])
    parts = (first * cos - second * sin, second * cos + first * sin, heads[..., dims:])
    return np.concatenate(parts, axis=-1).astype(np.float32)
