"""Programs of stages in a few lines of numpy, of every kind that stages can be; on the host, on a device, and what they mean.

All stages compute what `FakeEngine` does. `meaning` is the same once more, token by token and with nothing kept that a stage
forgets: what holds against it holds of the interpreters, whatever stages compute.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from hypothesis import strategies as st

from foveal.bundle import ModelInfo
from foveal.contract import (
    BEGINNING,
    BorrowSpec,
    CacheSpec,
    InputSpec,
    Limits,
    StageSpec,
    leads_of,
    most_firings,
    sampler_contract,
    span_room,
)
from foveal.export.graphs.sampler import sampler_graph
from foveal.runtime.device import Buffer, HostDevice
from foveal.runtime.engines.base import Engine
from foveal.runtime.engines.fake import FakeEngine, FakeStage
from foveal.runtime.engines.onnxruntime_library import memory_of
from foveal.runtime.engines.onnxruntime_resident import ResidentOrtProgram
from foveal.runtime.engines.resident import Phase
from foveal.runtime.resident import ResidentEngines
from foveal.runtime.rows import Array, Block

DIM, VOCABULARY, CAPACITY = 5, 41, 96
LIMITS = Limits(batch=2, capacity=CAPACITY, prefill=7)
"""A prefill so short that most chunks are run in several calls."""

Program = tuple[StageSpec, ...]


def info(**changes: Any) -> ModelInfo:
    """A model's description."""
    fields = {
        "architecture": "test",
        "source_format": "test",
        "hierarchy": "1@1",
        "vocab_size": VOCABULARY,
        "dim": DIM,
        "max_positions": CAPACITY,
        "context": CAPACITY,
        "parameters": 0,
        "layer_equivalents": 1.0,
    }
    return ModelInfo(**{**fields, **changes})


def stage(name: str, stride: int, inputs: Sequence[InputSpec], **changes: Any) -> StageSpec:
    """A stage with the one cache that a `FakeEngine` has, among others that give rows of one width."""
    read = tuple(given if given.source is None else msgspec.structs.replace(given, width=DIM) for given in inputs)
    cache = CacheSpec(name="mix", heads=1, width=DIM, keeps=changes.get("resets"))
    fields = {"output": "hidden", "layers": 1, "caches": (cache,), "parameters": 0}
    width = VOCABULARY if changes.get("output") == "logits" else DIM
    return StageSpec(name=name, stride=stride, inputs=read, width=width, **{**fields, **changes})


TOKENS = InputSpec(kind="tokens")


def hourglass(k: int, inner: int) -> Program:
    """Three scales, of strides 1, k and k * inner, firing when a token opens a group."""
    stream, context = InputSpec(kind="stream", source="k.pre"), InputSpec(kind="context", source="deep")
    fine, coarse = InputSpec(kind="stream", source="1.pre"), InputSpec(kind="context", source="k.post")
    return (
        stage("1.pre", 1, [TOKENS]),
        stage("k.pre", k, [InputSpec(kind="window", source="1.pre", count=k, shift=k - 1)]),
        stage("deep", k * inner, [InputSpec(kind="window", source="k.pre", count=inner, shift=inner - 1)], output_rows=inner),
        stage("k.post", k, [stream, context], output_rows=k),
        stage("1.post", 1, [fine, coarse], output="logits"),
    )


def top_down(k: int) -> Program:
    """Coarse first, from tokens alone: fires when a group is complete and serves the next group."""
    return (
        stage("k", k, [InputSpec(kind="tokens", count=k)], fires="close", output_rows=k),
        stage("1", 1, [TOKENS, InputSpec(kind="context", source="k", shift=k)], output="logits"),
    )


