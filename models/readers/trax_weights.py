"""What the weights of google/trax's `HourglassLM` are in a `TraxHourglass`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ...hierarchy import Hierarchy
from ..checkpoint import check_tensors
from ..trax.config import TraxConfig
from ..trax.model import TraxHourglass
from .trax_order import weights_in_order

Origin = tuple[str, tuple[str, ...]]
"""A tensor of ours, and the originals that it is made of."""


def model_of(tensors: dict[str, Tensor], config: TraxConfig, where: Path) -> TraxHourglass:
    """Build the model, fp32, in eval mode, from exactly these tensors; `where` is named in errors.

    Raises:
        CheckpointError: tensors are missing, left over or of another shape; every one is named.
    """
    check_tensors(tensors, dict(weights_in_order(config)), where)
    model = TraxHourglass(config)
    given = {name: value.float() for name, value in tensors.items()}
    model.load_state_dict({ours: _ours(given, originals) for ours, originals in _origins(config)})
    return model.eval()


def _ours(tensors: dict[str, Tensor], originals: tuple[str, ...]) -> Tensor:
    """Our tensor: originals side by side, turned from `[in, out]` where they are kernels."""
    parts = [tensors[name].t() if name.endswith(".kernel") else tensors[name] for name in originals]
    joined = torch.cat(parts)
    return joined[0] if originals[0] in ("context_bias", "location_bias") else joined


def _origins(config: TraxConfig) -> Iterator[Origin]:
    yield "embed.weight", ("embedding.weight",)
    yield from _bias_origins("biases.")
    yield from _linear("head", "to_logits")
    yield from _level_origins("root.", config.levels, 0, config)


def _level_origins(ours: str, hierarchy: Hierarchy, level: int, config: TraxConfig) -> Iterator[Origin]:
    inside, down, up = hierarchy.inner, f"down{level}", f"up{level}"
    yield from _stack_origins(f"{ours}pre.", f"level{level}.pre", hierarchy.levels[0].layers)
    yield from _norm(f"{ours}shorten.norm", f"{down}.in_norm")
    if config.shortening == "linear":
        yield from _linear(f"{ours}shorten.pool.pool", f"{down}.pool")
    yield from _norm(f"{ours}shorten.pool_norm", f"{down}.pool_norm")
    yield from _linear(f"{ours}shorten.key_value.projection", f"{down}.attn.k", f"{down}.attn.v")
    yield from _attention_origins(f"{ours}shorten.attention.", f"{down}.attn")
    yield from _feed_forward_origins(f"{ours}shorten.feed_forward.", down)
    if inside.is_vanilla:
        yield from _stack_origins(f"{ours}inner.", f"level{level + 1}.mid", inside.depth)
    else:
        yield from _level_origins(f"{ours}inner.", inside, level + 1, config)
    yield from _norm(f"{ours}hand_back.norm", f"{up}.in_norm")
    if config.upsampling == "linear":
        yield from _linear(f"{ours}hand_back.lengthen.spread", f"{up}.expand")
    yield from _norm(f"{ours}hand_back.lengthen_norm", f"{up}.expand_norm")
    yield from _linear(f"{ours}hand_back.key_value.projection", f"{up}.attn.k", f"{up}.attn.v")
    yield from _attention_origins(f"{ours}merge.attention.", f"{up}.attn")
    yield from _feed_forward_origins(f"{ours}merge.feed_forward.", up)
    yield from _norm(f"{ours}merge.norm", f"{up}.out_norm")
    yield from _stack_origins(f"{ours}post.", f"level{level}.post", hierarchy.levels[-1].layers)


def _stack_origins(ours: str, theirs: str, layers: int) -> Iterator[Origin]:
    for index in range(layers):
        block, original = f"{ours}layers.{index}.", f"{theirs}.{index}"
        yield from _norm(f"{block}norm", f"{original}.attn_norm")
        yield from _linear(f"{block}key_value.projection", f"{original}.attn.k", f"{original}.attn.v")
        yield from _attention_origins(f"{block}attention.", f"{original}.attn")
        yield from _feed_forward_origins(f"{block}feed_forward.", original)
    yield from _norm(f"{ours}norm", f"{theirs}.norm")


def _attention_origins(ours: str, theirs: str) -> Iterator[Origin]:
    yield from _linear(f"{ours}attend.query", f"{theirs}.q")
    yield from _linear(f"{ours}attend.out", f"{theirs}.out")
    yield from _linear(f"{ours}position", f"{theirs}.pos")
    yield from _bias_origins(f"{ours}attend.biases.")


def _bias_origins(ours: str) -> Iterator[Origin]:
    yield from ((f"{ours}{kind}", (f"{kind}_bias",)) for kind in ("context", "location"))


def _feed_forward_origins(ours: str, theirs: str) -> Iterator[Origin]:
    yield from _norm(f"{ours}norm", f"{theirs}.ff_norm")
    yield from _linear(f"{ours}up", f"{theirs}.ff_in")
    yield from _linear(f"{ours}down", f"{theirs}.ff_out")


def _norm(ours: str, theirs: str) -> Iterator[Origin]:
    yield from ((f"{ours}.weight", (f"{theirs}.scale",)), (f"{ours}.bias", (f"{theirs}.bias",)))


def _linear(ours: str, *theirs: str) -> Iterator[Origin]:
    """One projection that does what several of the original's do."""
    yield f"{ours}.weight", tuple(f"{name}.kernel" for name in theirs)
    yield f"{ours}.bias", tuple(f"{name}.bias" for name in theirs)
