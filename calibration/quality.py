"""How well a bundle predicts text, and how far it is from the bundle it was made from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from ..bundle import Bundle
from ..contract import clocks_of
from ..errors import CalibrationError, ConfigError
from ..progress import Progress, silent
from ..runtime.model import Model, load
from ..runtime.scoring import bits_per_byte
from ..runtime.session import Session
from ..storage import storage_errors
from .buckets import Bucket, by_frequency
from .flips import ClockQuality, Flips
from .text import EncodedText, Ids, Texts, read_ids, spread

Floats = npt.NDArray[np.float32]


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """Teacher-forced prediction of a text in windows without a past.

    Attributes:
        nats_per_token: mean cross-entropy of the next token.
        nats_half_width: of its 95 % confidence interval, from the spread between windows.
        bits_per_byte: the same per UTF-8 byte of the text as it is given; None for ids of a model without tokenizer.
        lost: the first line that the tokenizer does not give back, and how it comes back; "" if it gives back all.
        bits_per_byte_change: relative to the reference.
        bits_per_byte_change_half_width: of its 95 % confidence interval, in the same unit. Both bundles read the same windows,
            so it is of the paired differences: a ratio of two sums, linearised (delta method), by the spread between windows.
        is_difference_shown: whether that interval leaves out 0.
        kl_nats: mean Kullback-Leibler divergence of this bundle's prediction from the reference's; None without one.
        kl_half_width: of its 95 % confidence interval, from the spread between windows.
        top1_agreement: share of positions where both find the same token likeliest.
        top1_half_width: as `kl_half_width`.
        buckets: the same by the frequency of the predicted token in the whole text, windows left out by a limit included.
        clocks: of a model whose firings the data decides, what was decided. All figures above are of its own schedule.
        forced: the losses on the reference's schedule: what remains of the change if no boundary moves. None without a
            reference that decides by the same rules.
    """

    bundle: str
    precision: str
    target: str
    window: int
    tokens: int
    nats_per_token: float
    nats_half_width: float
    bits_per_byte: float | None
    lost: str = ""
    reference: str | None = None
    reference_bits_per_byte: float | None = None
    bits_per_byte_change: float | None = None
    bits_per_byte_change_half_width: float | None = None
    is_difference_shown: bool | None = None
    kl_nats: float | None = None
    kl_half_width: float | None = None
    top1_agreement: float | None = None
    top1_half_width: float | None = None
    buckets: tuple[Bucket, ...] = ()
    clocks: tuple[ClockQuality, ...] = ()
    forced: ForcedQuality | None = None


class ForcedQuality(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle that fires where the reference fires; otherwise as `Quality`."""

    nats_per_token: float
    bits_per_byte: float | None
    bits_per_byte_change: float
    bits_per_byte_change_half_width: float
    is_difference_shown: bool
    kl_nats: float
    kl_half_width: float
    top1_agreement: float
    top1_half_width: float


class Scores(NamedTuple):
    """What was measured at every predicted position of a text, `[T]` each; three of them only against a reference."""

    target: Ids
    nats: Floats
    reference_nats: Floats | None
    kl: Floats | None
    agrees: npt.NDArray[np.bool_] | None
    window: Ids


@storage_errors()
def evaluate(
    bundle: str | Path | Bundle,
    texts: Texts,
    *,
    reference: str | Path | Bundle | None = None,
    target: str = "cpu",
    threads: int | None = None,
    native: bool | None = None,
    window: int | None = None,
    limit: int | None = None,
    on_progress: Progress | None = None,
) -> Quality:
    """Measure a bundle on text.

    Args:
        bundle: what is measured.
        texts: any number of files, directories of `*.txt` and arrays or files of ids (docs/generating.md), or one alone.
        reference: another bundle of the same model, usually the fp32 one.
        target: whose engines.
        threads: of `cpu` engines, for both bundles; None: measured for the first.
        native: as of `load`, for both.
        window: tokens predicted in one go; None: the model's context, at most 512.
        limit: so many windows, spread over the text; None: all.
        on_progress: called before each window.

    Raises:
        ConfigError: too little text, no tokenizer, a window longer than the context, a limit below 1, a reference of another
            vocabulary.
        InputError: ids the model does not know.
        NotFiniteError: a CalibrationError; logits that are not finite, as of weights that are not.
    Warns:
        FovealWarning: the tokenizer does not give back all of the text.
    """
    model = load(bundle, target, threads, native=native)
    of_both = model.threads if target == "cpu" else None
    other = None if reference is None else load(reference, target, of_both, native=native)
    text = read_ids(texts, model)
    length = _window(model, window)
    _check_reference(model, other)
    given = spread(text.ids, length, limit)
    if not given:
        raise ConfigError("the text is a single token, which predicts nothing; give more text")
    scores, forced, flips = _score(model, other, given, on_progress or silent)
    found = msgspec.structs.replace(summarise(scores, model, other, length, text), clocks=flips.found())
    return found if forced is None else msgspec.structs.replace(found, forced=_summarise_forced(forced, text))


