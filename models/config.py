"""What a foveal language model is, as data: the `config.json` of a checkpoint directory."""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec

from ..errors import ConfigError
from ..hierarchy import Hierarchy
from .retina.compaction import Compaction

Architecture = Literal["hourglass", "top-down", "bottom-up", "retina", "dynamic"]
Positions = Literal["learned", "rotary"]
Shortening = Literal["average", "linear", "attention", "linear+attention"]
Upsampling = Literal["repeat", "linear", "attention", "linear+attention"]


_REQUIRED = {
    "hourglass": Hierarchy.require_hourglass,
    "top-down": Hierarchy.require_descent,
    "bottom-up": Hierarchy.require_ascent,
    "retina": Hierarchy.require_one_scale,
    "dynamic": Hierarchy.require_decided_middle,
}
# What an architecture has no other way of: rows of a coarse scale are repeated as they are; pooled keys know no rotation.
_FIXED = {
    "bottom-up": {"upsampling": "repeat"},
    "retina": {"positions": "learned", "shortening": "average", "upsampling": "repeat"},
    "dynamic": {"shortening": "average", "upsampling": "repeat"},
}


MOST_LAYERS = 10_000


class LayerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes and choices of the Transformer layers of one stack.

    Attributes:
        kv_heads: heads of keys and values, each read by `heads / kv_heads` heads of queries (grouped-query attention, arXiv
            2305.13245); None: as many as `heads`.
        window: a row attends to itself and the `window - 1` rows before it; None: to all before it.
        norm: of what goes into attention and feed forward: `"layer"`; `"rms"` as in MEGABYTE-pytorch, `eps` the least root
            mean square; or `"rms_eps"` as in Llama, `eps` added to the mean square.
        activation: exact (erf) GELU, its tanh approximation as in GPT-2, or SwiGLU (arXiv 2002.05202) as in Llama.
        ff_dim: width between the matrices of the feed forward block; of each half with SwiGLU.
        ff_bias: whether those have biases.
        rotary_base: of rotary positions; None: the stack knows no positions.
        rotary_dims: how many of a head's dimensions are rotated; None: all.
        rotary_pairs: which dimensions are rotated together: i and i + dims / 2 (GPT-NeoX, Llama as transformers has it), or 2i
            and 2i + 1 (RoFormer, Llama as Meta has it).
        parallel: attention and feed forward read the same input, as in GPT-NeoX.

    Raises:
        ConfigError: sizes that contradict each other.
    """

    dim: int
    heads: int
    head_dim: int
    ff_dim: int
    kv_heads: int | None = None
    window: int | None = None
    norm: Literal["layer", "rms", "rms_eps"] = "layer"
    norm_eps: float = 1e-5
    activation: Literal["gelu", "gelu_tanh", "swiglu"] = "gelu"
    ff_bias: bool = True
    qkv_bias: bool = False
    out_bias: bool = True
    rotary_base: float | None = None
    rotary_dims: int | None = None
    rotary_pairs: Literal["halves", "neighbours"] = "halves"
    parallel: bool = False

    def __post_init__(self) -> None:
        if self.kv_heads is not None and (self.kv_heads < 1 or self.heads % self.kv_heads):
            raise ConfigError(f"kv_heads must divide heads, which are {self.heads}, got {self.kv_heads}")
        if self.window is not None and self.window < 1:
            raise ConfigError(f"window must be at least 1, the row itself, got {self.window}; None for no window")

    @property
    def key_value_heads(self) -> int:
        """Heads of keys and values."""
        return self.heads if self.kv_heads is None else self.kv_heads


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes and choices of one model of foveal's own: an Hourglass (with a single level: a vanilla Transformer), or one of
    the multi-scale models in the manner of arXiv 2005.00581.

    `"attention"` resampling is lucidrains' form: after averaging (or a linear pooling) each coarse vector attends to its
    own group, and each fine vector receives the attention's value of its coarse vector, then a feed-forward block.

    Attributes:
        compaction: of a retina model; the usual one if not given.

    Raises:
        ConfigError: sizes that contradict each other, or a malformed hierarchy.
    """

    architecture: Architecture = "hourglass"
    hierarchy: str
    vocab_size: int
    dim: int
    heads: int
    head_dim: int
    ff_dim: int
    max_positions: int
    positions: Positions = "learned"
    shortening: Shortening = "average"
    upsampling: Upsampling = "repeat"
    tie_embeddings: bool = True
    head_bias: bool = False
    norm_eps: float = 1e-5
    rope_base: float = 10_000.0
    compaction: Compaction | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        hierarchy = Hierarchy.parse(self.hierarchy)
        _REQUIRED[self.architecture](hierarchy if self.architecture == "dynamic" else hierarchy.require_strides())
        for name, choice in _FIXED.get(self.architecture, {}).items():
            if getattr(self, name) != choice:
                raise ConfigError(f'{name} of a {self.architecture} model must be "{choice}", got "{getattr(self, name)}"')
        if self.architecture == "retina" and self.compaction is msgspec.UNSET:
            msgspec.structs.force_setattr(self, "compaction", Compaction())
        if self.architecture != "retina" and self.compaction is not msgspec.UNSET:
            raise ConfigError(f'only a retina model compacts its past, got a compaction for architecture "{self.architecture}"')
        for name in ("vocab_size", "dim", "heads", "head_dim", "ff_dim", "max_positions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.positions == "rotary" and self.head_dim % 2:
            raise ConfigError(f"rotary positions rotate pairs: head_dim must be even, got {self.head_dim}")

    @property
    def layer(self) -> LayerConfig:
        """What every layer is like."""
        return LayerConfig(
            dim=self.dim,
            heads=self.heads,
            head_dim=self.head_dim,
            ff_dim=self.ff_dim,
            norm_eps=self.norm_eps,
            rotary_base=self.rope_base if self.positions == "rotary" else None,
        )

    @property
    def levels(self) -> Hierarchy:
        """The parsed hierarchy."""
        return Hierarchy.parse(self.hierarchy)


def architecture_of(hierarchy: str) -> Architecture:
    """The architecture that has levels in this order; palindromes, and what is malformed, are an Hourglass's.

    Raises:
        ConfigError: an entry that is not layers@factor.
    """
    levels = Hierarchy.parse(hierarchy).levels
    strides = [level.stride for level in levels]
    if any(level.expected is not None for level in levels):
        return "dynamic"
    if strides == strides[::-1]:
        return "hourglass"
    if strides == sorted(strides, reverse=True):
        return "top-down"
    return "bottom-up" if strides[:-1] == sorted(strides[:-1]) else "hourglass"


def head_dim_of(dim: int, heads: int) -> int:
    """Columns of each head, where they share a width; raises ConfigError if they can't."""
    if heads < 1:
        raise ConfigError(f"heads must be at least 1, got {heads}")
    if dim % heads:
        raise ConfigError(f"heads must divide the width {dim}, got {heads}")
    return dim // heads


def require_depth(layers: int) -> int:
    """The number of layers; raises ConfigError for one that would take forever to build."""
    if layers > MOST_LAYERS:
        raise ConfigError(f"a stack has {layers} layers, expected at most {MOST_LAYERS}")
    return layers


def one_of(choices: Any, given: str, name: str) -> Any:
    """Narrow a string to one of a Literal's values; raises ConfigError that lists them."""
    if given not in get_args(choices):
        raise ConfigError(f'{name} is "{given}", expected one of {", ".join(get_args(choices))}')
    return given