def ahead(k: int, inner: int, reads_rows: bool = False, **fine: Any) -> Program:
    """Two coarse scales that work before the first token of their group, on the groups before it.

    Each reads the tokens or rows of the group before its own, of which there are none at the beginning.
    """
    both = k * inner
    before = {"count": both, "shift": both}
    context = InputSpec(kind="context", source="k")
    group = InputSpec(kind="window", source="1.pre", **before) if reads_rows else InputSpec(kind="tokens", **before)
    return (
        stage("1.pre", 1, [TOKENS]),
        stage("deep", both, [group], fires="ahead", output_rows=inner),
        stage(
            "k",
            k,
            [InputSpec(kind="window", source="1.pre", count=k, shift=k), InputSpec(kind="context", source="deep")],
            fires="ahead",
            output_rows=k,
        ),
        stage("1", 1, [InputSpec(kind="stream", source="1.pre"), context], output="logits", **fine),
    )


def forgetful(k: int, inner: int, periods: int = 1, reads_rows: bool = False) -> Program:
    """The same, with a fine stage that remembers so many groups and no more, and a coarse one so many firings: `inner`."""
    program = ahead(k, inner, reads_rows, resets=k * periods)
    coarse = stage("k", k, program[2].inputs, fires="ahead", output_rows=k, resets=inner)
    return (*program[:2], coarse, program[3])


def borrowing(k: int) -> Program:
    """A fine stage that reads what a coarse one remembers, and no row that it gives."""
    coarse = stage("k", k, [InputSpec(kind="tokens", count=k, shift=k - 1)])
    return (coarse, stage("1", 1, [TOKENS], borrows=(BorrowSpec(stage="k", cache=coarse.caches[0]),), output="logits"))


def paged(k: int, page: int, rewinds: int | None = None) -> Program:
    """One whose calls must not cross multiples of a page."""
    coarse, fine = top_down(k)
    return (msgspec.structs.replace(coarse, page=page, rewinds=rewinds), fine)


programs = st.one_of(
    st.builds(hourglass, st.integers(2, 4), st.integers(2, 4)),
    st.builds(top_down, st.integers(2, 16)),
    st.builds(ahead, st.integers(2, 5), st.integers(2, 3)),
    st.builds(forgetful, st.integers(2, 6), st.integers(1, 4), st.integers(1, 3), st.booleans()),
    st.builds(borrowing, st.integers(1, 5)),
    st.builds(paged, st.integers(2, 5), st.integers(1, 9)),
)
"""Of every kind."""


def host_engines(program: Program) -> list[Engine]:
    """Fakes of its stages."""
    return [LendingEngine(spec, DIM, program) if spec.borrows else FakeEngine(spec, DIM) for spec in program]


def _lent(spec: StageSpec, lender: StageSpec, caches: Array, first: int, firings: int) -> Array:
    """What a borrower makes of a cache `[B, 1, S, D]`: for each of its firings the sum of the rows there are by then."""
    sums = np.concatenate([np.zeros_like(caches[:, 0, :1]), np.cumsum(caches[:, 0], axis=1, dtype=np.float64)], 1)
    by_then = [lender.firings_within(spec.fired_by(firing) + 1) for firing in range(first, first + firings)]
    return sums[:, by_then]


class LendingEngine(FakeEngine):
    """A `FakeEngine` that adds what it borrows to its mixes."""

    def __init__(self, spec: StageSpec, dim: int, program: Program) -> None:
        super().__init__(spec, dim)
        self.lenders = [next(other for other in program if other.name == given.stage) for given in spec.borrows]

    def attach(self, caches: Sequence[Array], batch: int, firings: int) -> LendingStage:
        """As `FakeEngine.attach`."""
        return LendingStage(self, caches)


class LendingStage(FakeStage):
    """A `LendingEngine` with its caches."""

    def __init__(self, engine: LendingEngine, caches: Sequence[Array]) -> None:
        super().__init__(engine, caches)
        self.lenders = engine.lenders

    def run(self, first: int, firings: int, inputs: Sequence[Block], output: Block, logit_rows: Block | None) -> None:
        """As `BoundStage.run`."""
        self.first = first
        super().run(first, firings, inputs, output, logit_rows)

    def _read(self, given: InputSpec, blocks: Iterator[Array], firings: int) -> Array:
        mixed = super()._read(given, blocks, firings)
        for lender, cache in zip(self.lenders, self.lent, strict=True):
            mixed = mixed + _lent(self.engine.spec, lender, cache, self.first, firings)
        return mixed


