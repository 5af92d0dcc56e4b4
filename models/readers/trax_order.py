"""The weights of google/trax's `HourglassLM`: their names and shapes, in the order of trax's files.

trax's own files hold arrays without names, in the order in which layers run; those of a layer that is shared where it runs
first. The names are foveal's, after the original's parts: `down0` and `up0` resample between the two outermost scales, `level0`
is at token rate. Kernels are `[in, out]`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from ...errors import CheckpointError
from ...hierarchy import Hierarchy
from ..trax.config import TraxConfig

Named = tuple[str, tuple[int, ...]]


def weights_in_order(config: TraxConfig) -> list[Named]:
    """Names and shapes of all arrays, in the order of trax's files."""
    return list(_Order(config).model())


class _Order:
    """Walks through the layers as trax runs them."""

    def __init__(self, config: TraxConfig) -> None:
        self.config, self.dim, self._has_biases = config, config.dim, False

    def model(self) -> Iterator[Named]:
        yield "embedding.weight", (self.config.vocab_size, self.dim)
        yield from self._level(self.config.levels, 0)
        yield from self._dense("to_logits", self.dim, self.config.vocab_size)

    def _level(self, hierarchy: Hierarchy, level: int) -> Iterator[Named]:
        k, inside = hierarchy.factor, hierarchy.inner
        yield from self._stack(f"level{level}.pre", hierarchy.levels[0].layers)
        yield from self._norm(f"down{level}.in_norm")
        if self.config.shortening == "linear":
            yield from self._dense(f"down{level}.pool", k * self.dim, self.dim)
        yield from self._norm(f"down{level}.pool_norm")
        yield from self._attention(f"down{level}.attn")
        yield from self._feed_forward(f"down{level}")
        if inside.is_vanilla:
            yield from self._stack(f"level{level + 1}.mid", inside.depth)
        else:
            yield from self._level(inside, level + 1)
        yield from self._norm(f"up{level}.in_norm")
        if self.config.upsampling == "linear":
            yield from self._dense(f"up{level}.expand", self.dim, k * self.dim)
        yield from self._norm(f"up{level}.expand_norm")
        yield from self._attention(f"up{level}.attn")
        yield from self._feed_forward(f"up{level}")
        yield from self._norm(f"up{level}.out_norm")
        yield from self._stack(f"level{level}.post", hierarchy.levels[-1].layers)

    def _stack(self, name: str, layers: int) -> Iterator[Named]:
        for layer in range(layers):
            yield from self._norm(f"{name}.{layer}.attn_norm")
            yield from self._attention(f"{name}.{layer}.attn")
            yield from self._feed_forward(f"{name}.{layer}")
        yield from self._norm(f"{name}.norm")

    def _attention(self, name: str) -> Iterator[Named]:
        for part in ("pos", "q", "k", "v"):
            yield from self._dense(f"{name}.{part}", self.dim, self.dim)
        if not self._has_biases:
            self._has_biases = True
            shape = (1, self.config.heads, 1, self.dim // self.config.heads)
            yield from (("context_bias", shape), ("location_bias", shape))
        yield from self._dense(f"{name}.out", self.dim, self.dim)

    def _feed_forward(self, name: str) -> Iterator[Named]:
        yield from self._norm(f"{name}.ff_norm")
        yield from self._dense(f"{name}.ff_in", self.dim, self.config.ff_dim)
        yield from self._dense(f"{name}.ff_out", self.config.ff_dim, self.dim)

    def _norm(self, name: str) -> Iterator[Named]:
        yield from ((f"{name}.scale", (self.dim,)), (f"{name}.bias", (self.dim,)))

    def _dense(self, name: str, rows: int, columns: int) -> Iterator[Named]:
        yield from ((f"{name}.kernel", (rows, columns)), (f"{name}.bias", (columns,)))


def name_in_order(arrays: Sequence[Tensor], config: TraxConfig, where: Path) -> dict[str, Tensor]:
    """Give trax's nameless arrays their names.

    Raises:
        CheckpointError: more or fewer of them than the model has, or one of another shape; the first such is named.
    """
    expected = weights_in_order(config)
    for place, (array, (name, shape)) in enumerate(zip(arrays, expected, strict=False)):
        if tuple(array.shape) != shape:
            raise CheckpointError(
                f"array {place} of {len(arrays)} in {where} has shape {tuple(array.shape)}, expected {shape} for {name}; "
                "the kwargs in config.json must be those the model was trained with"
            )
    if len(arrays) != len(expected):
        raise CheckpointError(
            f"{where} holds {len(arrays)} arrays, expected the {len(expected)} of a model of these kwargs; "
            "they must be those the model was trained with"
        )
    return {name: array for array, (name, _) in zip(arrays, expected, strict=True)}
