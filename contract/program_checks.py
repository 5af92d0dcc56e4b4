"""Whether a program keeps to its buffers, its file of weights and its stage: what a file says is not trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .program import (
    ALIGNMENT,
    MOST_ROWS,
    PROGRAM_VERSION,
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
    Weight,
    padded,
)
from .schema import StageSpec

_MOST_WIDTH = 1 << 24
_MOST_STEPS = 1 << 16
_SMALLEST, _LARGEST = 2.0**-126, (2 - 2**-23) * 2.0**127
_TABLE_BYTES = {"float32": 4, "float16": 2, "uint8": 1}
_BLOCKS = (16, 32, 64, 128, 256)


def problem_of_program(program: Program, stage: StageSpec, widths: Sequence[int], cache_dtype: str) -> str | None:
    """What is wrong with a program, with what was expected; None: nothing, and whoever follows it stays within its memory.

    Args:
        program: as a file has it.
        stage: what it is for.
        widths: of the stage's caches in its engine.
        cache_dtype: theirs.
    """
    if program.version != PROGRAM_VERSION:
        return f"it has version {program.version}, this foveal reads {PROGRAM_VERSION}"
    if program.stage != stage.name:
        return f'it is of stage "{program.stage}", expected "{stage.name}"'
    if not 1 <= program.most_rows <= MOST_ROWS:
        return f"it takes {program.most_rows} rows, expected 1 to {MOST_ROWS}"
    return next(_Checker(program, stage, widths, cache_dtype).problems(), None)


class _Checker:
    """Goes through a program in its order, and remembers what was written."""

    def __init__(self, program: Program, stage: StageSpec, widths: Sequence[int], cache_dtype: str) -> None:
        self.program, self.stage = program, stage
        self.cache_widths, self.cache_dtype = widths, cache_dtype
        self.written: set[int] = set()
        self.angles: dict[int, int] = {}

    def problems(self) -> Iterator[str]:
        """In the order of the file; those after the first may follow from it."""
        program = self.program
        for index, buffer in enumerate(program.buffers):
            if not 1 <= buffer.width <= _MOST_WIDTH:
                yield f"buffer {index} is {buffer.width} wide, expected 1 to {_MOST_WIDTH}"
        if not 0 < len(program.steps) <= _MOST_STEPS:
            yield f"it has {len(program.steps)} steps, expected 1 to {_MOST_STEPS}"
        yield from self._input_problems()
        yield from self._cache_problems()
        for index, step in enumerate(program.steps):
            for problem in _PROBLEMS[type(step)](self, step):
                yield f"step {index} ({step.__struct_config__.tag}) {problem}"
        yield from self._output_problems()

    def _input_problems(self) -> Iterator[str]:
        expected = self.stage.names()
        if [given.name for given in self.program.inputs] != expected:
            names = ", ".join(expected)
            yield f"it reads {', '.join(given.name for given in self.program.inputs) or 'nothing'}, expected {names}"
            return
        for given, source in zip(self.program.inputs, self.stage.inputs, strict=True):
            if source.reads == "span" or (source.reads == "newest" and source.count != 1):
                yield f"{given.name} is {source.count} rows by {source.reads}, expected rows by stride, or the newest"
            elif given.count != source.count:
                yield f"{given.name} has {given.count} rows a firing, expected {source.count}"
            elif (given.buffer is None) != (source.kind == "tokens"):
                yield f"{given.name} is {'ids' if given.buffer is None else 'rows'}, expected {source.kind}"
            elif given.buffer is not None:
                yield from self._buffer(given.buffer, source.count * source.width, given.name)
                if given.buffer in self.written:
                    yield f"{given.name} is buffer {given.buffer}, expected one of its own"
                self.written.add(given.buffer)

    def _cache_problems(self) -> Iterator[str]:
        given, expected = self.program.caches, self.stage.caches
        if len(given) != len(expected) or len(self.cache_widths) != len(expected):
            yield f"it has {len(given)} caches, expected {len(expected)}"
            return
        for cache, spec, width in zip(given, expected, self.cache_widths, strict=True):
            if (cache.name, cache.heads, cache.width, cache.dtype) != (spec.name, spec.heads, width, self.cache_dtype):
                yield (
                    f"cache {cache.name} is {cache.dtype} [{cache.heads}, {cache.width}], expected {spec.name}, "
                    f"{self.cache_dtype} [{spec.heads}, {width}]"
                )
            elif spec.keeps is not None or spec.recurrent or spec.rows != 1:
                yield f"cache {cache.name} is not one row a firing"

    def _output_problems(self) -> Iterator[str]:
        is_logits = self.stage.output == "logits"
        yield from self._read(
            self.program.output, self.stage.width * (1 if is_logits else self.stage.output_rows), "the output"
        )
        if any(given.buffer == self.program.output for given in self.program.inputs):
            yield "the output is an input"
        elif self._is_buffer(self.program.output) and self.program.buffers[self.program.output].wanted != is_logits:
            yield f"the output has a row for {'every firing' if is_logits else 'those that are wanted'}, expected otherwise"

    # What steps are made of.

    def _is_buffer(self, index: int) -> bool:
        return 0 <= index < len(self.program.buffers)

    def _buffer(self, index: int, width: int, what: str) -> Iterator[str]:
        if not self._is_buffer(index):
            yield f"{what} is buffer {index}, expected one of {len(self.program.buffers)}"
        elif self.program.buffers[index].width != width:
            yield f"{what} is {self.program.buffers[index].width} wide, expected {width}"

    def _read(self, index: int, width: int, what: str) -> Iterator[str]:
        yield from self._buffer(index, width, what)
        if index not in self.written:
            yield f"{what} is buffer {index}, which nothing wrote"

    def _write(
        self, index: int, width: int, reads: Sequence[int | None], what: str = "out", wanted: bool | None = None
    ) -> Iterator[str]:
        """A buffer of the same rows as those that the step reads, and not an input."""
        yield from self._buffer(index, width, what)
        if any(given.buffer == index for given in self.program.inputs):
            yield f"{what} is buffer {index}, an input of the stage"
        rows = {self.program.buffers[one].wanted for one in reads if one is not None and self._is_buffer(one)}
        rows |= {self.program.buffers[index].wanted} if self._is_buffer(index) and wanted is None else set()
        if len(rows) > 1:
            yield "has buffers of every firing and of those that are wanted"
        self.written.add(index)

    def _array(self, place: int | None, items: int, item_bytes: int, what: str) -> Iterator[str]:
        if place is None:
            return
        if place < 0 or place % ALIGNMENT or place + items * item_bytes > self.program.data_bytes:
            yield (
                f"has {what} of {items * item_bytes} bytes at {place}, expected within {self.program.data_bytes} bytes, "
                f"at a multiple of {ALIGNMENT}"
            )

    def _apart(self, out: int, *reads: int | None) -> Iterator[str]:
        if out in reads:
            yield f"writes buffer {out}, which it reads"

    def _sizes(self, **sizes: int) -> Iterator[str]:
        for name, size in sizes.items():
            if not 1 <= size <= _MOST_WIDTH:
                yield f"has {name} {size}, expected 1 to {_MOST_WIDTH}"

    def _numbers(self, *, positive: bool = True, **numbers: float) -> Iterator[str]:
        for name, number in numbers.items():
            if not (_SMALLEST if positive else 0.0) <= number <= _LARGEST:
                yield f"has {name} {number}, expected a {'positive' if positive else 'finite'} number of fp32"

    # The steps.

    def embed(self, step: Embed) -> Iterator[str]:
        yield from self._sizes(width=step.width, count=step.count, tokens=step.tokens)
        if not 0 <= step.ids < len(self.program.inputs) or self.program.inputs[step.ids].buffer is not None:
            yield f"reads input {step.ids}, expected ids"
        elif self.program.inputs[step.ids].count != step.count:
            yield f"reads {step.count} ids a firing, expected {self.program.inputs[step.ids].count}"
        if (step.scales is None) == (step.dtype == "uint8"):
            yield f"has {'no ' if step.scales is None else ''}scales of a table of {step.dtype}"
        yield from self._array(step.table, step.tokens * step.width, _TABLE_BYTES[step.dtype], "a table")
        yield from self._array(step.scales, step.tokens, 4, "scales")
        if step.positions is not None:
            yield from self._sizes(position_rows=step.position_rows)
            yield from self._array(step.positions, step.position_rows * step.width, 4, "positions")
            if step.count != 1:
                yield f"has positions of {step.count} ids a firing, expected one"
        yield from self._write(step.out, step.count * step.width, [])
        yield from self._of_firings(step.out)

    def _of_firings(self, out: int) -> Iterator[str]:
        if self._is_buffer(out) and self.program.buffers[out].wanted:
            yield "gives rows of those that are wanted, expected of every firing"

    def add(self, step: Add) -> Iterator[str]:
        width = self.program.buffers[step.out].width if self._is_buffer(step.out) else 0
        for buffer in (step.a, step.b, *([] if step.c is None else [step.c])):
            yield from self._read(buffer, width, "what is added")
        yield from self._write(step.out, width, [step.a, step.b, step.c])

    def mul(self, step: Mul) -> Iterator[str]:
        width = self.program.buffers[step.out].width if self._is_buffer(step.out) else 0
        for buffer in (step.a, step.b):
            yield from self._read(buffer, width, "what is multiplied")
        yield from self._write(step.out, width, [step.a, step.b])

    def activate(self, step: Activate) -> Iterator[str]:
        width = self.program.buffers[step.out].width if self._is_buffer(step.out) else 0
        yield from self._read(step.x, width, "x")
        yield from self._write(step.out, width, [step.x])

    def norm(self, step: Norm) -> Iterator[str]:
        yield from self._sizes(width=step.width)
        yield from self._numbers(eps=step.eps, positive=False)
        yield from self._array(step.gamma, step.width, 4, "gamma")
        yield from self._array(step.beta, step.width, 4, "beta")
        width = self.program.buffers[step.x].width if self._is_buffer(step.x) else 0
        if width % max(step.width, 1):
            yield f"has rows {width} wide, expected a multiple of {step.width}"
        yield from self._read(step.x, width, "x")
        if (step.added is None) != (step.total is None):
            yield "has one of added and total, expected both or neither"
        if step.added is not None and step.total is not None:
            yield from self._read(step.added, width, "added")
            yield from self._write(step.total, width, [step.x, step.added], "total")
        yield from self._write(step.out, width, [step.x, step.added])
        yield from self._apart(step.out, step.x, step.added, step.total)

    def product(self, step: Product) -> Iterator[str]:
        weight = step.weight
        yield from self._sizes(count=step.count, rows=weight.rows, columns=weight.columns)
        yield from self._weight(weight)
        if weight.format == "int8":
            yield from self._numbers(x_scale=step.x_scale)
        yield from self._array(step.bias, padded(weight.columns), 4, "a bias")
        yield from self._read(step.x, step.count * weight.rows, "x")
        if step.added is not None:
            yield from self._read(step.added, step.count * weight.columns, "added")
        yield from self._write(step.out, step.count * weight.columns, [step.x, step.added])
        yield from self._apart(step.out, step.x)

    def _weight(self, weight: Weight) -> Iterator[str]:
        is_blocked = weight.format in ("w8", "w4")
        if is_blocked and weight.block not in _BLOCKS:
            yield f"has blocks of {weight.block}, expected one of {', '.join(map(str, _BLOCKS))}"
        elif not is_blocked and weight.block:
            yield f"has blocks of {weight.block}, expected none of {weight.format}"
        else:
            yield from self._array(weight.place, weight.bytes, 1, "a weight")

    def gate(self, step: Gate) -> Iterator[str]:
        yield from self._sizes(width=step.width)
        yield from self._read(step.x, 2 * step.width, "x")
        yield from self._write(step.out, step.width, [step.x])
        yield from self._apart(step.out, step.x)

    def angles_(self, step: Angles) -> Iterator[str]:
        yield from self._sizes(width=step.width)
        if step.width % 2:
            yield f"has a width of {step.width}, expected an even number"
        yield from self._array(step.frequencies, step.width // 2, 4, "frequencies")
        yield from self._write(step.out, step.width, [])
        yield from self._of_firings(step.out)
        self.angles[step.out] = step.width

    def attend(self, step: Attend) -> Iterator[str]:
        yield from self._sizes(heads=step.heads, kv_heads=step.kv_heads, head_dim=step.head_dim)
        yield from self._numbers(scale=step.scale)
        if step.heads % max(step.kv_heads, 1):
            yield f"has {step.heads} heads and {step.kv_heads} of keys, expected a divisor"
        if not 0 <= step.window <= _MOST_WIDTH:
            yield f"has a window of {step.window}, expected 0 to {_MOST_WIDTH}"
        if step.angles is not None:
            width = self.angles.get(step.angles, 0)
            yield from self._read(step.angles, width, "angles")
            if not 0 < width <= step.head_dim:
                yield f"rotates {width} dimensions, expected an even number of angles, at most {step.head_dim}"
        if step.key == step.value:
            yield "has one cache for keys and values"
        for index, scale in ((step.key, step.key_scale), (step.value, step.value_scale)):
            if not 0 <= index < len(self.program.caches):
                yield f"has cache {index}, expected one of {len(self.program.caches)}"
                continue
            cache = self.program.caches[index]
            if cache.heads != step.kv_heads or cache.width < step.head_dim:
                yield f"has cache [{cache.heads}, {cache.width}], expected [{step.kv_heads}, at least {step.head_dim}]"
            if cache.dtype == "int8":
                yield from self._numbers(cache_scale=scale)
        yield from self._read(step.qkv, (step.heads + 2 * step.kv_heads) * step.head_dim, "qkv")
        yield from self._write(step.out, step.heads * step.head_dim, [step.qkv])
        yield from self._apart(step.out, step.qkv)
        if self._is_buffer(step.qkv) and self.program.buffers[step.qkv].wanted:
            yield "attends from those that are wanted, expected from every firing"

    def group_attend(self, step: GroupAttend) -> Iterator[str]:
        yield from self._sizes(heads=step.heads, head_dim=step.head_dim, count=step.count)
        yield from self._numbers(scale=step.scale)
        width = step.heads * step.head_dim
        yield from self._read(step.query, width, "query")
        yield from self._read(step.key_values, 2 * width * step.count, "key_values")
        yield from self._write(step.out, width, [step.query, step.key_values])
        yield from self._apart(step.out, step.query, step.key_values)

    def take(self, step: Take) -> Iterator[str]:
        width = self.program.buffers[step.x].width if self._is_buffer(step.x) else 0
        yield from self._read(step.x, width, "x")
        yield from self._write(step.out, width, [], wanted=True)
        if self.stage.output != "logits":
            yield "takes the rows that are wanted, expected of a stage that gives logits"
        kinds = [self.program.buffers[one].wanted for one in (step.x, step.out) if self._is_buffer(one)]
        if kinds != [False, True]:
            yield "is not from rows of every firing to those that are wanted"

    def mean(self, step: Mean) -> Iterator[str]:
        width = self.program.buffers[step.out].width if self._is_buffer(step.out) else 0
        yield from self._sizes(count=step.count)
        yield from self._read(step.x, width * step.count, "x")
        yield from self._write(step.out, width, [step.x])
        yield from self._apart(step.out, step.x)

    def repeat(self, step: Repeat) -> Iterator[str]:
        width = self.program.buffers[step.x].width if self._is_buffer(step.x) else 0
        yield from self._sizes(count=step.count)
        yield from self._read(step.x, width, "x")
        yield from self._write(step.out, width * step.count, [step.x])
        yield from self._apart(step.out, step.x)

    def copy(self, step: Copy) -> Iterator[str]:
        yield from self._sizes(width=step.width)
        for index, at, what in ((step.x, step.at, "x"), (step.out, step.to, "out")):
            width = self.program.buffers[index].width if self._is_buffer(index) else 0
            if not 0 <= at <= width - step.width:
                yield f"copies {step.width} columns at {at} of {what}, which is {width} wide"
        yield from self._read(step.x, self.program.buffers[step.x].width if self._is_buffer(step.x) else 0, "x")
        yield from self._write(step.out, self.program.buffers[step.out].width if self._is_buffer(step.out) else 0, [step.x])
        yield from self._apart(step.out, step.x)


_PROBLEMS: dict[type[Any], Callable[[_Checker, Any], Iterator[str]]] = {
    Embed: _Checker.embed,
    Add: _Checker.add,
    Mul: _Checker.mul,
    Activate: _Checker.activate,
    Angles: _Checker.angles_,
    Norm: _Checker.norm,
    Product: _Checker.product,
    Gate: _Checker.gate,
    Attend: _Checker.attend,
    GroupAttend: _Checker.group_attend,
    Take: _Checker.take,
    Mean: _Checker.mean,
    Repeat: _Checker.repeat,
    Copy: _Checker.copy,
}
