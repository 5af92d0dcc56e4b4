"""This machine as a device of a forecast: what has to be measured for the precisions that are asked about, all in turns."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import sleep

import msgspec
import numpy as np

from ...forecast.devices import Engines, MeasuredDevice
from ...forecast.rates import EngineRates, Rates, Reads
from ...progress import Progress, silent
from ..environment import read_environment
from .native_products import MappedFile
from .probes import CachedRows, Overheads, Usual, build_probes
from .products import FILE_BYTES, ProductRates
from .timed import Timed

ROUNDS = 3
QUIET_S = 0.1
"""After ONNX Runtime has run: so long its threads may look for more, and take a core from native steps."""
_FORMATS = {"fp16": "fp32"}
"""Precisions that CPU engines multiply as another."""
_LOGITS = 1 << 15
_TEXT = Path(__file__).parents[2] / "models" / "checkpoints" / "text" / "calibration.txt"


@dataclass(frozen=True)
class _Parts:
    """What one kind of engines is measured by, in one precision."""

    products: ProductRates
    overheads: Overheads
    cached: CachedRows
    usual: Usual

    def timed(self) -> Iterator[Timed]:
        """All that are to be timed; prompts last, after which ONNX Runtime's threads are busy for a while."""
        yield from self.products.chains()
        yield from self.overheads.timed()
        yield from self.cached.timed()
        yield self.usual.step
        yield self.usual.prompt

    def rates(self, cache_bytes: float) -> EngineRates:
        """By the samples so far, with a cache of so many bytes."""
        split = self.products.split
        rates = EngineRates(
            stage_s=self.overheads.stage_s,
            layer_s=self.overheads.layer_s,
            product_s=self.products.product_s,
            weights=Reads(1 / split.cached, 1 / split.memory),
            caches=self.cached.reads(cache_bytes),
            flops=self.usual.flops,
        )
        return msgspec.structs.replace(rates, column_s=self.usual.column_s(rates, self.overheads.step_s))


@dataclass
class MachineRates:
    """Everything that is timed, ready to be; as a context manager it removes its files at the end.

    Args:
        kinds: of engines, `native`, `graph` or both.
        precisions: of which rates are wanted.
        threads: of all engines.
        probes: where to keep what is timed; None: it is built again each time.
    """

    kinds: Sequence[Engines]
    precisions: Sequence[str]
    threads: int
    on_progress: Progress = silent
    probes: Path | None = None
    _parts: dict[tuple[Engines, str], _Parts] = field(default_factory=dict)

    def __enter__(self) -> MachineRates:
        self._folder = TemporaryDirectory(prefix="foveal-rates-")
        directory = Path(self._folder.name)
        probes = directory if self.probes is None else self.probes
        build_probes(probes, self.precisions, _TEXT, self.on_progress)
        file = MappedFile(directory / "weights", FILE_BYTES) if "native" in self.kinds else None
        cases = [(kind, precision) for kind in self.kinds for precision in self.precisions]
        for number, (kind, precision) in enumerate(cases):
            self.on_progress(f"preparing {kind} {precision}", number, len(cases))
            name, native = _FORMATS.get(precision, precision), kind == "native"
            self._parts[kind, precision] = _Parts(
                products=ProductRates(name, self.threads, file if native else None),
                overheads=Overheads(probes, precision, self.threads, native),
                cached=CachedRows(probes, precision, self.threads, native),
                usual=Usual(probes, precision, self.threads, native),
            )
        logits = np.random.default_rng(0).standard_normal((1, 1, _LOGITS), np.float32)
        self._logits = Timed(lambda: logits.copy()[:, 0].argmax(-1))  # a session gives them away, and the likeliest is taken
        return self

    def __exit__(self, *_: object) -> None:
        self._parts.clear()
        self._folder.cleanup()

    def sample(self) -> None:
        """Time everything once more."""
        self._logits.sample()
        for parts in self._parts.values():
            sleep(QUIET_S)
            for timed in parts.timed():
                timed.sample()

    def device(self) -> MeasuredDevice:
        """By the samples so far, at least one."""
        environment = read_environment()
        return MeasuredDevice(
            title=f"this machine ({environment.cpu or platform.machine()}, {self.threads} threads)",
            created_utc=environment.created_utc,
            threads=self.threads,
            memory_bytes=environment.memory_bytes,
            by_engines={kind: self._rates(kind) for kind in self.kinds},
        )

    def _rates(self, kind: Engines) -> Rates:
        parts = {precision: self._parts[kind, precision] for precision in self.precisions}
        cache_bytes = median(part.products.split.cache_bytes for part in self._parts.values())
        return Rates(
            step_s=median(part.overheads.step_s for part in parts.values()),
            logit_s=self._logits.seconds / _LOGITS,
            cache_bytes=cache_bytes,
            engines={precision: part.rates(cache_bytes) for precision, part in parts.items()},
        )


def measure_machine(
    kinds: Sequence[Engines], precisions: Sequence[str], threads: int, on_progress: Progress = silent
) -> MeasuredDevice:
    """Build what is timed, time it in a few rounds, and forget it.

    Raises:
        BackendUnavailable: what builds the probes, or foveal-native for `native`, is not installed.
    """
    with MachineRates(kinds, precisions, threads, on_progress) as rates:
        for number in range(ROUNDS):
            on_progress("timing", number, ROUNDS)
            rates.sample()
        return rates.device()