def score(model: Model, reference: Model | None, given: Sequence[Ids], on_progress: Progress | None = None) -> Scores:
    """Predict every token but the first of each window `[L]`."""
    return _score(model, reference, given, on_progress or silent)[0]


def _score(
    model: Model, reference: Model | None, given: Sequence[Ids], report: Progress
) -> tuple[Scores, Scores | None, Flips]:
    """As `score`; also on the reference's schedule, if there is one, and what the clocks decided."""
    longest = max(len(window) for window in given)
    with ExitStack() as stack:
        opened = [_opened(stack, m, longest) for m in (model, reference) if m is not None]
        reader = _Reader(*opened)
        for index, window in enumerate(given):
            report("reading text", index, len(given))
            reader.read(window, index)
    report("done", len(given), len(given))
    return _joined(reader.own), _joined(reader.forced) if reader.forced else None, reader.flips


class _Named(NamedTuple):
    session: Session
    name: str

    def read(self, window: Ids) -> Floats:
        return log_probabilities(self.session, self.name, window)


def _opened(stack: ExitStack, model: Model, longest: int) -> _Named:
    session = stack.enter_context(Session(model.engines, model.manifest.model, 1, longest))
    return _Named(session, str(model.bundle.path))


class _Reader:
    """Reads windows with a bundle, and with its reference if there is one; where the data decides, by both schedules."""

    def __init__(self, own: _Named, reference: _Named | None = None) -> None:
        self._own, self._reference = own, reference
        self.own: list[Scores] = []
        self.forced: list[Scores] = []
        self.flips = Flips(own.session.specs)
        clocks = clocks_of(own.session.specs)
        self._decides = bool(clocks)
        others = () if reference is None else clocks_of(reference.session.specs)
        self._follows = self._decides and set(clocks) == set(others)

    def read(self, window: Ids, index: int) -> None:
        """One window, from an empty past."""
        expected = None if self._reference is None else self._reference.read(window)
        self.own.append(_scored(window, index, self._own.read(window), expected))
        own = self._own.session.schedule
        if self._reference is None or not self._follows:
            if self._decides:
                self.flips.add(own, len(window))
            return
        reference = self._reference.session.schedule
        self._own.session.follow(reference)
        self.forced.append(_scored(window, index, self._own.read(window), expected))
        self.flips.add_compared(own, self._own.session.schedule, reference, len(window))
        self._own.session.follow(None)


def _joined(parts: Sequence[Scores]) -> Scores:
    return Scores(
        target=np.concatenate([part.target for part in parts]),
        nats=np.concatenate([part.nats for part in parts]),
        reference_nats=_all([part.reference_nats for part in parts]),
        kl=_all([part.kl for part in parts]),
        agrees=_all([part.agrees for part in parts]),
        window=np.concatenate([part.window for part in parts]),
    )


def _all(columns: Sequence[npt.NDArray[Any] | None]) -> npt.NDArray[Any] | None:
    present = [column for column in columns if column is not None]
    return np.concatenate(present) if present else None


class NotFiniteError(CalibrationError):
    """Logits that are infinite or NaN; `whose` they are."""

    def __init__(self, whose: str) -> None:
        super().__init__(
            f"{whose} gives logits that are infinite or NaN on this text, expected numbers; convert a whole checkpoint, or try "
            "another precision"
        )
        self.whose = whose


def log_probabilities(session: Session, whose: str, window: Ids) -> Floats:
    """Log-probabilities `[L - 1, V]` of the tokens after each of the first L - 1, from an empty past.

    Raises:
        NotFiniteError: logits of which there are none.
    """
    session.reset()
    logits = session.advance(window[None])[0, :-1]
    if not np.isfinite(logits).all():
        raise NotFiniteError(whose)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def token_losses(predicted: Floats, window: Ids) -> Floats:
    """Nats `[L - 1]` of each token of a window but the first, given log-probabilities `[L - 1, V]`."""
    losses: Floats = -predicted[np.arange(len(window) - 1), window[1:]]
    return losses


