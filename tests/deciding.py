"""Programs whose firings the data decides, and what they mean: token by token, with nothing kept but lists of rows."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import msgspec
import numpy as np
from programs import CAPACITY, DIM, TOKENS, VOCABULARY, Program, stage

from foveal.contract import CacheSpec, ClockSpec, InputSpec, StageSpec
from foveal.runtime.rows import Array
from foveal.runtime.session import Session
from foveal.runtime.snapshots import Snapshot

STATE = CacheSpec(name="mix", heads=1, width=DIM, recurrent=True)


def newest(source: str | None, count: int = 1, shift: int = 0) -> InputSpec:
    """The newest rows of a stage, or ids."""
    return InputSpec(kind="tokens" if source is None else "context", source=source, count=count, shift=shift, reads="newest")


def span(source: str, shift: int = 0) -> InputSpec:
    """All rows since the firing before."""
    return InputSpec(kind="window", source=source, shift=shift, reads="span")


def random_clock(choose: Random, source: str | None) -> ClockSpec:
    """Any rule; the rows of `FakeEngine` are between -1 and 1."""
    least = choose.choice([1, 1, 1, 2, 3])
    rule = {
        "firsts": choose.choice([0, 0, 1, 2]),
        "least": least,
        "most": choose.choice([None, None, least, least + 3]),
    }
    if source is None:
        return ClockSpec(ids=tuple(choose.sample(range(VOCABULARY), choose.randint(1, VOCABULARY))), **rule)
    threshold, column = choose.uniform(-1.05, 1.05), choose.choice([-1, 0, 2])
    return ClockSpec(stage=source, column=column, threshold=threshold, ties=choose.random() < 0.5, **rule)


def random_program(choose: Random) -> Program:
    """One scale whose boundaries the data decides, or two, of which the inner one decides by its own rows."""
    outer = random_clock(choose, choose.choice(["pre", "pre", None]))
    reads = choose.choice([newest("pre", choose.randint(1, 4), choose.choice([0, 1])), span("pre", choose.choice([0, 1]))])
    inner_reads = [reads] if choose.random() < 0.7 else [reads, newest(None, choose.randint(1, 3))]
    pre = _maybe_recurrent(choose, stage("pre", 1, [TOKENS]))
    if choose.random() < 0.5:
        fires = choose.choice(["open", "close", "ahead"])
        rows = choose.randint(1, 2)
        middle = _maybe_recurrent(choose, stage("middle", 1, inner_reads, clock=outer, fires=fires, output_rows=rows))
        post = stage("post", 1, [InputSpec(kind="stream", source="pre"), newest("middle", rows)], output="logits")
        return pre, middle, _maybe_recurrent(choose, post)
    down = _maybe_recurrent(choose, stage("down", 1, inner_reads, clock=outer))
    inner = random_clock(choose, "down")
    deep = choose.choice([newest("down"), span("down")])
    main = _maybe_recurrent(choose, stage("main", 1, [deep], clock=inner, fires=choose.choice(["close", "ahead"])))
    up = stage("up", 1, [InputSpec(kind="stream", source="down"), newest("main")], clock=outer)
    post = stage("post", 1, [InputSpec(kind="stream", source="pre"), newest("up")], output="logits")
    return pre, down, main, _maybe_recurrent(choose, up), _maybe_recurrent(choose, post)


def _maybe_recurrent(choose: Random, spec: StageSpec) -> StageSpec:
    return msgspec.structs.replace(spec, caches=(STATE,)) if choose.random() < 0.3 else spec


class Meaning:
    """What a program makes of ids, by the definitions."""

    def __init__(self, program: Program) -> None:
        self._program, self._specs = program, {spec.name: spec for spec in program}
        self._rows: dict[str, list[Array]] = {spec.name: [] for spec in program}
        self._sums: dict[str, Array] = {spec.name: np.zeros(DIM) for spec in program}
        self._fired: dict[str, list[dict[str | None, int]]] = {spec.name: [] for spec in program}
        """By stage and firing, how many rows of every source there were when it was caused."""
        self._last: dict[ClockSpec, int] = {}
        self._ids: list[int] = []
        for spec in program:
            if spec.begins_ahead:
                self._fire(spec)

    def append(self, token: int) -> Array:
        """Logits `[V]`."""
        self._ids.append(token)
        made = {clock for clock in self._clocks(None) if self._is_boundary(clock, len(self._ids) - 1, token in clock.ids)}
        logits = np.zeros(VOCABULARY)
        for spec in self._program:
            if spec.clock is not None and spec.clock not in made:
                continue
            logits = self._fire(spec)
            for clock in self._clocks(spec.name):
                value = self._rows[spec.name][-1][clock.column]
                is_above = value >= clock.threshold if clock.ties else value > clock.threshold
                if self._is_boundary(clock, len(self._rows[spec.name]) - 1, bool(is_above)):
                    made.add(clock)
        return logits

    def _clocks(self, source: str | None) -> set[ClockSpec]:
        return {spec.clock for spec in self._program if spec.clock is not None and spec.clock.stage == source}

    def _is_boundary(self, clock: ClockSpec, row: int, wanted: bool) -> bool:
        length = row - self._last.get(clock, -1)
        is_one = length >= clock.least and (wanted or length == clock.most)
        if row < clock.firsts or is_one:
            self._last[clock] = row
            return True
        return False

    def _fire(self, spec: StageSpec) -> Array:
        counts = {given.source: self._count(given.source) for given in spec.inputs}
        mix = np.zeros(DIM)
        for given in spec.inputs:
            for place, row in enumerate(self._read(spec, given, counts)):
                mix = mix + np.cos(place + 1) * row
        self._fired[spec.name].append(counts)
        self._sums[spec.name] = self._sums[spec.name] + mix
        y = np.sin(self._sums[spec.name] + mix)
        if spec.output == "logits":
            logits: Array = y.sum() * np.arange(1, VOCABULARY + 1) / VOCABULARY
            return logits
        self._rows[spec.name] += [(y * (slot + 1)).astype(np.float32) for slot in range(spec.output_rows)]
        return y

    def _count(self, source: str | None) -> int:
        return len(self._ids) if source is None else len(self._rows[source])

    def _row(self, source: str | None, index: int) -> Array:
        if source is None:
            return np.full(DIM, (self._ids[index] if index >= 0 else 0) + 1.0)
        return self._rows[source][index] if index >= 0 else np.zeros(DIM)

    def _read(self, spec: StageSpec, given: InputSpec, counts: dict[str | None, int]) -> list[Array]:
        firing, source = len(self._fired[spec.name]), given.source
        end = counts[source] - given.shift
        if given.reads == "newest":
            indices = range(end - given.count, end)
        elif given.reads == "span":
            before = self._fired[spec.name][-1][source] - given.shift if firing else 0
            indices = range(max(before, 0), max(end, 0))
        else:
            start = firing * given.count - given.shift
            indices = range(start, start + given.count)
        return [self._row(source, index) for index in indices]


def check_walk(session: Session, program: Program, choose: Random, chunk: Callable[[], int]) -> None:
    """A session means what its program says, in chunks of sizes drawn, with rewinds, snapshots and forks between them."""
    kept = session.snapshot()
    for _ in range(8):
        ids = np.array([[choose.randrange(VOCABULARY) for _ in range(chunk())]])
        if session.position + ids.shape[1] > CAPACITY:
            break
        logits = session.advance(ids)[0]
        expected = meaning(program, session.tokens[0])
        np.testing.assert_allclose(logits, expected[-ids.shape[1] :], atol=1e-4)
        what = choose.choice(["rewind", "fork", "keep", "restore", "none"])
        if what == "rewind":
            session.rewind(choose.randint(0, session.position))
        elif what == "fork":
            session = session.fork()
        elif what == "keep":
            kept = session.snapshot()
        elif what == "restore":
            session.restore(Snapshot.from_bytes(kept.to_bytes()))


def meaning(program: Program, ids: Array) -> Array:
    """Logits `[L, V]` of ids `[L]`."""
    of = Meaning(program)
    return np.stack([of.append(token) for token in ids.tolist()])
