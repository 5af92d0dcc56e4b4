"""One pre-norm Transformer layer with token shift in front of both halves."""

from __future__ import annotations

from torch import Tensor, nn

from ..cache import State
from ..config import LayerConfig
from ..layers.attention import Attention, Rope
from ..layers.feed_forward import FeedForward
from ..layers.norm import norm_of
from .first_row import FirstRow, heads_of
from .token_shift import moved_half, token_shift, token_shift_step


class ShiftedBlock(nn.Module):
    """`x + attention(norm(shift(x)))`, then `x + feed_forward(norm(shift(x)))`: the residual is not shifted."""

    def __init__(self, config: LayerConfig) -> None:
        super().__init__()
        self.norm = norm_of(config)
        self.attention = Attention(config)
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor, rope: Rope = None) -> Tensor:
        """Whole sequences `[B, L, D]`."""
        x = x + self.attention(self.norm(token_shift(x)), rope)
        return x + self.feed_forward.change(token_shift(x))

    def step(self, x: Tensor, state: State, layer: int, rope: Rope = None) -> Tensor:
        """The next rows `[B, L, D]` of the stage's layer with that index."""
        shifted = token_shift_step(x, state, f"{layer}.attention_shift")
        x = x + self.attention.step(self.norm(shifted), state.caches[layer], rope)
        return x + self.feed_forward.change(token_shift_step(x, state, f"{layer}.feed_forward_shift"))

    def step_behind(self, x: Tensor, state: State, layer: int, first: FirstRow, rope: Rope = None) -> Tensor:
        """As `step`, behind a first row that is not among the firings."""
        shifted = token_shift_step(x, state, f"{layer}.attention_shift", first.attention_half)
        x = x + first.attend(self.attention, self.norm(shifted), state, layer, rope)
        shifted = token_shift_step(x, state, f"{layer}.feed_forward_shift", first.feed_forward_half)
        return x + self.feed_forward.change(shifted)

    def first_row(self, x: Tensor) -> tuple[Tensor, FirstRow]:
        """A first row `[1, 1, D]`: what the next layer gets, and what this one remembers. Rotating it changes nothing."""
        _, key, value = heads_of(self.attention, self.norm(token_shift(x)), None)
        attended = x + self.attention(self.norm(token_shift(x)))
        y = attended + self.feed_forward.change(token_shift(attended))
        return y, FirstRow(key, value, moved_half(x).clone(), moved_half(attended).clone())
