"""Stream text through a running bundle and record what every stage's matrix products see."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from ..bundle import Bundle, open_bundle
from ..errors import CalibrationError, ConfigError, unavailable
from ..files import keep, scratch_directory
from ..json_files import decode
from ..progress import Progress, left, silent
from ..runtime.model import Model, load
from ..runtime.rows import Array
from ..runtime.schedules import firings_of
from ..runtime.session import Session
from ..storage import storage_errors
from .ranges import CacheRanges, ProductRanges
from .settings import CalibrationSettings
from .text import Texts, read_ids, windows

_log = logging.getLogger(__name__)
FLOOR = 128
"""Rows that each stage must have seen at each of its phases."""
FORMAT = 3
"""Of the cache's files; another number makes another key."""


@dataclass
class Calibration:
    """What a text showed of a bundle's stages.

    Attributes:
        key: SHA-256 of the graphs, the token ids and the settings.
        tokens: tokens seen.
        coverage: rows of every stage at every phase, `{stage: {phase: rows}}`. A phase is the token's index modulo the
            coarsest stride, so a stage of stride 16 under that stride has one, and a sixteenth of the rows. A stage whose
            firings the data decides has one phase, 0, and the rows that the text really fired.
        products: by name.
        caches: by attention, as `"4/attention/0"` for layer 0 of stage 4.
    """

    key: str
    settings: CalibrationSettings
    tokens: int = 0
    coverage: dict[str, Counter[int]] = field(default_factory=dict)
    products: dict[str, ProductRanges] = field(default_factory=dict)
    caches: dict[str, CacheRanges] = field(default_factory=dict)

    def hear_product(self, name: str, x: Array, y: Array) -> None:
        """As `Listener.hear_product`."""
        self.products.setdefault(name, ProductRanges.empty(x.shape[1])).add(x, y)

    def hear_cache(self, name: str, keys: Array, values: Array) -> None:
        """As `Listener.hear_cache`."""
        self.caches.setdefault(name, CacheRanges()).add(keys, values)

    def threshold(self, product: str) -> float:
        """The magnitude that 127 stands for in this product's int8 input."""
        return self.products[product].threshold(self.settings.method, self.settings.percentile)


@storage_errors()
def calibrate(
    bundle: str | Path | Bundle,
    texts: Texts,
    settings: CalibrationSettings | None = None,
    *,
    threads: int | None = None,
    on_progress: Progress | None = None,
) -> Calibration:
    """Record activation ranges of an fp32 bundle with CPU engines, in memory that does not grow with the text.

    The result is kept in the bundle's `reports/`, under a name made of the graphs, the text and the settings; the same call
    finds it again. It is written when all is seen: a run that was interrupted starts again. Where it can't be written,
    it is not kept.

    Args:
        bundle: what to calibrate; precision fp32.
        texts: any number of files, directories of `*.txt` and arrays or files of ids (docs/generating.md), or one alone. There
            is no default: ranges of random ids would be ranges of nothing.
        settings: None: the defaults.
        threads: None: measured.
        on_progress: called before each window with how many tokens it will be, and about how long the rest takes, windows
            done and windows in all.

    Raises:
        ConfigError: a bundle that is not fp32, or has no CPU engines or tokenizer; unreadable or empty text.
        BackendUnavailable: onnx-ir is not installed.
        CalibrationError: too little text for some stage and phase; an activation that is not finite (stage and product named).
    """
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    settings = settings or CalibrationSettings()
    model = load(opened, threads=threads)
    ids = limited(read_ids(texts, model).ids, model, settings.max_tokens)
    return calibrate_ids(model, ids, settings, on_progress)


@storage_errors()
def calibrate_ids(
    model: Model, ids: npt.NDArray[np.int64], settings: CalibrationSettings, on_progress: Progress | None = None
) -> Calibration:
    """As `calibrate`, from token ids `[T]`."""
    _check_bundle(model.bundle)
    key = _key(model.bundle, ids, settings)
    path = model.bundle.path / "reports" / f"calibration-{key[:16]}.safetensors"
    if (known := _read(path, key)) is not None:
        return known
    found = _observe(model, ids, Calibration(key, settings), on_progress or silent)
    _check_coverage(model, found)
    _write(path, found)
    return found


def _check_bundle(bundle: Bundle) -> None:
    if bundle.manifest.precision != "fp32":
        raise ConfigError(
            f"{bundle.path} is {bundle.manifest.precision}, expected fp32; calibrate the bundle it was built from"
        )


