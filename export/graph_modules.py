"""The models' modules as they appear in a stage graph: the same weights, emitted as `foveal` ops."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..models.attention import Attention, Rope
from ..models.cache import Cache
from ..models.lengthen import Lengthen
from ..models.rotary import rotate
from ..models.shorten import Shorten
from ..models.stages import StageModule, time_major
from .functions import DOMAIN

Attributes = dict[str, int | float | str | bool | Sequence[int] | Sequence[float] | Sequence[str] | Sequence[bool]]


@dataclass
class GraphCache:
    """One layer's caches as graph inputs; `present` are the graph outputs once the layer has run."""

    past: tuple[Tensor, Tensor]
    position: Tensor
    mask: Tensor
    present: tuple[Tensor, ...] = ()

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Never called: `CachedAttention` does it inside the graph."""
        raise TypeError("a GraphCache is extended by CachedAttentionOp")


@dataclass
class GraphState:
    """State of a stack inside a graph: positions are a tensor `[B]`, so are the caches."""

    caches: Sequence[GraphCache]
    position: Tensor | None

    def positions(self, rows: int) -> Tensor:
        """Indices `[B, rows]`; all zeros, and unread, in a stage that uses no position."""
        offsets = torch.arange(rows)[None]
        return offsets if self.position is None else self.position[:, None] + offsets

    def advance(self, rows: int) -> None:
        """The host counts."""


class CachedAttentionOp(nn.Module):
    """`Attention.step` as one `foveal::CachedAttention` node between its two projections."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.qkv, self.out = attention.qkv, attention.out
        self.heads, self.head_dim = attention.heads, attention.head_dim

    def step(self, x: Tensor, cache: Cache, rope: Rope = None) -> Tensor:
        """`[B, L, D]` -> `[B, L, D]`; leaves the new caches in `cache.present`."""
        if not isinstance(cache, GraphCache):
            raise TypeError(f"expected a GraphCache while exporting, got {type(cache).__name__}")
        qkv = self.qkv(x) if rope is None else self._rotated(self.qkv(x), rope)
        found, *present = torch.onnx.ops.symbolic_multi_out(
            f"{DOMAIN}::CachedAttention",
            (qkv, *cache.past, cache.position, cache.mask),
            {"heads": self.heads, "scale": self.head_dim**-0.5},
            dtypes=[x.dtype] * 3,
            shapes=[(*x.shape[:2], self.heads * self.head_dim), cache.past[0].shape, cache.past[1].shape],
            version=1,
        )
        cache.present = tuple(present)
        y: Tensor = self.out(found)
        return y

    def _rotated(self, qkv: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        batch, rows, _ = qkv.shape
        query_key, value = qkv.tensor_split([2 * self.heads * self.head_dim], dim=-1)
        heads = query_key.view(batch, rows, 2 * self.heads, self.head_dim).transpose(1, 2)  # [B, 2 H, L, D]
        rotated = rotate(heads, rope).transpose(1, 2).flatten(2)
        return torch.cat((rotated, value), dim=-1)


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


def for_graph(module: StageModule) -> StageModule:
    """A copy of a stage that shares its weights and emits `foveal` ops."""
    shared = {id(parameter): parameter for parameter in (*module.parameters(), *module.buffers())}
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

    def __init__(self, module: StageModule, row_inputs: Sequence[str], uses_position: bool, has_logits: bool) -> None:
        super().__init__()
        self.module = for_graph(module)
        self.row_inputs, self.uses_position, self.has_logits = list(row_inputs), uses_position, has_logits

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Row inputs, position, logit rows, caches -> rows or logits, new caches."""
        given = list(tensors)
        inputs = [given.pop(0) for _ in self.row_inputs]
        inputs = [x if name == "input_ids" else time_major(x) for name, x in zip(self.row_inputs, inputs, strict=True)]
        position = given.pop(0) if self.uses_position else None
        logit_rows = given.pop(0) if self.has_logits else None
        state = self._state(position, given, inputs[0])
        y = self.module(inputs, state, logit_rows)
        present = [tensor for cache in state.caches for tensor in cache.present]
        return (y if self.has_logits else time_major(y), *present)

    def _state(self, position: Tensor | None, caches: list[Tensor], first: Tensor) -> GraphState:
        state = GraphState([], position)
        if not caches or position is None:
            return state
        rows = first.shape[1] // self._rows_per_firing()
        columns = torch.arange(caches[0].shape[2])
        mask = columns[None, None, None, :] <= state.positions(rows)[:, None, :, None]  # [B, 1, L, S]
        pairs = zip(caches[::2], caches[1::2], strict=True)
        state.caches = [GraphCache((key, value), position, mask) for key, value in pairs]
        return state

    def _rows_per_firing(self) -> int:
        entry = self.module.entry
        return entry.shorten.factor if isinstance(entry, ShortenOp) else 1
