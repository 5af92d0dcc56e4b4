"""Block Transformer: a GPT-NeoX tower over blocks of tokens, and one inside each block (arXiv 2406.02657).

Ho et al., "Block Transformer: Global-to-Local Language Modeling for Fast Inference", `model/` of
github.com/itsnamgyu/block-transformer (MIT), in the form of its main models: a block of P tokens is the vectors of a small
table laid side by side; what the block decoder makes of it is expanded into E prefixes, which stand in front of the next
block's tokens in the token decoder. The last prefix gives the logits of the block's first token.

What the original does to ids, and not to logits, is up to who gives the ids. It pads a prompt on the left to whole blocks with
its padding id, whose vector is looked up like any other; in training it did so with the first block of a text too. A block of
nothing but padding is hidden from the block decoder there, and not here: give none. Nothing predicts the first block, which
always is given; we let the expansion of a zero vector stand before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..contract import CacheSpec, InputSpec, StageSpec, patch_rule
from ..errors import ConfigError
from .architecture import Description, Stage, count_parameters
from .cache import State
from .config import LayerConfig
from .layers.hand_copies import HandCopies
from .layers.head import Head
from .layers.initialise import initialise
from .layers.stack import Stack
from .layers.stack_stage import StackStage, stack_stage

INPUTS = "inputs"
"""The token decoder's cache of its own input rows."""


class BlockTransformerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes of a Block Transformer.

    Attributes:
        block_length: tokens of a block.
        prefixes: rows that stand for everything before a block in the token decoder.
        block: layers of the block decoder, and `token`: of the token decoder.
        context: tokens that it was trained on.

    Raises:
        ConfigError: a size below 1, blocks of less than 2 tokens, or a width that these do not divide.
    """

    block_length: int
    prefixes: int
    vocab_size: int
    block: LayerConfig
    block_layers: int
    token: LayerConfig
    token_layers: int
    context: int = 2048

    def __post_init__(self) -> None:
        if self.block_length < 2:
            raise ConfigError(f"block_length must be at least 2, got {self.block_length}; blocks of one token are no hierarchy")
        for name in ("prefixes", "vocab_size", "block_layers", "token_layers", "context"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.block.dim % self.block_length:
            raise ConfigError(
                f"the width {self.block.dim} of the block decoder must be a multiple of its {self.block_length} tokens, "
                "whose vectors are laid side by side"
            )


class BlockEmbed(nn.Module):
    """A block to a vector: those of its tokens side by side."""

    def __init__(self, config: BlockTransformerConfig) -> None:
        super().__init__()
        self.dim = config.block.dim
        self.tokens = nn.Embedding(config.vocab_size, config.block.dim // config.block_length)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids `[B, n * P]` -> `[B, n, D]`."""
        x: Tensor = self.tokens(ids)
        return x.reshape(ids.shape[0], -1, self.dim)


