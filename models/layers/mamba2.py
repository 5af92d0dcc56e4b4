"""Mamba-2: a layer whose memory of the past is a state of fixed size that fades (Dao and Gu, arXiv 2405.21060)."""

from __future__ import annotations

import math

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...contract import CacheSpec
from ...errors import ConfigError
from ..cache import State
from ..config import LayerConfig
from .fade import fades
from .norm import norm_of


class Mamba2Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes of a Mamba-2 layer with one group: all heads share what they write with and read by.

    Attributes:
        state: rows of a head's memory (`d_state`).
        taps: newest rows that the convolution sees (`d_conv`).
        expand: how much wider the layer is inside.

    Raises:
        ConfigError: a size below 1, a convolution of less than 2 rows, or a width that is not made of whole heads.
    """

    dim: int
    state: int = 128
    taps: int = 4
    expand: int = 2
    head_dim: int = 64
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        for name, least in (("dim", 1), ("state", 1), ("taps", 2), ("expand", 1), ("head_dim", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} of a Mamba-2 layer must be at least {least}, got {getattr(self, name)}")
        if self.inner % self.head_dim:
            raise ConfigError(
                f"a Mamba-2 layer of width {self.dim} is {self.inner} wide inside, expected a multiple of the {self.head_dim} "
                "of its heads"
            )

    @property
    def inner(self) -> int:
        """Width inside."""
        return self.expand * self.dim

    @property
    def heads(self) -> int:
        """Heads, each with a memory and a rate at which it fades."""
        return self.inner // self.head_dim

    @property
    def convolved(self) -> int:
        """Columns that go through the convolution: values, and what they are written with and read by."""
        return self.inner + 2 * self.state


class Mamba2(nn.Module):
    """A linear recurrence per head, which the rows themselves steer, and a gate.

    `[z, c, d] = W u`, `[x, B, C] = silu(conv(c))`, `D = softplus(d + b)`, `S = exp(-D A) S + D B x^T`,
    `y = W' norm((C S + G x) silu(z))`.

    `forward` goes row by row, as the equations do. `step` runs the rows of a call at once, as sums over the earlier ones of
    them (the paper's quadratic form), so that its graph has no loop and serves one row as well as many.
    """

    def __init__(self, config: Mamba2Config) -> None:
        super().__init__()
        self.config = config
        self.project = nn.Linear(config.dim, config.inner + config.convolved + config.heads, bias=False)
        self.conv_weight = nn.Parameter(torch.randn(config.taps, config.convolved) / math.sqrt(config.taps))
        self.conv_bias = nn.Parameter(torch.zeros(config.convolved))
        self.rate_bias = nn.Parameter(_softplus_inverse(torch.logspace(-3, -1, config.heads)))
        self.log_decay = nn.Parameter(torch.linspace(1, 16, config.heads).log())
        self.skip = nn.Parameter(torch.ones(config.heads))
        width = LayerConfig(dim=config.inner, heads=1, head_dim=1, ff_dim=1, norm="rms_eps", norm_eps=config.norm_eps)
        self.norm = norm_of(width)
        self.out = nn.Linear(config.inner, config.dim, bias=False)

    def caches(self, name: str) -> tuple[CacheSpec, CacheSpec]:
        """The rows that the convolution still sees, and the heads' memories, of a layer of this name in its stage."""
        config = self.config
        window = CacheSpec(name=f"{name}.window", heads=1, rows=config.taps - 1, width=config.convolved, recurrent=True)
        memory = CacheSpec(name=f"{name}.memory", heads=config.heads, rows=config.state, width=config.head_dim, recurrent=True)
        return window, memory

    def forward(self, u: Tensor) -> Tensor:
        """A whole sequence `[B, L, D]` -> `[B, L, D]`."""
        config = self.config
        gate, convolved, rate = self._project(u)
        x, write, read = self._split(self._convolve(F.pad(convolved, (0, 0, config.taps - 1, 0))))
        kept = (-rate * self.log_decay.exp()).exp()  # [B, L, H]
        memory = u.new_zeros(u.shape[0], config.heads, config.state, config.head_dim)
        found = []
        for row in range(u.shape[1]):
            written = write[:, row, None, :, None] * (rate[:, row, :, None] * x[:, row])[:, :, None]  # [B, H, N, P]
            memory = kept[:, row, :, None, None] * memory + written
            found.append((read[:, row, None, None] @ memory)[:, :, 0])  # [B, H, P]
        return self._give(torch.stack(found, 1), x, gate)

    def step(self, u: Tensor, state: State, name: str) -> Tensor:
        """The next rows `[B, L, D]`; the layer's caches are replaced."""
        window, memory = (cache.name for cache in self.caches(name))
        y, *after = self.advance(u, state.read(window), state.read(memory))
        for cache, value in zip((window, memory), after, strict=True):
            state.replace(cache, value)
        return y

    def advance(self, u: Tensor, window: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The next rows, given the layer's caches and giving the new ones; each is read by a single operation.

        Args:
            u: rows `[B, L, D]`.
            window: convolution inputs of the rows before, `[B, 1, taps - 1, C]`.
            memory: `[B, H, N, P]`.
        """
        gate, convolved, rate = self._project(u)
        rows = torch.cat((window[:, 0], convolved), 1)
        x, write, read = self._split(self._convolve(rows))
        found, after = self._sum(x, write, read, rate, memory)
        return self._give(found, x, gate), rows[:, None, -(self.config.taps - 1) :], after

    def _sum(self, x: Tensor, write: Tensor, read: Tensor, rate: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """What the rows find in memory `[B, L, H, P]`, and the memory after them.

        Args:
            x: values `[B, L, H, P]`.
            write: `[B, L, N]`, as is `read`.
            rate: `[B, L, H]`.
            memory: before them.
        """
        decay = (-rate * self.log_decay.exp()).transpose(1, 2)  # [B, H, L], negative
        between = fades(decay)  # [B, H, L, L]
        values = (x * rate[..., None]).transpose(1, 2)  # [B, H, L, P]
        faded = decay[..., :1, None].exp() * memory  # as the first row sees it
        since = between[..., :1]  # [B, H, L, 1]
        scores = (read @ write.transpose(1, 2))[:, None] * between
        found = scores @ values + since * (read[:, None] @ faded)  # [B, H, L, P]
        last = between[:, :, -1, :, None] * values
        return found.transpose(1, 2), since[:, :, -1:] * faded + write.transpose(1, 2)[:, None] @ last

    def _project(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows to gates `[B, L, I]`, what is convolved `[B, L, C]`, and rates `[B, L, H]`."""
        config = self.config
        gate, convolved, rate = torch.split(self.project(u), [config.inner, config.convolved, config.heads], -1)
        return gate, convolved, F.softplus(rate + self.rate_bias)

    def _convolve(self, rows: Tensor) -> Tensor:
        """`[B, taps - 1 + L, C]` -> `[B, L, C]`, each column by itself."""
        taps = self.config.taps
        y = self.conv_bias + rows[:, taps - 1 :] * self.conv_weight[-1]
        for tap in range(taps - 1):
            y = y + rows[:, tap : tap + 1 - taps] * self.conv_weight[tap]
        return F.silu(y)

    def _split(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        config = self.config
        x, write, read = torch.split(rows, [config.inner, config.state, config.state], -1)
        return torch.unflatten(x, -1, (config.heads, config.head_dim)), write, read

    def _give(self, found: Tensor, x: Tensor, gate: Tensor) -> Tensor:
        """The gate comes before the norm."""
        y: Tensor = self.out(self.norm((found + self.skip[:, None] * x).flatten(2) * F.silu(gate)))
        return y


def _softplus_inverse(x: Tensor) -> Tensor:
    return x + torch.log(-torch.expm1(-x))
