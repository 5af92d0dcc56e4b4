"""The models' modules as they appear in a stage graph: the same weights, emitted as `foveal` ops."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...contract import StageSpec
from ...models.architecture import Stage, time_major
from ...models.cache import Cache
from ...models.layers.attention import Attention, Rope
from ...models.layers.lengthen import Lengthen
from ...models.layers.rotary import halved, rotate
from ...models.layers.shorten import Shorten
from ...models.spans import read_inputs
from .functions import DOMAIN

Attributes = dict[str, int | float | str | bool | Sequence[int] | Sequence[float] | Sequence[str] | Sequence[bool]]


class GraphMask:
    """Which rows of the caches the rows of a call may look at: one mask for all layers with the same window, made once."""

    def __init__(self, state: GraphState, capacity: int) -> None:
        self._state, self._capacity = state, capacity
        self._masks: dict[int | None, Tensor] = {}

    def of(self, rows: int, window: int | None) -> Tensor:
        """bool `[B, 1, rows, S]`; a stage may run more rows than it has firings, but as many in every layer."""
        if window not in self._masks:
            columns = torch.arange(self._capacity)[None, None, None, :]
            positions = self._state.positions(rows)[:, None, :, None]
            mask = columns <= positions
            self._masks[window] = mask if window is None else mask & (columns > positions - window)
        return self._masks[window]


@dataclass
class GraphCache:
    """One layer's caches as graph inputs; `present` are the graph outputs once the layer has run."""

    past: tuple[Tensor, Tensor]
    position: Tensor
    mask: GraphMask
    present: tuple[Tensor, ...] = ()

    def extend(self, key: Tensor, value: Tensor, window: int | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Never called: `CachedAttention` does it inside the graph."""
        raise TypeError("a GraphCache is extended by CachedAttentionOp")


class GraphState:
    """State of a stage inside a graph, as `State`: its caches and its position are tensors.

    Args:
        spec: what the stage declares.
        position: index `[B]` of the first of these firings; None: nothing reads it.
        past: the stage's caches, by name; `present` has those that were written.
        lent: caches of other stages, by `BorrowSpec.name`.
    """

    def __init__(self, spec: StageSpec, position: Tensor | None, past: dict[str, Tensor], lent: dict[str, Tensor]) -> None:
        self._past, self._lent, self.present = past, lent, {}  # type: dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]
        self._position = position if position is None or spec.resets is None else position % spec.resets
        self._attentions = spec.attentions
        self.caches = list(self._layers())

    def _layers(self) -> Iterator[GraphCache]:
        """Keys and values of the attention layers, which share masks."""
        if not self._attentions or self._position is None:
            return
        mask = GraphMask(self, self._past[f"{self._attentions[0]}.key"].shape[2])
        for layer in self._attentions:
            yield GraphCache((self._past[f"{layer}.key"], self._past[f"{layer}.value"]), self._position, mask)

    def positions(self, rows: int) -> Tensor:
        """As `State.positions`; all zeros, and unread, in a stage that uses no position."""
        offsets = torch.arange(rows)[None]
        return offsets if self._position is None else self._position[:, None] + offsets

    def advance(self, rows: int) -> None:
        """As `State.advance`: the host counts."""

    def read(self, name: str) -> Tensor:
        """As `State.read`."""
        return self._past[name]

    def write(self, name: str, rows: Tensor, first: Tensor) -> Tensor:
        """As `State.write`, as one `foveal::WriteRows` node."""
        if name in self.present:
            raise ValueError(f'cache "{name}" is written twice in one call of the stage; write all its rows at once')
        past = self._past[name]
        start = first.expand(past.shape[0])
        written: Tensor = torch.onnx.ops.symbolic(
            f"{DOMAIN}::WriteRows", (past, rows, start), {}, dtype=past.dtype, shape=past.shape, version=1
        )
        self.present[name] = written
        return written

    def replace(self, name: str, state: Tensor) -> None:
        """As `State.replace`."""
        if name in self.present:
            raise ValueError(f'state "{name}" is replaced twice in one call of the stage; replace it once')
        self.present[name] = state

    def borrowed(self, stage: str, name: str) -> Tensor:
        """As `State.borrowed`."""
        return self._lent[f"borrowed.{stage}.{name}"]

    def all_present(self, spec: StageSpec) -> list[Tensor]:
        """The caches after these firings, in the stage's order.

        Raises:
            ValueError: the stage declares a cache that it does not write.
        """
        for layer, cache in zip(self._attentions, self.caches, strict=False):  # no caches where nothing has a position
            if cache.present:
                self.present[f"{layer}.key"], self.present[f"{layer}.value"] = cache.present
        missing = [cache.name for cache in spec.caches if cache.name not in self.present]
        if missing:
            raise ValueError(f"the stage declares caches that it does not write: {', '.join(missing)}")
        return [self.present[cache.name] for cache in spec.caches]


class CachedAttentionOp(nn.Module):
    """`Attention.step` as one `foveal::CachedAttention` node between its two projections."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = attention.heads, attention.kv_heads, attention.head_dim
        self.window = attention.window
        self.qkv = _HalvedProjection(attention) if attention.paired_dims else attention.qkv
        self.out = attention.out

    def step(self, x: Tensor, cache: Cache, rope: Rope = None) -> Tensor:
        """`[B, L, D]` -> `[B, L, D]`; leaves the new caches in `cache.present`."""
        if not isinstance(cache, GraphCache):
            raise TypeError(f"expected a GraphCache while exporting, got {type(cache).__name__}")
        qkv = self.qkv(x) if rope is None else self._rotated(self.qkv(x), rope)
        found, *present = torch.onnx.ops.symbolic_multi_out(
            f"{DOMAIN}::CachedAttention",
            (qkv, *cache.past, cache.position, cache.mask.of(x.shape[1], self.window)),
            self._attributes(),
            dtypes=[x.dtype] * 3,
            shapes=[(*x.shape[:2], self.heads * self.head_dim), cache.past[0].shape, cache.past[1].shape],
            version=1,
        )
        cache.present = tuple(present)
        y: Tensor = self.out(found)
        return y

    def _attributes(self) -> Attributes:
        """What nodes of older bundles have, and what differs from it."""
        attributes: Attributes = {"heads": self.heads, "scale": self.head_dim**-0.5}
        if self.kv_heads != self.heads:
            attributes["kv_heads"] = self.kv_heads
        if self.window is not None:
            attributes["window"] = self.window
        return attributes

    def _rotated(self, qkv: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        batch, rows, _ = qkv.shape
        turned, kept = self.heads + self.kv_heads, self.kv_heads
        query_key, value = torch.split(qkv, [turned * self.head_dim, kept * self.head_dim], dim=-1)
        heads = query_key.view(batch, rows, turned, self.head_dim).transpose(1, 2)  # [B, H + Hkv, L, D]
        rotated = rotate(heads, rope).transpose(1, 2).reshape(batch, rows, turned * self.head_dim)
        return torch.cat((rotated, value), dim=-1)


class _HalvedProjection(nn.Module):
    """`Attention.qkv` with the columns of queries and keys in the order of `halved`, which the graph then need not make.

    Its tensors have names of their own, as they are none of the model's.
    """

    halved_weight: Tensor
    halved_bias: Tensor | None

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        width, turned = attention.head_dim, attention.heads + attention.kv_heads
        heads = torch.arange(attention.qkv.out_features).view(-1, width)  # [H + 2 Hkv, D]
        order = torch.cat((halved(heads[:turned], attention.paired_dims), heads[turned:])).flatten()
        self.register_buffer("halved_weight", attention.qkv.weight.detach()[order])
        self.register_buffer("halved_bias", None if attention.qkv.bias is None else attention.qkv.bias.detach()[order])

    def forward(self, x: Tensor) -> Tensor:
        """`[B, L, D]` -> `[B, L, (H + 2 Hkv) D]`."""
        return F.linear(x, self.halved_weight, self.halved_bias)


class ShortenOp(nn.Module):
    """`Shorten` as one `foveal::Shorten` node; its weights are the node's inputs."""

    def __init__(self, shorten: Shorten) -> None:
        super().__init__()
        self.shorten = shorten

    def forward(self, x: Tensor) -> Tensor:
        """`[B, n * k, D]` -> `[B, n, D]`."""
        module = self.shorten
        weights: list[Tensor | None] = []
        attributes: Attributes = {"factor": module.factor, "dim": module.dim}
        if module.pool is not None:
            weights += [module.pool.weight.t(), module.pool.bias]
        if module.attention is not None and module.feed_forward is not None:
            attention, ff = module.attention, module.feed_forward
            if not isinstance(ff.norm, nn.LayerNorm):
                raise TypeError(f"Shorten has layer norms, got {type(ff.norm).__name__}")
            attributes |= {"heads": attention.heads, "scale": attention.head_dim**-0.5, "epsilon": attention.norm.eps}
            weights += [attention.norm.weight, attention.norm.bias, attention.query.weight.t(), attention.key_value.weight.t()]
            weights += [attention.out.weight.t(), attention.out.bias, ff.norm.weight, ff.norm.bias]
            weights += [ff.up.weight.t(), ff.up.bias, ff.down.weight.t(), ff.down.bias]
        return _emit("Shorten", x, weights, attributes, (x.shape[0], x.shape[1] // module.factor, module.dim))


class LengthenOp(nn.Module):
    """`Lengthen` as one `foveal::Lengthen` node; its weights are the node's inputs."""

    def __init__(self, lengthen: Lengthen) -> None:
        super().__init__()
        self.lengthen = lengthen

    def forward(self, x: Tensor) -> Tensor:
        """`[B, n, D]` -> `[B, n * k, D]`."""
        module = self.lengthen
        weights: list[Tensor | None] = []
        if module.spread is not None:
            weights += [module.spread.weight.t(), module.spread.bias]
        if module.value is not None and module.out is not None:
            weights += [module.value.weight.t(), module.out.weight.t(), module.out.bias]
        shape = (x.shape[0], x.shape[1] * module.factor, module.dim)
        attributes: Attributes = {"factor": module.factor, "dim": module.dim}
        return _emit("Lengthen", x, weights, attributes, shape)


def _emit(op: str, x: Tensor, weights: list[Tensor | None], attributes: Attributes, shape: tuple[int, ...]) -> Tensor:
    return torch.onnx.ops.symbolic(f"{DOMAIN}::{op}", (x, *weights), attributes, dtype=x.dtype, shape=shape, version=1)


def for_graph(module: nn.Module) -> nn.Module:
    """A copy of a stage that shares its weights and emits `foveal` ops."""
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    copied = copy.deepcopy(module, shared)
    for parent in list(copied.modules()):
        for name, child in list(parent.named_children()):
            setattr(parent, name, _as_op(child))
    return copied


def _as_op(module: nn.Module) -> nn.Module:
    if isinstance(module, Attention):
        return CachedAttentionOp(module)
    if isinstance(module, Shorten):
        return ShortenOp(module)
    return LengthenOp(module) if isinstance(module, Lengthen) else module


class StageGraph(nn.Module):
    """A stage with the inputs and outputs of its contract, in that order."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.module, self.spec = for_graph(stage.module), stage.spec

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Row inputs, position, logit rows, borrowed caches, own caches -> rows or logits, own caches."""
        spec, given = self.spec, iter(tensors)
        inputs = read_inputs(spec, given)
        position = next(given) if spec.uses_position else None
        logit_rows = next(given) if spec.output == "logits" else None
        lent = {borrowed.name: next(given) for borrowed in spec.borrows}
        past = {cache.name: next(given) for cache in spec.caches}
        state = GraphState(spec, position, past, lent)
        y = self.module(inputs, state, logit_rows)
        return (y if logit_rows is not None else time_major(y), *state.all_present(spec))
