"""A small model whose own rows decide when its middle fires, with all that such stages may read and remember."""

from __future__ import annotations

import torch
from specimens import Specimen
from store import Store
from torch import Tensor, nn

from foveal.bundle import open_bundle
from foveal.contract import CacheSpec, ClockSpec, InputSpec, StageSpec
from foveal.export import convert_model
from foveal.models import Description, Spans, Stage, count_parameters
from foveal.models.architecture import State
from foveal.models.config import LayerConfig
from foveal.models.layers.head import Head
from foveal.models.layers.stack import Stack

DECAY = 0.8


class Fading(nn.Module):
    """A sum of rows in which older ones count less: `s[t] = DECAY * s[t - 1] + x[t]`."""

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        """Rows `[B, L, D]` and the sum before them `[B, D]` -> the sums `[B, L, D]`."""
        places = torch.arange(x.shape[1])
        apart = places[:, None] - places[None, :]
        shares = torch.where(apart >= 0, DECAY ** apart.clamp(min=0).to(x.dtype), 0.0)
        first = DECAY ** (places + 1).to(x.dtype)
        return shares @ x + first[:, None] * before[:, None, :]


class Fine(nn.Module):
    """Each token with the two before it, layers, a fading sum; the last column says whether a group ends."""

    def __init__(self, dim: int, embed: nn.Embedding, stack: Stack) -> None:
        super().__init__()
        self.embed, self.stack, self.fading = embed, stack, Fading()
        self.near, self.ends = nn.Linear(3 * dim, dim), nn.Linear(dim, 1)

    def forward(self, inputs: list[Tensor], state: State, logit_rows: Tensor | None) -> Tensor:
        """Ids `[B, 3 * L]` -> rows `[B, L, D + 1]`."""
        near = self.embed(inputs[0])
        x = self.stack.step(self.near(near.reshape(near.shape[0], -1, 3 * near.shape[2])), state)
        sums = self.fading(x, state.read("sum")[:, 0, 0])
        state.replace("sum", sums[:, None, -1:])
        return self.rows(x, sums)

    def rows(self, x: Tensor, sums: Tensor) -> Tensor:
        """With the column that decides."""
        y = x + sums
        return torch.cat([y, self.ends(y)], -1)


class Coarse(nn.Module):
    """The average of each group and the largest of a projection of it, layers; two rows for each group."""

    def __init__(self, dim: int, stack: Stack) -> None:
        super().__init__()
        self.dim, self.stack = dim, stack
        self.null, self.seen, self.two = nn.Parameter(torch.randn(dim)), nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)

    def forward(self, inputs: list[Spans], state: State, logit_rows: Tensor | None) -> Tensor:
        """Spans of rows `[B, M, D + 1]` -> `[B, 2 * L, D]`; before there is a token a row of its own."""
        spans = inputs[0]
        fine = spans.rows[:, :, : self.dim]
        seen = spans.gather(self.seen(fine))
        largest = torch.where(spans.mask[..., None], seen, -1e9).amax(2)
        means = spans.mean()[..., : self.dim]
        is_first = state.positions(means.shape[1]) == 0
        return self.rows(torch.where(is_first[..., None], self.null, means + largest), state)

    def rows(self, x: Tensor, state: State | None) -> Tensor:
        """Of groups `[B, L, D]`."""
        y = self.stack(x) if state is None else self.stack.step(x, state)
        return self.two(y).reshape(y.shape[0], -1, self.dim)


