"""H-Net: the model decides by itself which rows of a scale make a row of the next one (arXiv 2507.07955).

Hwang et al., "Dynamic Chunking for End-to-End Hierarchical Sequence Modeling", github.com/goombalab/hnet at 3673fe1, with any
number of stages. Bytes go through an encoder; those that are unlike the byte before them begin a chunk, and their rows alone go
on to the next scale, where the same may happen again. What comes back is smoothed over the rows of the coarse scale, and each
row is served the newest of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...contract import CacheSpec, ClockSpec, InputSpec, StageSpec
from ..architecture import Description, Stage, count_parameters
from ..layers.initialise import initialise
from .config import HNetConfig, ScaleConfig, layers_of
from .router import THRESHOLD, Router, begins
from .smoothing import smooth
from .stages import Decode, DecodeTokens, Encode, EncodePicked, Innermost, ToLogits, Widen
from .tower import Tower


class Scale(nn.Module):
    """What one scale has around the next: towers, the router between them, and the way past the next scale."""

    def __init__(self, config: HNetConfig, scale: ScaleConfig, around: int) -> None:
        super().__init__()
        self.widen = Widen(around, scale.dim)
        self.encoder, self.decoder = (Tower(config, scale, layout) for layout in scale.towers)
        self.router = Router(scale.dim)
        self.residual = nn.Linear(scale.dim, scale.dim)


class Core(nn.Module):
    """The innermost scale."""

    def __init__(self, config: HNetConfig, scale: ScaleConfig, around: int) -> None:
        super().__init__()
        self.widen = Widen(around, scale.dim)
        self.tower = Tower(config, scale, *scale.towers)


class HNet(nn.Module):
    """Token ids to next-token logits; `logits[t]` predicts token t+1."""

    def __init__(self, config: HNetConfig) -> None:
        super().__init__()
        self.config = config
        *outer, inner = config.scales
        dims = [config.scales[0].dim, *(scale.dim for scale in config.scales)]
        self.embed = nn.Embedding(config.vocab_size, dims[0])
        self.scales = nn.ModuleList(Scale(config, scale, dims[place]) for place, scale in enumerate(outer))
        self.core = Core(config, inner, dims[-2])
        self.exit = ToLogits(dims[0], config.vocab_size)
        if config.tied:
            self.exit.logits.weight = self.embed.weight
        initialise(self, sum(len(layers_of(layout)) for scale in config.scales for layout in scale.towers))
        for scale in self._outer():
            for linear in (scale.router.query, scale.router.key):
                nn.init.eye_(linear.weight)

    def describe(self) -> Description:
        """What it is."""
        config = self.config
        names = [_stride_of(config, place) for place in range(len(config.scales))]
        down = [f"{len(layers_of(scale.towers[0]))}@{name}" for scale, name in zip(config.scales, names, strict=True)]
        up = [f"{len(layers_of(scale.towers[1]))}@{name}" for scale, name in zip(config.scales[:-1], names[:-1], strict=True)]
        return Description(
            architecture="hnet",
            hierarchy=" ".join((*down, *reversed(up))),
            vocab_size=config.vocab_size,
            dim=config.scales[0].dim,
            max_positions=None,
            context=config.context,
        )

    def stages(self) -> list[Stage]:
        """Encoders, the innermost tower, decoders; those of an inner scale fire where the encoder around it says so."""
        encoders = [self._encoder(place, scale) for place, scale in enumerate(self._outer())]
        decoders = [self._decoder(place, scale) for place, scale in enumerate(self._outer())]
        return [*encoders, self._innermost(), *reversed(decoders)]

    def forward(self, ids: Tensor) -> Tensor:
        """Ids `[B, L]`, int64 -> logits `[B, L, V]`, all at once, no state."""
        logits: Tensor = self.exit(self._scale(0, self.embed(ids), []))
        return logits

    def chances(self, ids: Tensor) -> list[Tensor]:
        """That rows begin a chunk, `[B, rows]` for each scale but the innermost; rows beyond a sequence's own mean nothing."""
        found: list[Tensor] = []
        self._scale(0, self.embed(ids), found)
        return found

    def _scale(self, place: int, x: Tensor, found: list[Tensor]) -> Tensor:
        """Rows `[B, L, D]` of a scale through it and all inside; what its router says is added to `found`."""
        scales = self._outer()
        if place == len(scales):
            return self.core.tower(self.core.widen(x))[..., : x.shape[2]]  # type: ignore[no-any-return]
        scale = scales[place]
        rows = scale.encoder(scale.widen(x))
        chances = scale.router(rows)
        found.append(chances)
        fires = begins(chances)
        picked = _picked(fires)  # [B, F]
        z = self._scale(place + 1, _rows(rows, picked), found)
        mixed = smooth(z, chances.gather(1, picked))
        coarse = _rows(mixed, fires.cumsum(1) - 1)
        y: Tensor = scale.decoder(coarse + scale.residual(rows))
        return y[..., : x.shape[2]]

    def _outer(self) -> list[Scale]:
        return [scale for scale in self.scales if isinstance(scale, Scale)]

    def _clock(self, place: int) -> ClockSpec | None:
        """When the stages of a scale fire; the outermost with every token."""
        if place == 0:
            return None
        return ClockSpec(
            stage=_encoder_name(place - 1),
            column=-1,
            threshold=THRESHOLD,
            firsts=1,
            tokens_per_firing=self.config.chunk**place,
        )

    def _encoder(self, place: int, scale: Scale) -> Stage:
        module: Encode | EncodePicked
        if place == 0:
            inputs, module = InputSpec(kind="tokens"), Encode(self.embed, scale.encoder, scale.router)
        else:
            inputs, module = self._picked_rows(place), EncodePicked(scale.widen, scale.encoder, scale.router)
        caches = (*scale.encoder.caches(), module.last.cache)
        return self._stage(_encoder_name(place), place, (inputs,), module, scale.encoder, caches, self._row_width(place))

    def _innermost(self) -> Stage:
        place, narrow = len(self.scales), self.core.widen.dim
        module = Innermost(self.core.widen, self.core.tower)
        caches = (*self.core.tower.caches(), module.last.cache)
        return self._stage("main", place, (self._picked_rows(place),), module, self.core.tower, caches, narrow)

    def _decoder(self, place: int, scale: Scale) -> Stage:
        inner = "main" if place == len(self.scales) - 1 else _decoder_name(place + 1)
        dim, narrow = scale.decoder.dim, scale.widen.dim
        coarse = InputSpec(kind="context", source=inner, width=dim, reads="newest")
        own = InputSpec(kind="stream", source=_encoder_name(place), width=self._row_width(place))
        name, inputs = _decoder_name(place), (coarse, own)
        if place == 0:
            last = DecodeTokens(scale.residual, scale.decoder, self.exit)
            return self._stage(name, place, inputs, last, scale.decoder, scale.decoder.caches(), self.config.vocab_size)
        module = Decode(scale.residual, scale.decoder, narrow)
        caches = (*scale.decoder.caches(), module.last.cache)
        return self._stage(name, place, inputs, module, scale.decoder, caches, narrow)

    def _picked_rows(self, place: int) -> InputSpec:
        """The row of the encoder around a scale that made it fire."""
        return InputSpec(kind="window", source=_encoder_name(place - 1), width=self._row_width(place - 1), reads="newest")

    def _row_width(self, place: int) -> int:
        """Of an encoder: its rows, the chance of the row that each was picked from, and its own."""
        return self.config.scales[place].dim + (1 if place == 0 else 2)

    def _stage(
        self,
        name: str,
        place: int,
        inputs: tuple[InputSpec, ...],
        module: nn.Module,
        tower: Tower,
        caches: tuple[CacheSpec, ...],
        width: int,
    ) -> Stage:
        has_router = isinstance(module, (Encode, EncodePicked))  # which knows the first row by its position
        spec = StageSpec(
            name=name,
            stride=1,
            clock=self._clock(place),
            inputs=inputs,
            output="logits" if isinstance(module, DecodeTokens) else "hidden",
            width=width,
            layers=len(tower.layers),
            caches=caches,
            parameters=count_parameters(module),
            uses_position=has_router or any(not cache.recurrent for cache in caches),
        )
        return Stage(spec, module)


def _encoder_name(place: int) -> str:
    return f"encoder.{place}"


def _decoder_name(place: int) -> str:
    return f"decoder.{place}"


def _stride_of(config: HNetConfig, place: int) -> str:
    """Of a scale: tokens of its rows, which for inner ones is an expectation."""
    return "1" if place == 0 else f"~{config.chunk**place:.3g}"


def _picked(fires: Tensor) -> Tensor:
    """Places of the rows that begin chunks, `[B, F]`; sequences of fewer are filled up with other rows, which come after all of
    theirs, so that nothing causal sees them."""
    order = torch.arange(fires.shape[1], device=fires.device) + ~fires * fires.shape[1]
    return order.sort(1).indices[:, : int(fires.sum(1).max())]


def _rows(x: Tensor, places: Tensor) -> Tensor:
    """Of `[B, L, D]` those at places `[B, n]`."""
    return x.gather(1, places[:, :, None].expand(-1, -1, x.shape[2]))