class FakeResidentEngine:
    """As `ResidentEngine`, on a `HostDevice`; in place, or with caches that take turns. Remembers its calls.

    Its caches are twice as wide as the stage says: behind every number in fp32 stands what that lacks of the number.
    """

    cache_dtype, own_positions, target = "float32", True, "cuda"

    def __init__(self, spec: StageSpec, program: Program, limits: Limits | None, in_place: bool, replaces: bool = True) -> None:
        self.replaces_in_place = in_place and replaces
        self.spec, self.program, self.limits, self.in_place = spec, program, limits, in_place
        self.cache_widths = tuple(2 * cache.width for cache in spec.caches)
        self.calls: list[range] = []

    @property
    def fired(self) -> list[int]:
        """All firings so far, in order."""
        return [firing for call in self.calls for firing in call]

    def bind(self, phase: Phase, batch: int, beside: bool = False) -> FakeResidentStage:
        """As `ResidentProgram.bind`."""
        return FakeResidentStage(self, phase, batch)

    def keep_compiled(self) -> None:
        """As `ResidentProgram.keep_compiled`."""


class FakeResidentStage:
    """A `FakeResidentEngine` bound to addresses."""

    def __init__(self, engine: FakeResidentEngine, phase: Phase, batch: int) -> None:
        self.engine, self.phase, self.batch, self.buffers = engine, phase, batch, {}  # type: Any, Phase, int, dict[str, Buffer]

    def bind(self, tensor: str, buffer: Buffer) -> None:
        """As `ResidentStage.bind`."""
        self.buffers[tensor] = buffer

    def check_recordable(self) -> None:
        """As `ResidentStage.check_recordable`."""

    def run(self, firings: int, wanted: int, spans: Mapping[str, int] | None = None) -> None:
        """As `ResidentStage.run`."""
        engine, spec, batch = self.engine, self.engine.spec, self.batch
        self.spans = dict(spans or {})
        most = 1 if self.phase == "decode" else most_firings(spec, engine.limits) if engine.limits else firings
        self._check_spans(firings)
        assert firings <= most, f"stage {spec.name} is built for {most} firings at once, got {firings}"
        firsts = self._read("position", (batch,), np.int64).tolist()
        engine.calls.append(range(firsts[0], firsts[0] + firings))
        self._check_room(firsts, firings)
        replaces = spec.is_recurrent and not engine.replaces_in_place
        memory = self._advance("past_key_values.mix", "present.mix", 2 * DIM, apart=replaces)
        log = self._advance("past_rows", "present_rows", DIM) if spec.output == "hidden" else None
        y = np.stack([self._fire(memory, sequence, first, firings) for sequence, first in enumerate(firsts)])
        if log is None:
            rows = self._read("logit_rows", (wanted,), np.int64)
            spread = np.arange(1, spec.width + 1) / spec.width
            self._read("logits", (batch, wanted, spec.width), np.float32)[...] = (y.sum(-1, keepdims=True) * spread)[:, rows]
        else:
            slots = np.arange(1, spec.output_rows + 1)[:, None]
            for sequence, first in enumerate(firsts):
                log[sequence, 0, self._new_rows(first, firings)] = (y[sequence][:, None] * slots).reshape(-1, DIM)

    def _check_spans(self, firings: int) -> None:
        limits = self.engine.limits
        if limits is not None and firings > 1:
            room = span_room(limits)
            for letter, size in self.spans.items():
                most = room.longest if letter.startswith("P.") else room.block
                assert size <= most, f"{letter} is {size}, of several firings expected at most {most}"

    def _check_room(self, firsts: Sequence[int], firings: int) -> None:
        spec, limits = self.engine.spec, self.engine.limits
        if limits is not None:
            assert max(firsts) + firings <= spec.capacity_firings(limits.capacity), f"{firings} of {spec.name} from {firsts}"
        assert min(firsts) >= 0

    def _fire(self, memory: Array, sequence: int, first: int, firings: int) -> Array:
        """What one sequence remembers goes to the caches; rows `[L, D]`."""
        spec = self.engine.spec
        mixed = sum(
            self._mixed(given, name, sequence, first, firings) for name, given in zip(spec.names(), spec.inputs, strict=True)
        )
        for borrowed in spec.borrows:
            lender = next(other for other in self.engine.program if other.name == borrowed.stage)
            lent = _whole(self._log(borrowed.name, 2 * DIM)[sequence : sequence + 1])
            mixed = mixed + _lent(spec, lender, lent, first, firings)[0]
        if spec.is_recurrent:  # it keeps the sum alone
            sums = _whole(memory)[sequence, 0] + np.cumsum(mixed, axis=0)
            memory[sequence, 0] = _halves(sums[-1:])
            return np.asarray(np.sin(sums + mixed))
        start = first if spec.resets is None else first % spec.resets
        memory[sequence, 0, start : start + firings] = _halves(mixed)
        sums = np.cumsum(_whole(memory)[sequence, 0, : start + firings], axis=0)[start:]
        y: Array = np.sin(sums + mixed)
        return y

    def spoil(self, firings: int) -> None:
        """Put what no one may read where a run of so many firings will write rows: kernels may use that memory meanwhile."""
        if self.engine.spec.output == "hidden":
            for sequence, first in enumerate(self._read("position", (self.batch,), np.int64).tolist()):
                self._log("present_rows", DIM)[sequence, 0, self._new_rows(first, firings)] = np.nan

    def _new_rows(self, first: int, firings: int) -> slice:
        rows = self.engine.spec.output_rows
        place = leads_of(self.engine.program)[self.engine.spec.name] + first * rows
        return slice(place, place + firings * rows)

    def _mixed(self, given: InputSpec, name: str, sequence: int, first: int, firings: int) -> Array:
        """What the firings make of one input: `[L, D]`."""
        if given.reads == "span":
            return self._mixed_spans(given, name, sequence, firings)
        count = given.count * firings
        if given.source is None:
            ids = self._read(name, (self.batch, count), np.int64)[sequence]
            rows = np.repeat(ids[:, None] + 1.0, DIM, axis=1)
        elif given.reads == "newest":
            places = self._read(f"places.{name}", (self.batch, count), np.int64)[sequence]
            rows = self._log(f"rows.{given.source}", DIM)[sequence, 0, places]
        else:
            assert self._read("offsets", (firings,), np.int64).tolist() == list(range(firings))
            place = leads_of(self.engine.program)[given.source] + first * given.count - given.shift
            rows = self._log(f"rows.{given.source}", DIM)[sequence, 0, place : place + count]
        weights = np.cos(np.arange(1, given.count + 1))
        return np.einsum("nkd,k->nd", rows.reshape(firings, given.count, DIM).astype(np.float64), weights)

    def _mixed_spans(self, given: InputSpec, name: str, sequence: int, firings: int) -> Array:
        rows, longest = self.spans[f"M.{name}"], self.spans[f"P.{name}"]
        assert self._read(f"{name}.within", (longest,), np.int64).tolist() == list(range(longest))
        firsts = self._read(f"{name}.first", (firings,), np.int64).tolist()
        lengths = self._read(f"{name}.lengths", (self.batch, firings), np.int64)[sequence].tolist()
        assert max(*lengths, 1) == longest
        places = self._read(f"places.{name}", (self.batch, rows), np.int64)[sequence]
        block = self._log(f"rows.{given.source}", DIM)[sequence, 0, places].astype(np.float64)
        spans = [block[begin : begin + length] for begin, length in zip(firsts, lengths, strict=True)]
        assert [len(span) for span in spans] == lengths
        return np.stack([np.cos(np.arange(1, len(span) + 1)) @ span for span in spans])

    def _advance(self, past: str, present: str, width: int, apart: bool = False) -> Array:
        """What is to be written, with all of the past in it."""
        old, new = self._log(past, width), self._log(present, width)
        is_apart = apart or not self.engine.in_place
        assert (self.buffers[past].address != self.buffers[present].address) == is_apart
        if is_apart:
            new[...] = old
        return new

    def _log(self, name: str, width: int) -> Array:
        rows = self.buffers[name].nbytes // (4 * self.batch * width)
        return self._read(name, (self.batch, 1, rows, width), np.float32)

    def _read(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """The tensor itself, where it stands."""
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        buffer = self.buffers[name]
        assert nbytes <= buffer.nbytes, f"{name} has {buffer.nbytes} bytes, asked for {nbytes}"
        return np.frombuffer((ctypes.c_char * nbytes).from_address(buffer.address), dtype).reshape(shape)


def _halves(numbers: Array) -> Array:
    """`[..., D]` -> `[..., 2 * D]`, fp32."""
    rounded = numbers.astype(np.float32)
    return np.concatenate([rounded, (numbers - rounded).astype(np.float32)], -1)


def _whole(halves: Array) -> Array:
    """`[..., 2 * D]` -> `[..., D]`."""
    rounded, rest = np.split(halves.astype(np.float64), 2, -1)
    return rounded + rest


def resident_engines(
    program: Program, in_place: bool = True, limits: Limits | None = LIMITS, overlap: bool = False, replaces: bool = True
) -> ResidentEngines:
    """Fakes of its stages in the memory of a device. The sampler is the real one, on ONNX Runtime.

    `in_place`: whether caches are written where they are; `replaces`: whether states that are replaced then are, too.
    """
    engines = [FakeResidentEngine(spec, program, limits, in_place, replaces) for spec in program]
    session = ort.InferenceSession(_sampler(len(program)), providers=["CPUExecutionProvider"])
    sampler = ResidentOrtProgram("sampler", session, sampler_contract(len(program), VOCABULARY), memory_of("cpu"))
    return ResidentEngines(engines, HostDevice(), sampler, overlap=overlap)


@functools.cache
def _sampler(stages: int) -> bytes:
    return ir.to_proto(sampler_graph(stages, VOCABULARY)).SerializeToString()


def meaning(program: Program, ids: Array) -> Array:
    """Logits `[B, L, V]` of ids `[B, L]`, worked out token by token, firing by firing and row by row."""
    batch, length = ids.shape
    rows: dict[str, list[Array]] = {spec.name: [] for spec in program}
    mixes: dict[str, list[Array]] = {spec.name: [] for spec in program}
    logits = []

    def row(source: str | None, index: int) -> Array:
        if source is None:
            return np.repeat((ids[:, index : index + 1] if index >= 0 else np.zeros((batch, 1))) + 1.0, DIM, 1)
        return rows[source][index] if index >= 0 else np.zeros((batch, DIM))

    for token in range(BEGINNING, length):
        for spec in program:
            if not _fires(spec, token):
                continue
            firing, remembered = len(mixes[spec.name]), mixes[spec.name]
            mix = sum(
                np.cos(place + 1) * row(given.source, firing * given.count - given.shift + place)
                for given in spec.inputs
                for place in range(given.count)
            )
            mix = sum((sum(mixes[borrowed.stage]) for borrowed in spec.borrows), mix)
            remembered.append(mix)
            begin = 0 if spec.resets is None else firing - firing % spec.resets
            y = np.sin(sum(remembered[begin:]) + mix)
            if spec.output == "logits":
                logits.append(y.sum(-1, keepdims=True) * np.arange(1, spec.width + 1) / spec.width)
            rows[spec.name] += [(y * (slot + 1)).astype(np.float32) for slot in range(spec.output_rows)]
    return np.stack(logits, 1)


def _fires(spec: StageSpec, token: int) -> bool:
    if spec.fires == "open":
        return token >= 0 and token % spec.stride == 0
    return (token + 1) % spec.stride == 0 and (token >= 0 or spec.fires == "ahead")