class Last(nn.Module):
    """Each token with the two rows of the newest group -> logits."""

    def __init__(self, dim: int, vocab_size: int, stack: Stack) -> None:
        super().__init__()
        self.dim, self.stack = dim, stack
        self.both, self.head = nn.Linear(2 * dim, dim), Head(dim, vocab_size, 1e-5)

    def forward(self, inputs: list[Tensor], state: State, logit_rows: Tensor | None) -> Tensor:
        """Rows `[B, L, D + 1]` and `[B, 2 * L, D]` -> logits `[B, N, V]`."""
        fine, coarse = inputs
        x = self.stack.step(self.merged(fine, coarse), state)
        return self.head(x if logit_rows is None else x.index_select(1, logit_rows))

    def merged(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """`[B, L, D]`."""
        return fine[..., : self.dim] + self.both(coarse.reshape(coarse.shape[0], -1, 2 * self.dim))


class Grouping(nn.Module):
    """Three stages; the middle one fires before there is a token, and then for every fine row whose last column is above 0."""

    def __init__(self, dim: int = 32, vocab_size: int = 41) -> None:
        super().__init__()
        self.dim, self.vocab_size = dim, vocab_size
        layers = LayerConfig(dim=dim, heads=2, head_dim=16, ff_dim=2 * dim, rotary_base=1e4)
        self.fine = Fine(dim, nn.Embedding(vocab_size, dim), Stack(layers, 1))
        self.coarse, self.last = Coarse(dim, Stack(layers, 2)), Last(dim, vocab_size, Stack(layers, 1))

    def describe(self) -> Description:
        """As `Architecture.describe`."""
        return Description("grouping", "1@1 2@~2 1@1", self.vocab_size, self.dim, None, 96)

    def stages(self) -> list[Stage]:
        """As `Architecture.stages`."""
        width, clock = self.dim + 1, ClockSpec(stage="fine", most=9, tokens_per_firing=2.0)
        ids = InputSpec(kind="tokens", count=3, reads="newest")
        span = InputSpec(kind="window", source="fine", width=width, reads="span")
        row = InputSpec(kind="stream", source="fine", width=width)
        newest = InputSpec(kind="context", source="coarse", width=self.dim, count=2, reads="newest")
        fading = CacheSpec(name="sum", heads=1, width=self.dim, recurrent=True)
        return [
            _stage("fine", self.fine, (ids,), "hidden", width, (fading,)),
            _stage("coarse", self.coarse, (span,), "hidden", self.dim, clock=clock, fires="ahead", output_rows=2),
            _stage("last", self.last, (row, newest), "logits", self.vocab_size),
        ]

    def forward(self, ids: Tensor) -> Tensor:
        """Logits `[B, L, V]` of ids `[B, L]`, sequence by sequence, from the definitions."""
        return torch.cat([self._one(each) for each in ids])

    def _one(self, ids: Tensor) -> Tensor:
        fine, dim = self.fine, self.dim
        before = torch.cat([ids.new_zeros(2), ids])
        near = torch.cat([fine.embed(before[place : place + len(ids)]) for place in range(3)], -1)
        x = fine.stack(fine.near(near)[None])[0]
        sums = [x[0]]
        for row in x[1:]:
            sums.append(DECAY * sums[-1] + row)
        rows = fine.rows(x, torch.stack(sums))
        groups, served, begin = [self.coarse.null], [], 0
        for token, value in enumerate(rows[:, -1]):
            if value > 0 or token + 1 - begin == 9:
                of_group = rows[begin : token + 1, :dim]
                groups.append(of_group.mean(0) + self.coarse.seen(of_group).amax(0))
                begin = token + 1
            served.append(len(groups) - 1)
        coarse = self.coarse.rows(torch.stack(groups)[None], None)[0].reshape(-1, 2, dim)
        merged = self.last.merged(rows[None], coarse[served].reshape(1, -1, dim))
        return self.last.head(self.last.stack(merged))


def _stage(
    name: str,
    module: nn.Module,
    inputs: tuple[InputSpec, ...],
    output: str,
    width: int,
    caches: tuple[CacheSpec, ...] = (),
    **fires: object,
) -> Stage:
    stack = module.stack
    fields = {
        "layers": len(stack.layers),
        "caches": (*stack.caches(), *caches),
        "parameters": count_parameters(module),
        **fires,
    }
    spec = StageSpec(name=name, stride=1, inputs=inputs, output=output, width=width, **fields)  # type: ignore[arg-type]
    return Stage(spec, module)


def grouping_model(**sizes: int) -> Grouping:
    """One whose groups have between 1 and 9 tokens."""
    torch.manual_seed(3)
    model = Grouping(**sizes).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def grouping(store: Store) -> Specimen:
    """The model and its bundle, converted once in a run."""
    model = grouping_model()
    made = store.once("grouping", lambda directory: convert_model(model, directory / "grouping"))
    return Specimen(model, open_bundle(made / "grouping"))  # type: ignore[arg-type]
