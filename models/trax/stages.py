"""How an official Hourglass splits into stages: as `models.hourglass.stages`, with caches of the resampling attention.

A coarse stage keeps keys and values of the fine rows it was given (`down`), a window of them at each firing. The last one of a
scale keeps those of its own rows for the next finer scale (`up`), whose stage borrows them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ...contract import BorrowSpec, CacheSpec, InputSpec, StageSpec
from ..architecture import Stage, count_parameters
from ..cache import State
from ..layers.relative_attention import key_value_caches, with_tables
from .attention_resampling import DOWN, UP, AttentionMerge, AttentionShorten, HandBack
from .config import TraxConfig
from .level import TraxLevel
from .relative_stack import RelativeStack


class TokenEntry(nn.Module):
    """Token ids to vectors."""

    def __init__(self, embed: nn.Embedding) -> None:
        super().__init__()
        self.embed = embed

    def forward(self, inputs: Sequence[Tensor], state: State) -> Tensor:
        """Ids `[B, L]` -> `[B, L, D]`."""
        y: Tensor = self.embed(inputs[0])
        return y


class WindowEntry(nn.Module):
    """Windows of the finer scale to coarse rows."""

    def __init__(self, shorten: AttentionShorten) -> None:
        super().__init__()
        self.shorten = shorten

    def forward(self, inputs: Sequence[Tensor], state: State) -> Tensor:
        """Rows `[B, k * L, D]` -> `[B, L, D]`."""
        y: Tensor = self.shorten(inputs[0], state)
        return y


class MergeEntry(nn.Module):
    """The fine stream and the coarse context, with the keys and values that another stage keeps."""

    def __init__(self, merge: AttentionMerge, lender: str) -> None:
        super().__init__()
        self.merge, self.lender = merge, lender

    def forward(self, inputs: Sequence[Tensor], state: State) -> Tensor:
        """Two of `[B, L, D]` -> `[B, L, D]`."""
        stream, context = inputs
        keys, values = (state.borrowed(self.lender, f"{UP}.{part}") for part in ("key", "value"))
        y: Tensor = self.merge(stream, context, state.positions(stream.shape[1]), keys, values)
        return y


class RowsExit(nn.Module):
    """Rows for the next stage of the same scale: as they are."""

    def forward(self, x: Tensor, state: State) -> Tensor:
        """`[B, L, D]`."""
        return x


class HandBackExit(nn.Module):
    """Rows for the finer scale, and what it will borrow."""

    def __init__(self, hand_back: HandBack) -> None:
        super().__init__()
        self.hand_back = hand_back

    def forward(self, x: Tensor, state: State) -> Tensor:
        """`[B, L, D]` -> `[B, k * L, D]`."""
        y: Tensor = self.hand_back(x, state)[0]
        return y


class LogitsExit(nn.Module):
    """Vectors to logits."""

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Tensor, state: State) -> Tensor:
        """`[B, N, D]` -> `[B, N, V]`."""
        y: Tensor = self.head(x)
        return y


class TraxStage(nn.Module):
    """`exit(stack(entry(inputs)))`, all of which may keep keys and values."""

    def __init__(self, entry: nn.Module, stack: RelativeStack, exit: nn.Module) -> None:
        super().__init__()
        self.entry, self.stack, self.exit = entry, stack, exit

    def forward(self, inputs: Sequence[Tensor], state: State, logit_rows: Tensor | None = None) -> Tensor:
        """As `StageModule`."""
        x = self.stack(self.entry(inputs, state), state)
        if logit_rows is not None:
            x = x.index_select(1, logit_rows)
        y: Tensor = self.exit(x, state)
        return y


@dataclass(frozen=True)
class _Place:
    """Where a level stands: the stride of its rows, how many there are in a context, and how it is entered and left."""

    stride: int
    rows: int
    inputs: tuple[InputSpec, ...]
    entry: nn.Module
    exit: nn.Module
    factor: int
    """Rows that it gives to the finer scale for each of its own."""


def split(config: TraxConfig, embed: nn.Embedding, root: TraxLevel, head: nn.Linear) -> list[Stage]:
    """Cut a model's modules into stages that share their weights."""
    tokens = (InputSpec(kind="tokens"),)
    place = _Place(1, config.context, tokens, TokenEntry(embed), LogitsExit(head), 1)
    return list(_level_stages(config, root, place))


def _level_stages(config: TraxConfig, level: TraxLevel, place: _Place) -> Iterator[Stage]:
    dim, k, stride = config.dim, level.factor, place.stride
    pre, post = f"{stride}.pre", f"{stride}.post"
    yield _stage(config, pre, place, place.inputs, TraxStage(place.entry, level.pre, RowsExit()))
    window = (InputSpec(kind="window", source=pre, count=k, shift=k - 1, width=dim),)
    coarse = _Place(stride * k, -(-place.rows // k), window, WindowEntry(level.shorten), HandBackExit(level.hand_back), k)
    if isinstance(level.inner, RelativeStack):
        inside = str(coarse.stride)
        yield _stage(config, inside, coarse, window, TraxStage(coarse.entry, level.inner, coarse.exit))
    else:
        inside = f"{coarse.stride}.post"
        yield from _level_stages(config, level.inner, coarse)
    merged = (
        InputSpec(kind="stream", source=pre, width=dim),
        InputSpec(kind="context", source=inside, width=dim),
    )
    yield _stage(config, post, place, merged, TraxStage(MergeEntry(level.merge, inside), level.post, place.exit))


def _stage(config: TraxConfig, name: str, place: _Place, inputs: tuple[InputSpec, ...], module: TraxStage) -> Stage:
    layer = config.layer
    caches: tuple[CacheSpec, ...] = module.stack.caches()
    borrows: tuple[BorrowSpec, ...] = ()
    if isinstance(module.entry, WindowEntry):
        caches += key_value_caches(DOWN, layer, module.entry.shorten.factor)
    if isinstance(module.exit, HandBackExit):
        caches += key_value_caches(UP, layer)
    if isinstance(module.entry, MergeEntry):
        borrows = tuple(BorrowSpec(stage=module.entry.lender, cache=cache) for cache in key_value_caches(UP, layer))
    tabled = with_tables(module, place.rows)
    gives_logits = isinstance(module.exit, LogitsExit)
    spec = StageSpec(
        name=name,
        stride=place.stride,
        inputs=inputs,
        output="logits" if gives_logits else "hidden",
        output_rows=1 if isinstance(module.exit, RowsExit) else place.factor,
        width=config.vocab_size if gives_logits else config.dim,
        layers=len(module.stack.layers),
        caches=caches,
        borrows=borrows,
        parameters=count_parameters(tabled),
        uses_position=bool(caches or borrows),
    )
    return Stage(spec, tabled)
