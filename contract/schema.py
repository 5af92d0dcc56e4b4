"""What a stage says of itself in a manifest: its inputs, its caches, and when it fires.

docs/adr/0012 says why what stages may say of themselves is enough for every family.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ..errors import ConfigError
from .clock import ClockSpec

Fires = Literal["open", "close", "ahead"]
Kind = Literal["tokens", "window", "stream", "context"]
Reads = Literal["stride", "newest", "span"]
TENSOR_NAMES: dict[Kind, str] = {"tokens": "input_ids", "window": "window", "stream": "stream", "context": "context"}
BEGINNING = -1
"""The position of no token, before the first, which causes the first firing of stages that fire ahead."""


class InputSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where one input comes from, and which rows of its source a firing reads.

    - `stride`: firing i reads rows `[i * count - shift, i * count - shift + count)`. A `window` of k rows shifted by k-1 ends
      with the newest row: the causal shift of Hourglass.
    - `newest`: the `count` newest rows but `shift` that there are once the token that causes the firing is seen, those among
      them that this very token made.
    - `span`: all rows since the firing before, those that the token made included, less the newest `shift`: as many as come.

    The last two are for stages whose firings the data decides, and for what reads those. Rows before the first are zeros.
    `tokens` have no source; those before the first are 0. `width` is that of the source's rows.
    """

    kind: Kind
    source: str | None = None
    count: int = 1
    shift: int = 0
    width: int = 0
    reads: Reads = "stride"

    @property
    def reach(self) -> int:
        """Rows before the first that the first firings may read."""
        return {"stride": self.shift, "newest": self.count + self.shift, "span": 0}[self.reads]


class CacheSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a stage remembers from firing to firing: rows `[H, Dh]`, of which each firing writes `rows`.

    A layer's keys and values are two caches, `0.key` and `0.value`. A cache that `keeps` so many rows has no more: the graph
    writes over old ones, at places worked out from the position. A `recurrent` one is a state, `rows` in all, that each call
    replaces as a whole: what it was before is gone, so a rewind takes a copy of it and runs the firings since again.
    """

    name: str
    heads: int
    width: int
    rows: int = 1
    keeps: int | None = None
    recurrent: bool = False

    def length(self, firings: int) -> int:
        """Rows after so many firings, at least 1."""
        if self.recurrent:
            return self.rows
        return max(firings * self.rows, 1) if self.keeps is None else self.keeps


class BorrowSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A cache of another stage, of which the graph reads all rows: it hides by itself those that are not there yet."""

    stage: str
    cache: CacheSpec

    @property
    def name(self) -> str:
        """The tensor's name in the graph."""
        return f"borrowed.{self.stage}.{self.cache.name}"


def layer_caches(layers: int, heads: int, width: int, keeps: int | None = None) -> tuple[CacheSpec, ...]:
    """Keys and values of a stack of attention layers; `heads` of them, which may be fewer than those of the queries."""
    names = (f"{layer}.{part}" for layer in range(layers) for part in ("key", "value"))
    return tuple(CacheSpec(name=name, heads=heads, width=width, keeps=keeps) for name in names)


class StageSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One stage: a run of layers at one scale, one graph, one engine.

    A stage that fires `open` runs for token t when it opens a group, `t % stride == 0`; one that fires `close` when it
    completes one. One that fires `ahead` runs for group i when token `i * stride - 1` is known, and for the first before there
    is any token. Where the data decides, the stage has a `clock`, and stride 1: the shortest there can be. Each firing appends
    `output_rows` rows to its output, of width `width` (of logits: the vocabulary).

    Attributes:
        caches: what it remembers, and `borrows`: whose caches it reads.
        layers: of the model, for people.
        uses_position: whether the graph has that input: one with neither caches nor positions has no use for it.
        resets: the stage remembers nothing across multiples of so many firings. No call of its engine crosses one.
        page: no call of any engine crosses a multiple of so many tokens, because caches are written over at those.
        rewinds: the most tokens that can be taken back, whose rows no cache has written over; None: all.
        cache_dtype: the portable graph's; an engine may keep its caches otherwise and says so in its sidecar.
    """

    name: str
    stride: int
    fires: Fires = "open"
    inputs: tuple[InputSpec, ...]
    output: Literal["hidden", "logits"]
    output_rows: int = 1
    width: int
    layers: int
    caches: tuple[CacheSpec, ...] = ()
    borrows: tuple[BorrowSpec, ...] = ()
    parameters: int
    uses_position: bool = True
    resets: int | None = None
    page: int | None = None
    rewinds: int | None = None
    cache_dtype: Literal["float32", "float16"] = "float32"
    clock: ClockSpec | None = None

    @property
    def attentions(self) -> list[str]:
        """Layers whose keys and values are caches, `"0"` for `0.key` and `0.value`, in the order they are declared."""
        names = [cache.name for cache in self.caches]
        keys = (name.partition(".") for name in names)
        return [layer for layer, _, part in keys if part == "key" and layer.isdigit() and f"{layer}.value" in names]

    @property
    def is_recurrent(self) -> bool:
        """Whether it has a state that each firing replaces."""
        return any(cache.recurrent for cache in self.caches)

    @property
    def reads_spans(self) -> bool:
        """Whether it reads so many rows as come."""
        return any(given.reads == "span" for given in self.inputs)

    def firings(self, start: int, tokens: int) -> range:
        """Indices of the firings caused by tokens `[start, start + tokens)`; `start` may be the beginning."""
        self._require_stride()
        begin, stride = start - self.delay, self.stride
        first, last = -(-begin // stride), -(-(begin + tokens) // stride)
        return range(first, last) if first >= 0 else range(max(last, 0))

    def fired_by(self, firing: int) -> int:
        """The token that causes a firing; the beginning, where there is none yet."""
        self._require_stride()
        return firing * self.stride + self.delay

    @property
    def tokens_per_firing(self) -> float:
        """After how many tokens it fires, on average; where the data decides, as its clock expects."""
        return self.stride if self.clock is None else self.clock.tokens_per_firing

    def place_of(self, firing: int) -> str:
        """A firing, for people: by the token that causes it where that is arithmetic."""
        return f"token {self.fired_by(firing)}" if self.clock is None else f"firing {firing}"

    @property
    def delay(self) -> int:
        """Tokens from the one that opens a group to the one that causes its firing."""
        if self.fires == "open":
            return 0
        return BEGINNING if self.fires == "ahead" else self.stride - 1

    def firings_within(self, tokens: int) -> int:
        """How often the first so many tokens fire it."""
        return len(self.firings(BEGINNING, tokens - BEGINNING))

    def most_firings(self, tokens: int) -> int:
        """The most firings that so many tokens in a row can cause, at whatever phase they begin."""
        return -(-tokens // self.stride)

    def capacity_firings(self, capacity_tokens: int) -> int:
        """Firings that there must be room for, at least 1; where the data decides, each token may fire it."""
        if self.clock is not None:
            return capacity_tokens + self.begins_ahead
        return max(self.firings_within(capacity_tokens), 1)

    @property
    def begins_ahead(self) -> bool:
        """Whether it fires before there is any token."""
        return self.fires == "ahead"

    def _require_stride(self) -> None:
        """Only a clock of a sequence knows the firings that the data decides."""
        if self.clock is not None:
            raise ConfigError(f'when stage "{self.name}" fires is decided by the data; ask a session that has seen the tokens')

    def names(self) -> list[str]:
        """Names of its row inputs in the graph, in order: the kind, and the source too where there are several of a kind."""
        kinds = [given.kind for given in self.inputs]
        return [TENSOR_NAMES[given.kind] + (f".{given.source}" if kinds.count(given.kind) > 1 else "") for given in self.inputs]


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How large the tensors of a resident engine may get: sequences, tokens of all, and tokens of one call."""

    batch: int = 1
    capacity: int
    prefill: int
