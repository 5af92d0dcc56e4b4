"""The stages of a retina model: the layers, and what compacts the keys and values that they have written.

The layers write theirs into rings of `FINE_PAGES` pages. `compact` fires with the first token of a page, before the layers, and
pools the page before it, all of which is there; so within a call nothing is read that the call has yet to write, though each
stage borrows the other's caches. What is pooled is seen a page later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ...contract import BorrowSpec, CacheSpec, InputSpec, StageSpec, layer_caches
from ..architecture import Stage, count_parameters
from ..cache import State
from ..config import LayerConfig
from ..layers.embed import Embed
from ..layers.head import Head
from .attention import RetinaBlock, Rows, pool
from .compaction import FINE_PAGES, Compaction, Periphery

COMPACT, LAYERS = "compact", "1"


class Compact(nn.Module):
    """Pools one page of every layer, at every pooling. It has no weights, and nobody reads its rows: the number of the page."""

    def __init__(self, compaction: Compaction, layers: int) -> None:
        super().__init__()
        self.compaction, self.layers = compaction, layers

    def forward(self, inputs: Sequence[Tensor], state: State, logit_rows: Tensor | None = None) -> Tensor:
        """As `StageModule`, with one firing per call: no call crosses a page."""
        pages = state.positions(inputs[0].shape[1])  # [B or 1, 1]; the firing of page i pools page i - 1
        for name in _names(self.layers):
            page = self._page(state.borrowed(LAYERS, name), pages[:, 0] + FINE_PAGES - 1)
            for past in self.compaction.peripheries:
                place = pages[:, 0] if past.pages is None else (pages[:, 0] + past.pages - 1) % past.pages
                state.write(_pooled(name, past), pool(page, past.pooling), place * past.rows)
        return (pages - 1 + 0 * inputs[0])[:, :, None].float()

    def _page(self, ring: Tensor, page: Tensor) -> Tensor:
        """The rows `[B, H, page, Dh]` of a page in a ring."""
        batch, heads, _, width = ring.shape
        pages = ring.view(batch, heads, FINE_PAGES, self.compaction.page, width)
        index = (page % FINE_PAGES)[:, None, None, None, None].expand(batch, heads, 1, self.compaction.page, width)
        return pages.gather(2, index)[:, :, 0]


class Layers(nn.Module):
    """Embedding, layers and head, on fine rows of their own and pooled rows of `compact`."""

    def __init__(self, embed: Embed, layers: Sequence[RetinaBlock], head: Head, compaction: Compaction) -> None:
        super().__init__()
        self.embed, self.layers, self.head = embed, nn.ModuleList(layers), head
        self.compaction = compaction

    def forward(self, inputs: Sequence[Tensor], state: State, logit_rows: Tensor | None = None) -> Tensor:
        """As `StageModule`, within one page."""
        positions = state.positions(inputs[0].shape[1])
        x = self.embed(inputs[0], positions)
        masks: list[Tensor] | None = None
        for number, layer in enumerate(self._blocks()):
            query, key, value = layer.attention.project(layer.norm(x))
            first = positions[:, 0] % (FINE_PAGES * self.compaction.page)
            keys = self._rows(state, f"{number}.key", key, first)
            values = self._rows(state, f"{number}.value", value, first)
            masks = masks or list(self._masks(positions, keys))
            past = [Rows(*rows) for rows in zip(keys, values, masks, strict=True)]
            x = layer.feed_forward(x + layer.attention.step(query, past))
        if logit_rows is not None:
            x = x.index_select(1, logit_rows)
        y: Tensor = self.head(x)
        return y

    def _blocks(self) -> list[RetinaBlock]:
        return [layer for layer in self.layers if isinstance(layer, RetinaBlock)]

    def _rows(self, state: State, name: str, rows: Tensor, first: Tensor) -> list[Tensor]:
        """All keys or values of a layer: fine ones, the new rows among them, and those of each pooling."""
        pooled = (state.borrowed(COMPACT, _pooled(name, past)) for past in self.compaction.peripheries)
        return [state.write(name, rows, first), *pooled]

    def _masks(self, positions: Tensor, rows: Sequence[Tensor]) -> Iterator[Tensor]:
        """Who sees them, each `[B or 1, 1, L, n]`; what a ring holds of a place is known by arithmetic."""
        size = self.compaction.page
        token, page = positions[:, None, :, None], positions[:, None, :, None] // size
        slots = torch.arange(rows[0].shape[2])
        here = (slots // size == page % FINE_PAGES) & (slots % size <= token % size)
        before = (slots // size == (page + FINE_PAGES - 1) % FINE_PAGES) & (page > 0)
        yield here | before
        for past, pooled in zip(self.compaction.peripheries, rows[1:], strict=True):
            slots = torch.arange(pooled.shape[2]) // past.rows
            ages = page - slots if past.pages is None else (page + past.pages - 1 - slots) % past.pages
            yield past.sees(ages) & (ages < page)  # there is no page before the first


def _names(layers: int) -> Iterator[str]:
    return (f"{layer}.{part}" for layer in range(layers) for part in ("key", "value"))


def _pooled(name: str, past: Periphery) -> str:
    """Of a layer's keys or values at a pooling: `0.key.4`."""
    return f"{name}.{past.pooling}"


def retina_stages(
    embed: Embed, layers: Sequence[RetinaBlock], head: Head, config: LayerConfig, compaction: Compaction
) -> list[Stage]:
    """`compact` and `1`, which share the weights given."""
    fine = layer_caches(len(layers), config.heads, config.head_dim, FINE_PAGES * compaction.page)
    pooled = tuple(_pooled_cache(config, name, past) for name in _names(len(layers)) for past in compaction.peripheries)
    tokens = (InputSpec(kind="tokens"),)
    compact = StageSpec(
        name=COMPACT,
        stride=compaction.page,
        inputs=tokens,
        output="hidden",
        width=1,
        layers=0,
        caches=pooled,
        borrows=tuple(BorrowSpec(stage=LAYERS, cache=cache) for cache in fine),
        parameters=0,
        page=compaction.page,
        rewinds=compaction.rewinds,
    )
    module = Layers(embed, layers, head, compaction)
    rest = StageSpec(
        name=LAYERS,
        stride=1,
        inputs=tokens,
        output="logits",
        width=head.logits.out_features,
        layers=len(layers),
        caches=fine,
        borrows=tuple(BorrowSpec(stage=COMPACT, cache=cache) for cache in pooled),
        parameters=count_parameters(module),
        page=compaction.page,
        rewinds=compaction.rewinds,
    )
    return [Stage(compact, Compact(compaction, len(layers))), Stage(rest, module)]


def _pooled_cache(config: LayerConfig, name: str, past: Periphery) -> CacheSpec:
    keeps = None if past.pages is None else past.pages * past.rows
    return CacheSpec(name=_pooled(name, past), heads=config.heads, width=config.head_dim, rows=past.rows, keeps=keeps)
