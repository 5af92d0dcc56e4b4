"""Towers of layers with every choice that `LayerConfig` has, alone and with layers that remember other things."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from foveal.contract import CacheSpec, InputSpec, StageSpec, layer_caches
from foveal.models import Description, StackStage, Stage, count_parameters, stack_stage
from foveal.models.cache import State
from foveal.models.config import LayerConfig
from foveal.models.layers.block import Block
from foveal.models.layers.head import Head
from foveal.models.layers.rotary import Rotary
from foveal.models.layers.stack import Stack

DIM, VOCABULARY = 24, 41
LLAMA = LayerConfig(
    dim=DIM,
    heads=4,
    kv_heads=2,
    head_dim=8,
    window=5,
    ff_dim=40,
    norm="rms_eps",
    activation="swiglu",
    ff_bias=False,
    out_bias=False,
    rotary_base=10_000.0,
    rotary_pairs="neighbours",
)
"""As BLT's towers are."""


@st.composite
def layer_configs(draw: st.DrawFn) -> LayerConfig:
    """Any choices that agree with one another."""
    head_dim = draw(st.sampled_from([6, 8, 10]))
    kv_heads = draw(st.sampled_from([None, 1, 2, 3]))
    return LayerConfig(
        dim=DIM,
        heads=(kv_heads or 1) * draw(st.integers(1, 3)),
        kv_heads=kv_heads,
        head_dim=head_dim,
        window=draw(st.sampled_from([None, 1, 2, 5, 100])),
        ff_dim=draw(st.sampled_from([7, 16])),
        norm=draw(st.sampled_from(["layer", "rms", "rms_eps"])),
        activation=draw(st.sampled_from(["gelu", "gelu_tanh", "swiglu"])),
        ff_bias=draw(st.booleans()),
        qkv_bias=draw(st.booleans()),
        out_bias=draw(st.booleans()),
        rotary_base=draw(st.sampled_from([None, 100.0])),
        rotary_dims=draw(st.sampled_from([None, 4])),
        rotary_pairs=draw(st.sampled_from(["halves", "neighbours"])),
        parallel=draw(st.booleans()),
    )


def stirred(module: nn.Module, seed: int = 0) -> nn.Module:
    """With weights none of which is zero or one."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return module.eval()


class Tower(nn.Module):
    """Tokens, layers, logits: one stage."""

    def __init__(self, config: LayerConfig = LLAMA, layers: int = 2, context: int = 96) -> None:
        super().__init__()
        self.layers, self.context = layers, context
        self.tokens, self.stack, self.head = nn.Embedding(VOCABULARY, DIM), Stack(config, layers), Head(DIM, VOCABULARY, 1e-5)
        stirred(self)

    def forward(self, ids: Tensor) -> Tensor:
        """`[B, L]` -> `[B, L, V]`."""
        y: Tensor = self.head(self.stack(self.tokens(ids)))
        return y

    def describe(self) -> Description:
        """What people see."""
        return Description("tower", f"{self.layers}@1", VOCABULARY, DIM, None, self.context)

    def stages(self) -> list[Stage]:
        """The only one."""
        module = StackStage(self.tokens, self.stack, self.head)
        return [stack_stage("1", 1, (InputSpec(kind="tokens"),), module, VOCABULARY)]


class Follow(nn.Module):
    """`x[t] + tanh(W x[t-1])`, which keeps the rows themselves in an append-only cache."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(DIM, DIM)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        """Rows `[B, L, D]`, behind the row `[B, 1, D]` before them."""
        y: Tensor = x + self.mix(torch.cat((before, x[:, :-1]), 1)).tanh()
        return y

    def step(self, x: Tensor, state: State, name: str) -> Tensor:
        """The next rows."""
        first = state.positions(x.shape[1])[:, 0]
        index = (first - 1).clamp(min=0).expand(x.shape[0])[:, None, None].expand(-1, 1, DIM)
        before = state.read(name)[:, 0].gather(1, index) * (first > 0)[:, None, None]
        state.write(name, x[:, None], first)
        return self.forward(x, before)


class Fade(nn.Module):
    """`x[t] + W s[t]` with `s[t] = s[t-1] / 2 + x[t]`, a recurrent state."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(DIM, DIM)

    def forward(self, x: Tensor, faded: Tensor) -> tuple[Tensor, Tensor]:
        """Rows `[B, L, D]`, and half of the state before them `[B, 1, D]` -> rows and the state after them."""
        ago = torch.arange(x.shape[1])[:, None] - torch.arange(x.shape[1])  # [L, L]
        shares = torch.where(ago >= 0, 0.5 ** ago.clamp(min=0).float(), 0.0)
        fades = 0.5 ** torch.arange(x.shape[1]).float()[:, None]  # of what was before the first row
        states = shares @ x + fades * faded
        return x + self.out(states), states[:, -1:]

    def step(self, x: Tensor, state: State, name: str) -> Tensor:
        """The next rows."""
        y, last = self.forward(x, state.read(name)[:, 0] * 0.5)
        state.replace(name, last[:, None])
        return y


class MixedStage(nn.Module):
    """Layers `follow, attention, fade, attention`: numbers 1 and 3 have keys and values."""

    def __init__(self, config: LayerConfig) -> None:
        super().__init__()
        self.tokens, self.head, self.rotary = nn.Embedding(VOCABULARY, DIM), Head(DIM, VOCABULARY, 1e-5), Rotary(config)
        self.follow, self.fade = Follow(), Fade()
        self.first, self.second = Block(config), Block(config)

    def forward(self, inputs: Sequence[Tensor], state: State, logit_rows: Tensor | None = None) -> Tensor:
        """As `StageModule`."""
        x = self.tokens(inputs[0])
        rope = self.rotary(state.positions(x.shape[1]))
        first, second = state.caches
        x = self.first.step(self.follow.step(x, state, "0.rows"), first, rope)
        x = self.second.step(self.fade.step(x, state, "2.sum"), second, rope)
        y: Tensor = self.head(x if logit_rows is None else x.index_select(1, logit_rows))
        return y

    def whole(self, ids: Tensor) -> Tensor:
        """All tokens at once."""
        x = self.tokens(ids)
        rope, nothing = self.rotary(torch.arange(x.shape[1])[None]), torch.zeros(x.shape[0], 1, DIM)
        x = self.first(self.follow(x, nothing), rope)
        y: Tensor = self.head(self.second(self.fade(x, nothing)[0], rope))
        return y


class MixedTower(nn.Module):
    """One stage in which attention is not all that remembers."""

    def __init__(self, config: LayerConfig = LLAMA) -> None:
        super().__init__()
        self.config, self.stage = config, MixedStage(config)
        stirred(self)

    def forward(self, ids: Tensor) -> Tensor:
        """`[B, L]` -> `[B, L, V]`."""
        return self.stage.whole(ids)

    def describe(self) -> Description:
        """What people see."""
        return Description("mixed tower", "4@1", VOCABULARY, DIM, None, 96)

    def stages(self) -> list[Stage]:
        """The only one."""
        pairs = layer_caches(4, self.config.key_value_heads, self.config.head_dim)
        caches = (
            CacheSpec(name="0.rows", heads=1, width=DIM),
            *pairs[2:4],
            CacheSpec(name="2.sum", heads=1, width=DIM, recurrent=True),
            *pairs[6:8],
        )
        spec = StageSpec(
            name="1",
            stride=1,
            inputs=(InputSpec(kind="tokens"),),
            output="logits",
            width=VOCABULARY,
            layers=4,
            caches=caches,
            parameters=count_parameters(self.stage),
        )
        return [Stage(spec, self.stage)]
