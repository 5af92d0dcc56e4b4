"""The shuffled-context probe: does the order of distant words matter?

Windows whose first half is permuted, beside the same windows as they are. The loss in the second half rises most just behind
the border; how far it stays up is how far back the order of tokens is used. The article this project starts from puts that at
about 50 tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from ..bundle import Bundle, open_bundle
from ..errors import ConfigError
from ..progress import Progress, silent
from ..runtime.model import Model, load
from ..runtime.session import Session
from ..storage import storage_errors
from .quality import Floats, log_probabilities, token_losses
from .text import Ids, Texts, read_ids, spread

WINDOW, WINDOWS = 512, 128


class Distance(msgspec.Struct, frozen=True, kw_only=True):
    """Positions `first` to `last` behind the border, counted from 1."""

    first: int
    last: int
    nats: float
    half_width: float


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """How much worse a bundle predicts behind a permuted half.

    Attributes:
        distances: the rise of the loss in nats per token, with the half width of a 95 % interval over windows.
        settles_at: the first distance from which the rise stays below `threshold`; None if it never does.
    """

    bundle: str
    hierarchy: str
    precision: str
    window: int
    windows: int
    threshold: float
    distances: tuple[Distance, ...]
    settles_at: int | None


@storage_errors()
def probe(
    bundles: str | Path | Bundle | Sequence[str | Path | Bundle],
    texts: Texts,
    *,
    target: str = "cpu",
    threads: int | None = None,
    native: bool | None = None,
    window: int | None = None,
    limit: int | None = WINDOWS,
    threshold: float = 0.05,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> list[Probe]:
    """Probe any number of bundles on the same windows with the same permutations.

    Args:
        native: as of `load`.
        window: tokens of a window; None: the shortest context of the models, at most 512.

    Raises:
        ConfigError: too little text for two windows, a limit below two, or a window longer than a model's context.
        NotFiniteError: as `evaluate`.
    """
    report = on_progress or silent
    given_bundles = [bundles] if isinstance(bundles, (str, Path, Bundle)) else bundles
    opened = [bundle if isinstance(bundle, Bundle) else open_bundle(bundle) for bundle in given_bundles]
    if window is None:
        window = min([WINDOW, *(bundle.manifest.model.context for bundle in opened)])
    results = []
    for index, bundle in enumerate(opened):
        model = load(bundle, target, threads, native=native)
        _check_window(model, window, limit)
        given = _whole_windows(read_ids(texts, model).ids, window, limit)
        steps = len(opened) * len(given)
        with Session(model.engines, model.manifest.model, 1, window) as session:
            rises = []
            rng = np.random.default_rng(seed)
            for done, part in enumerate(given):
                report(f"probing {model.bundle.path.name}", index * len(given) + done, steps)
                rises.append(_rise(session, str(model.bundle.path), part, rng))
        results.append(_summary(model, np.stack(rises), window, threshold))
    report("done", 1, 1)
    return results


def shuffled(window: Ids, rng: np.random.Generator) -> Ids:
    """The window `[L]` with its first half permuted."""
    half = len(window) // 2
    return np.concatenate([rng.permutation(window[:half]), window[half:]])


def _rise(session: Session, whose: str, window: Ids, rng: np.random.Generator) -> Floats:
    """Loss behind a permuted half minus loss behind the half as it is, at each position of the second, `[L - L // 2]`."""
    half = len(window) // 2
    losses = []
    for ids in (shuffled(window, rng), window):
        losses.append(token_losses(log_probabilities(session, whose, ids), ids)[half - 1 :])
    difference: Floats = losses[0] - losses[1]
    return difference


def _summary(model: Model, rises: Floats, window: int, threshold: float) -> Probe:
    distances = tuple(_distance(rises, first, last) for first, last in _octaves(rises.shape[1]))
    return Probe(
        bundle=str(model.bundle.path),
        hierarchy=model.manifest.model.hierarchy,
        precision=model.manifest.precision,
        window=window,
        windows=len(rises),
        threshold=threshold,
        distances=distances,
        settles_at=_settles_at(distances, threshold),
    )


def _octaves(length: int) -> list[tuple[int, int]]:
    """1, 2, 3-4, 5-8, 9-16, ... up to `length`."""
    ends = [2**power for power in range(math.ceil(math.log2(length)))] + [length]
    return [(before + 1, end) for before, end in zip([0, *ends], ends, strict=False)]


def _distance(rises: Floats, first: int, last: int) -> Distance:
    means = rises[:, first - 1 : last].mean(axis=1, dtype=np.float64)
    half_width = 1.96 * float(means.std(ddof=1)) / math.sqrt(len(means))
    return Distance(first=first, last=last, nats=float(means.mean()), half_width=half_width)


def _settles_at(distances: Sequence[Distance], threshold: float) -> int | None:
    settled = None
    for distance in reversed(distances):
        if distance.nats >= threshold:
            break
        settled = distance.first
    return settled


def _check_window(model: Model, window: int, limit: int | None) -> None:
    context = model.manifest.model.context
    if not 2 <= window <= context:
        raise ConfigError(f"the window is {window} tokens, expected 2 to {context}, the context of {model.bundle.path}")
    if limit is not None and limit < 2:
        raise ConfigError(f"the limit is {limit} windows, expected at least 2, or None for all: their spread is the error")


def _whole_windows(ids: Ids, window: int, limit: int | None) -> list[Ids]:
    given = spread(ids[: len(ids) // window * window], window, limit)
    if len(given) < 2:
        raise ConfigError(f"the text holds {len(given)} windows of {window} tokens, expected at least 2; give more text")
    return given