class Expand(nn.Module):
    """What the block decoder says of everything before a block, to the prefixes of that block."""

    def __init__(self, config: BlockTransformerConfig) -> None:
        super().__init__()
        self.prefixes, self.dim = config.prefixes, config.token.dim
        self.out = nn.Linear(config.block.dim, config.prefixes * config.token.dim)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, n, D]` -> `[B, n * E, D']`."""
        y: Tensor = self.out(x)
        return y.reshape(x.shape[0], -1, self.dim)


class TokenStage(nn.Module):
    """The token decoder, firing by firing.

    A block's rows are its E prefixes and then its tokens but the last, and firing l gives the logits of row l + E - 1. So the
    firing that opens a block has E rows to run. That every call of L firings may have as many rows, it runs L + E - 1: those of
    its firings and, once more, the E - 1 before, whose inputs are prefixes or stand in a cache.
    """

    def __init__(self, tokens: nn.Embedding, expand: Expand, stack: Stack, head: Head) -> None:
        super().__init__()
        self.tokens, self.expand, self.stack, self.head = tokens, expand, stack, head

    def forward(self, inputs: Sequence[Tensor], state: State, logit_rows: Tensor | None = None) -> Tensor:
        """As `StageModule`; inputs are ids `[B, L]` and rows of the block decoder `[B, L, D]`, all of them of one block."""
        ids, context = inputs
        prefixes = self.expand(context[:, :1])  # [B, E, D']
        opens = (state.positions(ids.shape[1]) == 0)[:, :, None]
        x = torch.where(opens, prefixes[:, -1:], self.tokens(ids))
        again = self.expand.prefixes - 1
        if again:
            x = torch.cat([self._rows_before(prefixes, again, state), x], dim=1)
            state.write(INPUTS, x[:, None], state.positions(1)[:, 0])
        y = self.stack.step(x, state)[:, again:]
        if logit_rows is not None:
            y = y.index_select(1, logit_rows)
        logits: Tensor = self.head(y)
        return logits

    def _rows_before(self, prefixes: Tensor, rows: int, state: State) -> Tensor:
        """The rows before that of the first firing, which begin with the row of its own index."""
        known = torch.cat([prefixes, state.read(INPUTS)[:, 0, prefixes.shape[1] :]], dim=1)
        places = state.positions(rows)[:, :, None].expand(prefixes.shape[0], rows, prefixes.shape[2])
        return known.gather(1, places)


class BlockTransformer(nn.Module):
    """Token ids to next-token logits; `logits[t]` predicts token t+1. Those before the second block mean nothing: see above."""

    def __init__(self, config: BlockTransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.block_embed = BlockEmbed(config)
        self.blocks = Stack(config.block, config.block_layers)
        self.hand_down = HandCopies(config.block.dim, config.block.norm_eps, config.block_length)
        self.expand = Expand(config)
        self.embed = nn.Embedding(config.vocab_size, config.token.dim)
        self.inner = Stack(config.token, config.token_layers)
        self.head = Head(config.token.dim, config.vocab_size, config.token.norm_eps)
        initialise(self, config.block_layers + config.token_layers)

    def describe(self) -> Description:
        """What it is."""
        config = self.config
        return Description(
            architecture="block-transformer",
            hierarchy=f"{config.block_layers}@{config.block_length} {config.token_layers}@1",
            vocab_size=config.vocab_size,
            dim=config.token.dim,
            max_positions=None,
            context=config.context,
            end_rules=(patch_rule(config.block_length),),
        )

    def stages(self) -> list[Stage]:
        """The block decoder fires when a block is complete; the firing that opens the next block reads what it gave."""
        size, dim = self.config.block_length, self.config.block.dim
        whole = InputSpec(kind="tokens", count=size)
        outer = StackStage(self.block_embed, self.blocks, self.hand_down)
        name = str(size)
        newest = (InputSpec(kind="tokens", shift=1), InputSpec(kind="context", source=name, shift=size, width=dim))
        inner = TokenStage(self.embed, self.expand, self.inner, self.head)
        spec = StageSpec(
            name="1",
            stride=1,
            fires="ahead",
            inputs=newest,
            output="logits",
            width=self.config.vocab_size,
            layers=self.config.token_layers,
            caches=self._token_caches(),
            parameters=count_parameters(inner),
            resets=size,
        )
        return [stack_stage(name, size, (whole,), outer, dim, output_rows=size, fires="close"), Stage(spec, inner)]

    def _token_caches(self) -> tuple[CacheSpec, ...]:
        """Of as many rows as a block has: its prefixes, and its tokens but the last."""
        config = self.config
        rows = config.prefixes + config.block_length - 1
        inputs = CacheSpec(name=INPUTS, heads=1, width=config.token.dim, keeps=rows)
        return (*self.inner.caches(rows), *((inputs,) if config.prefixes > 1 else ()))

    def forward(self, ids: Tensor) -> Tensor:
        """Ids `[B, L]`, int64 -> logits `[B, L, V]`, all at once, no state."""
        config, (batch, length) = self.config, ids.shape
        size, complete = config.block_length, length // config.block_length
        blocks = complete + 1
        prefixes = self.expand(self._contexts(ids, complete)).reshape(batch * blocks, config.prefixes, -1)
        padded = F.pad(ids, (0, blocks * size - length)).reshape(batch * blocks, size)
        x = torch.cat([prefixes, self.embed(padded[:, :-1])], dim=1)
        y: Tensor = self.head(self.inner(x)[:, config.prefixes - 1 :])
        return y.reshape(batch, blocks * size, -1)[:, 1 : length + 1]

    def _contexts(self, ids: Tensor, complete: int) -> Tensor:
        """What the block decoder says before each block, `[B, complete + 1, D]`: nothing before the first."""
        nothing = self.hand_down.norm.weight.new_zeros(ids.shape[0], 1, self.config.block.dim)
        if complete == 0:
            return nothing
        encoded = self.blocks(self.block_embed(ids[:, : complete * self.config.block_length]))
        return torch.cat([nothing, self.hand_down.norm(encoded)], dim=1)