def limited(ids: npt.NDArray[np.int64], model: Model, max_tokens: int | None) -> npt.NDArray[np.int64]:
    """At most so many tokens, in whole windows spread evenly over the text."""
    if max_tokens is None or len(ids) <= max_tokens:
        return ids
    length = min(model.manifest.model.context, max_tokens)
    starts = np.linspace(0, len(ids) - length, max(max_tokens // length, 1)).astype(np.int64)
    return np.concatenate([ids[start : start + length] for start in starts])


def _key(bundle: Bundle, ids: npt.NDArray[np.int64], settings: CalibrationSettings) -> str:
    digest = hashlib.sha256(f"{FORMAT}".encode() + msgspec.json.encode(settings) + ids.tobytes())
    for name, entry in sorted(bundle.manifest.files.items()):
        if name.startswith("stages/"):
            digest.update(f"{name}:{entry.sha256}".encode())
    return digest.hexdigest()


def _observe(model: Model, ids: npt.NDArray[np.int64], found: Calibration, report: Progress) -> Calibration:
    try:
        from .observe import (
            ObservedEngine,  # here, as it rewrites graphs, for which a machine that only runs them has no library
        )
    except ImportError as error:
        raise unavailable(error, "calibrating") or error from error
    specs = [entry.spec for entry in model.manifest.stages]
    period = max(spec.stride for spec in specs)
    context = model.manifest.model.context
    count = -(-len(ids) // context)

    with scratch_directory() as directory:
        engines = [ObservedEngine(model.bundle, spec, directory, model.threads, found) for spec in specs]
        with Session(engines, model.manifest.model, 1, min(context, len(ids))) as session:
            began = time.monotonic()
            for done, window in enumerate(windows(ids, context)):
                report(f"calibrating on {len(ids):,} tokens{left(time.monotonic() - began, done, count)}", done, count)
                session.reset()
                session.advance(window[None])  # all logits: the head's product must see every row
                found.tokens += len(window)
                _count(found.coverage, session, period)
    report("done", count, count)
    return found


def _count(coverage: dict[str, Counter[int]], session: Session, period: int) -> None:
    tokens, schedule = session.position, session.schedule
    for spec in session.specs:
        phases = coverage.setdefault(spec.name, Counter())
        if spec.clock is None:
            phases.update(spec.fired_by(firing) % period for firing in spec.firings(0, tokens))
        else:
            phases[0] += firings_of(spec, tokens, schedule)


def _check_coverage(model: Model, found: Calibration) -> None:
    period, allowed = max(entry.spec.stride for entry in model.manifest.stages), found.settings.max_tokens
    for entry in model.manifest.stages:
        phases = found.coverage.get(entry.spec.name) or Counter({0: 0})
        phase, rows = min(phases.items(), key=lambda item: item[1])
        if rows < FLOOR:
            needed = -(-FLOOR * found.tokens // rows) if rows else FLOOR * math.ceil(max(period, entry.spec.tokens_per_firing))
            limit = f", and set max_tokens no lower: it is {allowed:,}" if allowed is not None and allowed < needed else ""
            at = f" at phase {phase}" if entry.spec.clock is None else ""
            raise CalibrationError(
                f'stage "{entry.spec.name}" saw {rows} rows{at} in {found.tokens} tokens, '
                f"expected at least {FLOOR}; give about {needed:,} tokens of text{limit}"
            )


class _Header(msgspec.Struct):
    key: str
    settings: CalibrationSettings
    tokens: int
    coverage: dict[str, dict[int, int]]
    scalars: dict[str, tuple[int, float, float]]
    caches: dict[str, tuple[float, float]]


def _write(path: Path, found: Calibration) -> None:
    scalars = {name: (r.rows, r.bin_width, r.output_absmax) for name, r in found.products.items()}
    coverage = {stage: dict(phases) for stage, phases in found.coverage.items()}
    caches = {name: (ranges.key_absmax, ranges.value_absmax) for name, ranges in found.caches.items()}
    header = _Header(found.key, found.settings, found.tokens, coverage, scalars, caches)
    arrays: dict[str, Array] = {}
    for name, ranges in found.products.items():
        arrays |= {
            f"{name}:absmax": ranges.absmax,
            f"{name}:square_sum": ranges.square_sum,
            f"{name}:histogram": ranges.histogram,
        }
    data = safetensors.numpy.save(arrays, metadata={"calibration": msgspec.json.encode(header).decode()})
    keep(path, data, "what was calibrated")


def _read(path: Path, key: str) -> Calibration | None:
    """What was kept; None if there is nothing, or something else."""
    if not path.is_file():
        return None
    try:
        return _decode(path, key)
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError, msgspec.MsgspecError) as error:
        _log.warning("%s can't be used (%s); the text is read again", path, " ".join(str(error).split()))
        return None


def _decode(path: Path, key: str) -> Calibration:
    with safetensors.safe_open(str(path), "numpy") as file:
        header = decode((file.metadata() or {})["calibration"], _Header)
        if header.key != key:
            raise ValueError("it is the calibration of something else")
        products = {
            name: ProductRanges(
                absmax=file.get_tensor(f"{name}:absmax"),
                square_sum=file.get_tensor(f"{name}:square_sum"),
                rows=rows,
                histogram=file.get_tensor(f"{name}:histogram"),
                bin_width=bin_width,
                output_absmax=output_absmax,
            )
            for name, (rows, bin_width, output_absmax) in header.scalars.items()
        }
    coverage = {stage: Counter(phases) for stage, phases in header.coverage.items()}
    caches = {name: CacheRanges(*absmax) for name, absmax in header.caches.items()}
    return Calibration(key, header.settings, header.tokens, coverage, products, caches)