def summarise(scores: Scores, model: Model, reference: Model | None, window: int, text: EncodedText) -> Quality:
    """Means over all positions; `text` is all of it, of which windows were scored."""
    nats = float(scores.nats.mean(dtype=np.float64))
    quality = Quality(
        bundle=str(model.bundle.path),
        precision=model.manifest.precision,
        target=model.target,
        window=window,
        tokens=len(scores.nats),
        nats_per_token=nats,
        nats_half_width=_half_width(scores.nats, scores.window),
        bits_per_byte=bits_per_byte(nats, len(text.ids), text.bytes),
        lost=text.lost,
        buckets=by_frequency(text.ids, scores.target, scores.nats, scores.reference_nats, scores.kl, scores.agrees),
    )
    if reference is None or scores.reference_nats is None or scores.kl is None or scores.agrees is None:
        return quality
    reference_nats = float(scores.reference_nats.mean(dtype=np.float64))
    return msgspec.structs.replace(
        quality,
        reference=str(reference.bundle.path),
        reference_bits_per_byte=bits_per_byte(reference_nats, len(text.ids), text.bytes),
        **_distance(scores),
    )


def _summarise_forced(scores: Scores, text: EncodedText) -> ForcedQuality:
    nats = float(scores.nats.mean(dtype=np.float64))
    return ForcedQuality(nats_per_token=nats, bits_per_byte=bits_per_byte(nats, len(text.ids), text.bytes), **_distance(scores))


def _distance(scores: Scores) -> dict[str, Any]:
    """The fields of a quality that say how far it is from the reference's."""
    assert scores.reference_nats is not None
    assert scores.kl is not None
    assert scores.agrees is not None
    nats, reference_nats = (float(column.mean(dtype=np.float64)) for column in (scores.nats, scores.reference_nats))
    change, half_width = nats / reference_nats - 1, _paired_half_width(scores.nats, scores.reference_nats, scores.window)
    return {
        "bits_per_byte_change": change,
        "bits_per_byte_change_half_width": half_width,
        "is_difference_shown": abs(change) > half_width,
        "kl_nats": float(scores.kl.mean(dtype=np.float64)),
        "kl_half_width": _half_width(scores.kl, scores.window),
        "top1_agreement": float(scores.agrees.mean()),
        "top1_half_width": _half_width(scores.agrees, scores.window),
    }


def _scored(window: Ids, index: int, predicted: Floats, expected: Floats | None = None) -> Scores:
    target = window[1:]
    nats, place = token_losses(predicted, window), np.full(len(target), index)
    if expected is None:
        return Scores(target, nats, None, None, None, place)
    kl = (np.exp(expected) * (expected - predicted)).sum(axis=-1)
    agrees = predicted.argmax(axis=-1) == expected.argmax(axis=-1)
    return Scores(target, nats, token_losses(expected, window), kl, agrees, place)


def _paired_half_width(nats: Floats, reference: Floats, windows: Ids) -> float:
    """Half of a 95 % interval of `nats.sum() / reference.sum()`: by how much windows stray from that ratio."""
    return half_width_of_ratio(np.bincount(windows, nats), np.bincount(windows, reference))


def half_width_of_ratio(sums: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """Half of a 95 % interval of `sums.sum() / expected.sum()`, of sums over the same windows `[W]`."""
    if len(sums) < 2:
        return math.inf
    strays = sums - sums.sum() / expected.sum() * expected
    spread = math.sqrt(len(sums) / (len(sums) - 1) * float(np.square(strays).sum()))
    return 1.96 * spread / float(expected.sum())


def _half_width(values: npt.NDArray[Any], windows: Ids) -> float:
    """Half of a 95 % interval by the normal approximation; tokens of one window are not independent, windows nearly are."""
    count = np.bincount(windows)
    means = np.bincount(windows, values) / count
    return float(1.96 * means.std(ddof=1) / math.sqrt(len(means))) if len(means) > 1 else math.inf


def _window(model: Model, window: int | None) -> int:
    context = model.manifest.model.context
    length = min(context, 512) if window is None else window
    if not 2 <= length <= context:
        raise ConfigError(f"the window is {length} tokens, expected 2 to {context}, the model's context")
    return length


def _check_reference(model: Model, reference: Model | None) -> None:
    if reference is None:
        return
    got, expected = (m.manifest.model.vocab_size for m in (model, reference))
    if got != expected:
        raise ConfigError(f"the bundles know {got} and {expected} tokens; compare bundles of the same vocabulary")
