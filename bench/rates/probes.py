"""Models of next to no weights, run as any model is: what calls, layers and cached rows take by themselves.

Their numbers of layers and stages differ by whole ones, so that differences of their times are those of a layer and of a stage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from ...forecast.rates import EngineRates, Reads
from ...forecast.shapes import shape_of_bundle
from ...models.architectures import build_model
from ...models.config import ModelConfig
from ...progress import Progress
from ...runtime.model import Model, load
from ..random_models import CALIBRATION_TOKENS
from .cache_size import out_of_memory
from .timed import Timed

ONE, MANY, NESTED = "1@1", "9@1", "1@1 1@2 1@1"
LOOKING_BACK = "12@1"
"""A model of narrow rows and wide heads: all it reads are keys and values."""
READING = "4@1"
"""A model of usual proportions: there norms, activations and rounding count beside products."""
_HEADS, _HEAD_DIM = 8, 64
POSITIONS = (128, 384, 640, 1024, 1792, 3072)
PROMPT = 256
"""Tokens."""


def _config(hierarchy: str) -> ModelConfig:
    sizes = {"dim": 32, "heads": 2, "head_dim": 16, "ff_dim": 128, "max_positions": PROMPT}
    if hierarchy == LOOKING_BACK:
        sizes |= {"heads": _HEADS, "head_dim": _HEAD_DIM, "ff_dim": 32, "max_positions": POSITIONS[-1] + 1}
    elif hierarchy == READING:
        sizes |= {"dim": 256, "heads": 4, "head_dim": 64, "ff_dim": 1024}
    return ModelConfig(hierarchy=hierarchy, vocab_size=256, **sizes)  # type: ignore[arg-type]


def build_probes(directory: Path, precisions: Sequence[str], text: Path, on_progress: Progress) -> None:
    """Write the bundles that are not there yet, for `cpu`, each at `directory / hierarchy / precision`.

    Raises:
        BackendUnavailable: what exports models is not installed.
    """
    import torch

    from ...calibration.settings import CalibrationSettings
    from ...export import build, convert_model

    settings = CalibrationSettings(max_tokens=min(CALIBRATION_TOKENS, 4096))
    hierarchies = ONE, MANY, NESTED, LOOKING_BACK, READING
    for number, hierarchy in enumerate(hierarchies):
        on_progress(f"building the probe {hierarchy}", number, len(hierarchies))
        torch.manual_seed(0)
        full = directory / hierarchy / "fp32"
        if not full.exists():
            convert_model(build_model(_config(hierarchy)).eval(), full, tokenizer="bytes")
        for precision in precisions:
            place = directory / hierarchy / precision
            if not place.exists():
                build(full, place, precision, calibration=[text], settings=settings)


class Probe:
    """One of them, loaded."""

    def __init__(self, directory: Path, hierarchy: str, precision: str, threads: int, native: bool) -> None:
        self.model: Model = load(directory / hierarchy / precision, "cpu", threads, native=native)

    def timed_at(self, position: int) -> Timed:
        """Of a step behind so many tokens, in a session of its own that has read them."""
        session, token = self.model.session(capacity=position + 1), np.zeros((1, 1), np.int64)
        session.advance(np.zeros((1, position), np.int64), last_only=True)

        def step() -> None:
            session.rewind(session.position - position)
            session.advance(token, last_only=True)

        return Timed(step)


class Usual:
    """The model of usual proportions: what of its steps is neither bytes nor overhead of small ones, and its prompts."""

    def __init__(self, directory: Path, precision: str, threads: int, native: bool) -> None:
        probe = Probe(directory, READING, precision, threads, native)
        model = probe.model
        self._shape = shape_of_bundle(model.bundle, on_gpu=False)
        session, ids = model.session(), np.zeros((1, PROMPT), np.int64)

        def read() -> None:
            session.reset()
            session.advance(ids, last_only=True)

        (spec,) = model.specs
        tables = (self._shape.vocab_size + PROMPT) * self._shape.dim  # the head is that of tokens, for one row
        rows = sum(cache.heads * cache.width for cache in spec.caches) * PROMPT / 2
        self._flops = 2 * PROMPT * (spec.parameters - tables + rows)
        self.step, self.prompt = probe.timed_at(1), Timed(read)

    def column_s(self, rates: EngineRates, step_s: float) -> float:
        """Seconds of a layer for each column, by rates that leave them out."""
        (stage,) = self._shape.stages
        weights = stage.weight_bytes / rates.weights.cached  # it fits: that is what it is small for
        beside = step_s + weights + rates.launch_s(stage.spec.layers, stage.products, 0)
        return max(self.step.seconds - beside, 0.0) / stage.spec.layers / self._shape.columns

    @property
    def flops(self) -> float:
        """Floating-point operations per second in prompts: two for each multiplication, attention's included."""
        return self._flops / self.prompt.seconds


class Overheads:
    """Of a kind of engines, in a precision: what a step, a stage and a layer take."""

    def __init__(self, directory: Path, precision: str, threads: int, native: bool) -> None:
        at = 16  # a multiple of the stride: all stages fire
        names = ONE, MANY, NESTED
        self._timed = {name: Probe(directory, name, precision, threads, native).timed_at(at) for name in names}

    def timed(self) -> Iterator[Timed]:
        """All that are to be timed."""
        yield from self._timed.values()

    @property
    def layer_s(self) -> float:
        """Of the eight layers that one probe has more than another."""
        return max((self._timed[MANY].seconds - self._timed[ONE].seconds) / 8, 0.0)

    @property
    def stage_s(self) -> float:
        """Of the two stages that one has more, each with a layer."""
        return max((self._timed[NESTED].seconds - self._timed[ONE].seconds) / 2 - self.layer_s, 0.0)

    @property
    def step_s(self) -> float:
        """What is left of the smallest."""
        return max(self._timed[ONE].seconds - self.layer_s - self.stage_s, 0.0)


class CachedRows:
    """How fast keys and values are read, by how many there are."""

    def __init__(self, directory: Path, precision: str, threads: int, native: bool) -> None:
        probe = Probe(directory, LOOKING_BACK, precision, threads, native)
        (entry,) = probe.model.manifest.stages
        self._row_bytes = probe.model.bundle.cache_bytes_per_row("cpu", entry.spec)
        self._first = probe.timed_at(1)
        self._timed = {position: probe.timed_at(position) for position in POSITIONS}

    def timed(self) -> Iterator[Timed]:
        """All that are to be timed."""
        yield self._first
        yield from self._timed.values()

    def reads(self, cache_bytes: float) -> Reads:
        """Out of a cache of so many bytes, by the quickest that fits, and out of memory, by the longest."""
        found = [(position * self._row_bytes, timed.seconds - self._first.seconds) for position, timed in self._timed.items()]
        seconds = [(read, max(taken / read, 1e-12)) for read, taken in found]
        cached = median([each for read, each in seconds if read <= cache_bytes] or [seconds[0][1]])
        memory = out_of_memory(*seconds[-1], cached, cache_bytes)
        return Reads(1 / cached, 1 / memory)
