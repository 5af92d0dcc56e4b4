"""Attention: over the caches, whose rotation of queries and keys becomes part of the step; and within the group of a firing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from ....calibration.products import head_counts
from ....contract.program import Attend, GroupAttend
from .lowering import Lowering
from .tensors import FIRST, PLAIN, SECOND, Tensor, Unsupported
from .values import Scaled, Scores


def _cached_attention(lowering: Lowering, node: ir.Node) -> Tensor:
    qkv, (heads, kv_heads) = lowering.tensor(node, 0), head_counts(node)
    names = [cache.name for cache in lowering.caches]
    key, value = (names.index(lowering.value(node, index)) for index in (1, 2))
    width = qkv.elements.size // (heads + 2 * kv_heads)
    has_scales = lowering.caches[key].dtype == "int8"
    scales = [float(lowering.constant(node, index).reshape(-1)[0]) for index in (7, 8)] if has_scales else [0.0, 0.0]
    angles, neighbours, given = _unturned(lowering, qkv, heads + kv_heads, width)
    step = Attend(
        qkv=given,
        out=lowering.draft.like(given, heads * width),
        key=key,
        value=value,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=width,
        scale=node.attributes["scale"].as_float(),
        window=node.attributes.get_int("window", 0),
        key_scale=scales[0],
        value_scale=scales[1],
        angles=angles,
        neighbours=neighbours,
    )
    return lowering.made(step, (*qkv.dims[:2], heads * width))


def _unturned(lowering: Lowering, qkv: Tensor, turned_heads: int, width: int) -> tuple[int | None, bool, int]:
    """The angles by which queries and keys are turned, whether neighbours are turned together, and rows that are not yet.

    Raises:
        Unsupported: they are turned otherwise than a step does it.
    """
    if qkv.is_plain:
        return None, False, lowering.rows(qkv)
    by_head = qkv.elements.reshape(-1, width)
    turned, kept = by_head[:turned_heads], by_head[turned_heads:]
    dims = int((turned[0]["kind"] != PLAIN).sum())
    half = dims // 2
    plain = np.arange(by_head.size).reshape(by_head.shape)
    for neighbours in (False, True):
        first = plain[:turned_heads, 0:dims:2] if neighbours else plain[:turned_heads, :half]
        second = plain[:turned_heads, 1:dims:2] if neighbours else plain[:turned_heads, half:dims]
        expected = by_head[:turned_heads].copy()
        expected["kind"][:, :half], expected["kind"][:, half:dims], expected["kind"][:, dims:] = FIRST, SECOND, PLAIN
        expected["column"][:, :half], expected["partner"][:, :half] = first, second
        expected["column"][:, half:dims], expected["partner"][:, half:dims] = second, first
        expected["column"][:, dims:] = plain[:turned_heads, dims:]
        expected["angle"][:, :half] = expected["angle"][:, half:dims] = np.arange(half)
        same = all(np.array_equal(expected[name][:, :dims], turned[name][:, :dims]) for name in expected.dtype.names or ())
        rest = np.array_equal(turned["column"][:, dims:], plain[:turned_heads, dims:])
        if same and rest and np.array_equal(kept["column"], plain[turned_heads:]) and (kept["kind"] == PLAIN).all():
            if by_head.size != lowering.draft.buffers[qkv.buffer].width or qkv.angles is None:
                break
            return lowering.angles(qkv.angles, dims), neighbours, qkv.buffer
    raise Unsupported("queries and keys that are turned in another way")


def scores_of(query: Tensor | Scaled, key: Tensor) -> Scores:
    """Queries `[..., H, 1, D]` times keys `[..., H, D, n]`."""
    scale, rows = (query.factor, query.x) if isinstance(query, Scaled) else (1.0, query)
    if rows.elements.ndim != 3 or key.elements.ndim != 3 or rows.elements.shape[1] != 1:
        raise Unsupported("a product of two results that are no heads")
    return Scores(rows, key, scale)


def found_in_group(lowering: Lowering, scores: Scores, value: Tensor) -> Any:
    """Shares times values `[..., H, n, D]`."""
    heads, _, width = scores.query.elements.shape
    count = scores.key.elements.shape[2]
    inner = heads * width
    part = np.arange(count * 2 * inner).reshape(count, 2, heads, width)
    keys, values = part[:, 0].transpose(1, 2, 0), part[:, 1].transpose(1, 0, 2)
    is_whole = lowering.draft.buffers[scores.key.buffer].width == part.size and scores.key.buffer == value.buffer
    if not (
        scores.are_shares
        and is_whole
        and np.array_equal(scores.key.columns, keys.reshape(-1))
        and np.array_equal(value.columns, values.reshape(-1))
    ):
        raise Unsupported("attention that is not within the group of a firing")
    query = lowering.rows(scores.query)
    step = GroupAttend(
        query=query,
        key_values=value.buffer,
        out=lowering.draft.like(query),
        heads=heads,
        head_dim=width,
        count=count,
        scale=scores.scale,
    )
    return lowering.made(step, scores.query.dims)


HANDLERS: dict[str, Callable[[Lowering, ir.Node], Any]] = {"CachedAttention": _cached_attention}
