"""Steps that follow one another and become one: what is added to a product, or done to its values, costs nothing more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from ....contract.program import Activate, Add, Embed, Product
from .draft import Draft, writes
from .tensors import Unsupported


@dataclass(frozen=True)
class AddBias:
    """`out = x + vector`; a step of drafts only. `bias` is its place."""

    x: int
    out: int
    bias: int


@dataclass(frozen=True)
class AddPositions:
    """`out = x + table[row]`; a step of drafts only."""

    x: int
    out: int
    table: int
    rows: int


def fuse(draft: Draft) -> None:
    """Make one step of several wherever that is possible; raises Unsupported of steps of drafts that are left."""
    for step in list(draft.steps):
        any(merge(draft, step) for merge in (_bias, _positions, _activation, _sum))
    for step in draft.steps:
        if isinstance(step, AddBias | AddPositions):
            what = "positions" if isinstance(step, AddPositions) else "a constant"
            raise Unsupported(
                f"{what} that {'are' if isinstance(step, AddPositions) else 'is'} added to no product or embedding"
            )


def _single(draft: Draft, result: int, kind: type[Any]) -> Any:
    """What makes a result that one step alone reads, if it is of a kind."""
    maker = draft.maker(result)
    is_alone = len(draft.readers(result)) == 1 and result != draft.output
    return maker if is_alone and isinstance(maker, kind) else None


def _replace(draft: Draft, old: Any, step: Any, new: Any) -> bool:
    """Put one step in the place of two."""
    draft.steps[draft.steps.index(old)] = new
    draft.steps.remove(step)
    return True


def _bias(draft: Draft, step: Any) -> bool:
    product = _single(draft, step.x, Product) if isinstance(step, AddBias) else None
    if product is None or (product.bias, product.activation, product.added) != (None, "none", None):
        return False
    return _replace(draft, product, step, msgspec.structs.replace(product, bias=step.bias, out=step.out))


def _positions(draft: Draft, step: Any) -> bool:
    embed = _single(draft, step.x, Embed) if isinstance(step, AddPositions) else None
    if embed is None or embed.positions is not None or embed.count != 1:
        return False
    new = msgspec.structs.replace(embed, positions=step.table, position_rows=step.rows, out=step.out)
    return _replace(draft, embed, step, new)


def _activation(draft: Draft, step: Any) -> bool:
    product = _single(draft, step.x, Product) if isinstance(step, Activate) else None
    if product is None or (product.activation, product.added) != ("none", None):
        return False
    return _replace(draft, product, step, msgspec.structs.replace(product, activation=step.activation, out=step.out))


def _sum(draft: Draft, step: Any) -> bool:
    """What is added to a product, if it is there before it."""
    if not isinstance(step, Add) or step.c is not None:
        return False
    for x, other in ((step.a, step.b), (step.b, step.a)):
        product = _single(draft, x, Product)
        if product is None or product.added is not None or x == other:
            continue
        if other in _made_before(draft, product):
            return _replace(draft, product, step, msgspec.structs.replace(product, added=other, out=step.out))
    return False


def _made_before(draft: Draft, step: Any) -> set[int]:
    """Results that are there when a step begins."""
    before = draft.steps[: draft.steps.index(step)]
    return draft.inputs | {result for one in before for result in writes(one)}
