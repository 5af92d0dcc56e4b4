"""The Hourglass language model (arXiv 2110.13711), nested to any depth; with one level, a vanilla Transformer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...errors import CapacityError
from ..architecture import Description, Stage
from ..cache import StackState
from ..config import ModelConfig
from ..describe import describe
from ..layers.embed import Embed
from ..layers.head import head_for
from ..layers.initialise import initialise
from ..layers.level import Level, LevelState
from ..layers.stack import Stack
from .stages import split


@dataclass
class HourglassState:
    """State of a whole model: the number of tokens seen and the state of its root."""

    root: LevelState | StackState
    position: int = 0


class Hourglass(nn.Module):
    """Token ids to next-token logits; `logits[t]` predicts token t+1.

    With `"14@1"` the root is a plain `Stack`: the vanilla baseline is the same code, blocks and training.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        hierarchy = config.levels
        self.embed = Embed(config)
        self.root = Stack(config.layer, hierarchy.depth) if hierarchy.is_vanilla else Level(config, hierarchy)
        self.head = head_for(config, self.embed)
        initialise(self, hierarchy.depth)

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self.config.vocab_size

    def describe(self) -> Description:
        """As `Architecture.describe`."""
        return describe(self.config)

    def stages(self) -> list[Stage]:
        """As `Architecture.stages`."""
        return split(self.config, self.embed, self.root, self.head)

    def init_state(self, batch: int, capacity: int) -> HourglassState:
        """Empty state for `batch` sequences of at most `capacity` tokens."""
        return HourglassState(self.root.init_state(batch, capacity))

    def forward(self, ids: Tensor) -> Tensor:
        """Ids `[B, L]`, int64 -> logits `[B, L, V]`, all at once, no state.

        Raises:
            CapacityError: more tokens than learned positions.
        """
        self._check_positions(ids.shape[1])
        y: Tensor = self.head(self.root(self.embed(ids, torch.arange(ids.shape[1], device=ids.device)[None])))
        return y

    def step(self, ids: Tensor, state: HourglassState) -> Tensor:
        """The next token `[B, 1]` -> logits `[B, 1, V]`, firing each scale only when it must.

        Raises:
            CapacityError: the next token has no learned position.
        """
        self._check_positions(state.position + 1)
        position = torch.tensor([[state.position]], device=ids.device)
        state.position += 1
        y: Tensor = self.head(self.root.step(self.embed(ids, position), state.root))  # type: ignore[arg-type]
        return y

    def _check_positions(self, tokens: int) -> None:
        if self.embed.positions is not None and tokens > self.config.max_positions:
            raise CapacityError(
                f"the model has {self.config.max_positions} learned positions, got a sequence of {tokens} tokens; "
                "shorten it or start a new one"
            )
