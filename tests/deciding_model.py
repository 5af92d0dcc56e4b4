"""A small PyTorch model whose middle fires when its first stage says so: to convert, and to hold to its full forward."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from store import Store
from torch import Tensor, nn

from foveal.contract import CacheSpec, ClockSpec, InputSpec, StageSpec
from foveal.export import convert_model
from foveal.models import Description, Spans, Stage, State, count_parameters
from foveal.models.config import LayerConfig
from foveal.models.layers.head import Head
from foveal.models.layers.stack import Stack

DIM, VOCABULARY, CONTEXT = 16, 256, 96
_LAYER = LayerConfig(dim=DIM, heads=2, head_dim=8, ff_dim=32, rotary_base=10_000.0)


class Fading(nn.Module):
    """A sum of all rows so far, older ones fading: `s[t] = decay * s[t - 1] + x[t]`; recurrent."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.linspace(-1.0, 1.0, DIM))

    def forward(self, x: Tensor, before: Tensor | None = None) -> Tensor:
        """Sums `[B, L, D]` of rows `[B, L, D]` behind the sum before `[B, D]`, in one product over all pairs of rows."""
        decay = torch.sigmoid(self.rate)
        rows = torch.arange(x.shape[1])
        ages = rows[:, None] - rows[None, :]  # [L, L]
        weights = torch.where(ages[..., None] >= 0, decay ** ages.clamp(min=0)[..., None], 0.0)  # [L, L, D]
        sums = (weights[None] * x[:, None]).sum(2)
        if before is None:
            return sums
        first = (before * decay)[:, None]  # the one operation that reads the state
        found: Tensor = sums + first * decay ** rows[:, None].to(x.dtype)
        return found


class Pre(nn.Module):
    """Tokens to rows, the last column of which says how much a group ends here."""

    def __init__(self, model: Deciding) -> None:
        super().__init__()
        self.embed, self.stack, self.ends = model.embed, model.pre, model.ends

    def forward(self, inputs: Sequence[Tensor], state: State, logit_rows: Tensor | None = None) -> Tensor:
        """As `StageModule`."""
        x = self.stack.step(self.embed(inputs[0]), state)
        return torch.cat([x, self.ends(x)], -1)


class Middle(nn.Module):
    """The mean of each group, and the newest two ids, to a row; the first row, before there is any group, is learned."""

    def __init__(self, model: Deciding) -> None:
        super().__init__()
        self.embed, self.stack, self.null = model.embed, model.middle, model.null

    def forward(self, inputs: Sequence[Spans | Tensor], state: State, logit_rows: Tensor | None = None) -> Tensor:
        """As `StageModule`."""
        spans, ids = inputs
        mean = spans.mean()[..., :DIM]
        newest = self.embed(ids.reshape(mean.shape[0], mean.shape[1], 2)).sum(2)
        is_first = state.positions(mean.shape[1]) == 0
        return self.stack.step(torch.where(is_first[..., None], self.null, mean + newest), state)


class Post(nn.Module):
    """Rows of the tokens and the newest row of the middle to logits; with a state of its own."""

    def __init__(self, model: Deciding) -> None:
        super().__init__()
        self.fading, self.stack, self.head = model.fading, model.post, model.head

    def forward(self, inputs: Sequence[Tensor], state: State, logit_rows: Tensor | None = None) -> Tensor:
        """As `StageModule`."""
        x = inputs[0][..., :DIM] + inputs[1]
        if self.fading is not None:
            sums = self.fading(x, state.read("sum")[:, 0, 0])
            state.replace("sum", sums[:, None, -1:])
            x = x + sums
        x = self.stack.step(x, state)
        y: Tensor = self.head(x if logit_rows is None else x.index_select(1, logit_rows))
        return y


class Deciding(nn.Module):
    """Three towers, of which the second sees groups that the first one ends.

    Args:
        recurrent: whether the last one has a state that each token replaces.
        threshold: of the first tower's last column.
    """

    def __init__(self, recurrent: bool = False, threshold: float = 0.3) -> None:
        super().__init__()
        self.threshold = threshold
        self.embed = nn.Embedding(VOCABULARY, DIM)
        self.pre, self.middle, self.post = Stack(_LAYER, 1), Stack(_LAYER, 2), Stack(_LAYER, 1)
        self.ends, self.null = nn.Linear(DIM, 1), nn.Parameter(torch.randn(DIM))
        self.fading = Fading() if recurrent else None
        self.head = Head(DIM, VOCABULARY, 1e-5)

    def describe(self) -> Description:
        """What it is."""
        return Description(
            architecture="deciding",
            hierarchy="1@1 2@~3 1@1",
            vocab_size=VOCABULARY,
            dim=DIM,
            max_positions=None,
            context=CONTEXT,
        )

    def stages(self) -> list[Stage]:
        """`pre`, `middle` and `post`."""
        clock = ClockSpec(stage="pre", threshold=self.threshold, tokens_per_firing=3)
        rows = InputSpec(kind="stream", source="pre", width=DIM + 1)
        groups = InputSpec(kind="window", source="pre", width=DIM + 1, reads="span")
        ids = InputSpec(kind="tokens", count=2, reads="newest")
        newest = InputSpec(kind="context", source="middle", width=DIM, reads="newest")
        state = (CacheSpec(name="sum", heads=1, width=DIM, recurrent=True),) if self.fading is not None else ()

        def stage(name: str, module: nn.Module, stack: Stack, inputs: tuple[InputSpec, ...], **more: object) -> Stage:
            fields = {"output": "hidden", "width": DIM, "caches": stack.caches(), **more}
            spec = StageSpec(
                name=name, stride=1, inputs=inputs, layers=len(stack.layers), parameters=count_parameters(module), **fields
            )
            return Stage(spec, module)

        post = {"output": "logits", "width": VOCABULARY, "caches": (*self.post.caches(), *state)}
        return [
            stage("pre", Pre(self), self.pre, (InputSpec(kind="tokens"),), width=DIM + 1),
            stage("middle", Middle(self), self.middle, (groups, ids), clock=clock, fires="ahead"),
            stage("post", Post(self), self.post, (rows, newest), **post),
        ]

    def forward(self, ids: Tensor) -> Tensor:
        """Ids `[B, L]` -> logits `[B, L, V]`, sequence by sequence."""
        return torch.cat([self._one(one) for one in ids])

    def _one(self, ids: Tensor) -> Tensor:
        rows = self.pre(self.embed(ids[None]))[0]  # [L, D]
        ends = torch.nonzero(self.ends(rows)[:, 0] > self.threshold)[:, 0].tolist()
        groups, start = [self.null], 0
        padded = torch.cat([ids.new_zeros(1), ids])
        for end in ends:
            groups.append(rows[start : end + 1].mean(0) + self.embed(padded[end : end + 2]).sum(0))
            start = end + 1
        middle = self.middle(torch.stack(groups)[None])[0]
        served = torch.tensor([sum(end <= token for end in ends) for token in range(len(ids))])
        x = (rows + middle[served])[None]
        if self.fading is not None:
            x = x + self.fading(x)
        y: Tensor = self.head(self.post(x))
        return y


def deciding(recurrent: bool = False, seed: int = 0) -> Deciding:
    """One with random weights."""
    torch.manual_seed(seed)
    return Deciding(recurrent).eval()


def deciding_bundle(store: Store) -> Path:
    """The same, converted once in a run, with bytes for a tokenizer."""
    return store.once("deciding", lambda to: convert_model(deciding(), to, tokenizer="bytes"))
