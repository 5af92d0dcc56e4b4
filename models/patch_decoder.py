"""Patch decoders: two GPT-2 towers, one over patches of ids, one inside each patch (NotaGen, bGPT).

NotaGen: Wang et al., "NotaGen", arXiv 2502.18008, github.com/ElectricAlexis/NotaGen, `inference/utils.py`. bGPT: Wu et al.,
"Beyond Language Models", arXiv 2402.19155, github.com/sanderwood/bgpt, `utils.py`. Both are MIT, and the same network: the
patch tower sees one vector per patch of P ids, a linear map of their one-hot vectors laid side by side. The inner tower sees,
for each patch, what the patch tower made of everything before it, then the patch's own ids; its row l gives the logits of id l.

What the originals do to ids, and not to logits, is up to who gives the ids:

- Nothing predicts the first patch, which always is given: bGPT's is the file's extension filled up with 256; NotaGen's is 15
  times 1 and a 2. We let a zero vector stand before it.
- NotaGen's patches are bars or lines of text cut into pieces of P: one that is not full ends with 2 (end of patch), if
  another line follows, and zeros. Its sampler goes on drawing after a 2, to the end of the patch, and then puts zeros there
  before the patch tower sees it. Zeros inside a patch are not masked in its `generate`, nor here; in training they were.
- A NotaGen piece ends with a patch that begins with 1, 2; a bGPT file with a patch that contains 256. Their readers declare
  these as the end rule "piece"; "patch" is the end of a patch, in NotaGen the 2 too (`contract.EndRule`).
- When NotaGen has filled all its patches, it begins again with the second half of the music.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..contract import EndRule, InputSpec, patch_rule
from ..errors import ConfigError
from .architecture import Description, Stage
from .cache import State
from .config import LayerConfig
from .layers.hand_copies import HandCopies
from .layers.head import Head
from .layers.initialise import initialise
from .layers.stack import Stack
from .layers.stack_stage import StackStage, stack_stage

NORM_EPS = 1e-5


class PatchDecoderConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes of a patch decoder.

    Attributes:
        architecture: whose, for people: `"notagen"`, `"bgpt"`.
        patch_size: ids of a patch.
        max_patches: patches that the patch tower has positions for.
        patch_layers: of the patch tower, and `inner_layers`: of the one inside a patch.
        tie_embeddings: the inner tower's ids and its logits share a matrix.
        norm_eps, activation: of every layer, GPT-2's unless said otherwise.
        end_rules: beside the one that all have, "patch".

    Raises:
        ConfigError: a size below 1, patches of less than 2 ids, or heads that do not divide the width.
    """

    architecture: str
    patch_size: int
    max_patches: int
    vocab_size: int
    dim: int
    heads: int
    patch_layers: int
    inner_layers: int
    tie_embeddings: bool = True
    norm_eps: float = NORM_EPS
    activation: Literal["gelu", "gelu_tanh"] = "gelu_tanh"
    end_rules: tuple[EndRule, ...] = ()

    def __post_init__(self) -> None:
        if self.patch_size < 2:
            raise ConfigError(f"patch_size must be at least 2, got {self.patch_size}; patches of one id are no hierarchy")
        for name in ("max_patches", "vocab_size", "dim", "heads", "patch_layers", "inner_layers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.dim % self.heads:
            raise ConfigError(f"heads must divide the width {self.dim}, got {self.heads}; GPT-2 has one for each 64")

    @property
    def layer(self) -> LayerConfig:
        """What every layer of both towers is like: GPT-2's."""
        return LayerConfig(
            dim=self.dim,
            heads=self.heads,
            head_dim=self.dim // self.heads,
            ff_dim=4 * self.dim,
            norm_eps=self.norm_eps,
            activation=self.activation,
            qkv_bias=True,
        )


class PatchEmbed(nn.Module):
    """A patch to a vector: of a linear map of one-hot vectors, the columns that count, one for each id and place."""

    first_columns: Tensor

    def __init__(self, config: PatchDecoderConfig) -> None:
        super().__init__()
        self.columns = nn.Embedding(config.patch_size * config.vocab_size, config.dim)
        self.bias = nn.Parameter(torch.zeros(config.dim))
        self.positions = nn.Embedding(config.max_patches, config.dim)
        first_columns = torch.arange(config.patch_size) * config.vocab_size
        self.register_buffer("first_columns", first_columns, persistent=False)

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Ids `[B, n * P]` of the patches at indices `[B or 1, n]` -> `[B, n, D]`."""
        patches = ids.reshape(ids.shape[0], -1, self.first_columns.shape[0])
        x: Tensor = self.columns(patches + self.first_columns).sum(2) + self.bias
        y: Tensor = x + self.positions(positions)
        return y


class InnerEmbed(nn.Module):
    """Rows of the inner tower: place 0 of a patch holds what is known of it, place l its id l - 1."""

    def __init__(self, config: PatchDecoderConfig) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocab_size, config.dim)
        self.positions = nn.Embedding(config.patch_size, config.dim)

    def forward(self, ids: Tensor, context: Tensor, places: Tensor) -> Tensor:
        """Ids `[B, L]`, rows `[B, L, D]` and places `[B or 1, L]` -> `[B, L, D]`."""
        x: Tensor = torch.where((places == 0)[:, :, None], context, self.tokens(ids)) + self.positions(places)
        return x


class PlacedStage(StackStage):
    """A stage whose entry is told the index of each firing, after its inputs, the first of which has `ids_per_firing` ids."""

    def __init__(self, entry: nn.Module, stack: Stack, exit: nn.Module, ids_per_firing: int) -> None:
        super().__init__(entry, stack, exit)
        self.ids_per_firing = ids_per_firing

    @property
    def uses_position(self) -> bool:
        """It does, even without layers."""
        return True

    def forward(self, inputs: Sequence[Tensor], state: State, logit_rows: Tensor | None = None) -> Tensor:
        """As `StageModule`."""
        positions = state.positions(inputs[0].shape[1] // self.ids_per_firing)
        x = self.stack.step(self.entry(*inputs, positions), state)
        if logit_rows is not None:
            x = x.index_select(1, logit_rows)
        y: Tensor = self.exit(x)
        return y


class PatchDecoder(nn.Module):
    """Token ids to next-token logits; `logits[t]` predicts token t+1. Those before the second patch mean nothing: see above."""

    def __init__(self, config: PatchDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config)
        self.patches = Stack(config.layer, config.patch_layers)
        self.hand_down = HandCopies(config.dim, config.norm_eps, config.patch_size)
        self.embed = InnerEmbed(config)
        self.inner = Stack(config.layer, config.inner_layers)
        self.head = Head(config.dim, config.vocab_size, config.norm_eps)
        if config.tie_embeddings:
            self.head.logits.weight = self.embed.tokens.weight
        initialise(self, config.patch_layers + config.inner_layers)

    def describe(self) -> Description:
        """What it is."""
        config = self.config
        tokens = config.max_patches * config.patch_size
        return Description(
            architecture=config.architecture,
            hierarchy=f"{config.patch_layers}@{config.patch_size} {config.inner_layers}@1",
            vocab_size=config.vocab_size,
            dim=config.dim,
            max_positions=tokens,
            context=tokens,
            end_rules=(patch_rule(config.patch_size), *config.end_rules),
        )

    def stages(self) -> list[Stage]:
        """The patch tower fires when a patch is complete; row 0 of the next patch reads what it gave."""
        size, dim = self.config.patch_size, self.config.dim
        whole = InputSpec(kind="tokens", count=size)
        outer = PlacedStage(self.patch_embed, self.patches, self.hand_down, size)
        inner = PlacedStage(self.embed, self.inner, self.head, 1)
        name = str(size)
        newest = (InputSpec(kind="tokens", shift=1), InputSpec(kind="context", source=name, shift=size, width=dim))
        return [
            stack_stage(name, size, (whole,), outer, dim, output_rows=size, fires="close"),
            stack_stage("1", 1, newest, inner, self.config.vocab_size, fires="ahead", resets=size),
        ]

    def forward(self, ids: Tensor) -> Tensor:
        """Ids `[B, L]`, int64 -> logits `[B, L, V]`, all at once, no state."""
        size, (batch, length) = self.config.patch_size, ids.shape
        complete = length // size
        rows = (
            complete + 1
        ) * size  # of the inner tower: one for each id and one before the first, then as many as fill a patch
        places = (torch.arange(rows, device=ids.device) % size)[None]
        x = self.embed(F.pad(ids, (1, rows - 1 - length)), self._contexts(ids, complete), places)
        y: Tensor = self.head(self.inner(x.reshape(batch * (complete + 1), size, -1)))
        return y.reshape(batch, rows, -1)[:, 1 : length + 1]

    def _contexts(self, ids: Tensor, complete: int) -> Tensor:
        """What stands in front of each patch, P times, `[B, (complete + 1) * P, D]`: nothing in front of the first."""
        size, dim = self.config.patch_size, self.config.dim
        nothing = self.patch_embed.bias.new_zeros(ids.shape[0], size, dim)
        if complete == 0:
            return nothing
        positions = torch.arange(complete, device=ids.device)[None]
        encoded = self.hand_down(self.patches(self.patch_embed(ids[:, : complete * size], positions)))
        return torch.cat([nothing, encoded], dim=1)
