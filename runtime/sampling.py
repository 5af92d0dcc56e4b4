"""Logits to one token: numpy only, and reproducible: the same seed and logits give the same token."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError

Floats = npt.NDArray[np.floating[Any]]

_LEAST_PENALTY, _LARGEST_PENALTY = 1e-100, 1e100
"""Any fp32 logit, divided or multiplied by these, is a float64 of full precision."""


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How to choose tokens, and when to stop.

    Filters work in this order, as in Hugging Face transformers: repetition penalty, temperature, top-k, top-p, min-p.

    Numbers may be numpy's; they become Python's own.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest token, the first if there are several, whatever `top_k`, `top_p`,
            `min_p` and `seed` are.
        top_k: keep the k likeliest; 0 keeps all.
        top_p: keep the smallest set of likeliest tokens whose probabilities reach this sum.
        min_p: drop tokens less likely than this share of the likeliest one.
        repetition_penalty: divide positive logits of tokens already seen, multiply negative ones (CTRL, arXiv 1909.05858);
            from 1e-100 to 1e100.
        seed: None draws a fresh one.
        max_new_tokens: stop after so many.
        stop: texts that end the generation (one text, or any number); they are not given out.

    Raises:
        InputError: a setting out of its range, or of another type: NaN, a truth value, a `top_k` of 5.0.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    max_new_tokens: int = 128
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p", "min_p", "repetition_penalty"):
            self._put(name, _real(name, getattr(self, name)))
        for name in ("top_k", "max_new_tokens"):
            self._put(name, _whole(name, getattr(self, name)))
        if self.seed is not None:
            self._put("seed", _whole("seed", self.seed))
        self._put("stop", _texts("stop", self.stop))
        penalty = self.repetition_penalty
        _require(
            0 <= self.temperature < math.inf,
            "temperature",
            self.temperature,
            "at least 0 and finite (0: always the likeliest token)",
        )
        _require(self.top_k >= 0, "top_k", self.top_k, "at least 0 (0: keep all tokens)")
        _require(0 < self.top_p <= 1, "top_p", self.top_p, "more than 0 and at most 1 (1: keep all tokens)")
        _require(0 <= self.min_p <= 1, "min_p", self.min_p, "between 0 and 1 (0: keep all tokens)")
        _require(penalty > 0, "repetition_penalty", penalty, "more than 0 (1: no penalty)")
        _require(
            _LEAST_PENALTY <= penalty <= _LARGEST_PENALTY, "repetition_penalty", penalty, "from 1e-100 to 1e100 (1: no penalty)"
        )
        _require(self.seed is None or self.seed >= 0, "seed", self.seed, "at least 0, or None for a fresh one")
        _require(self.max_new_tokens >= 1, "max_new_tokens", self.max_new_tokens, "at least 1")
        _require(all(self.stop), "stop", list(self.stop), "texts of at least one character")

    def _put(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is always taken, and no random number is used."""
        return self.temperature == 0 or self.top_k == 1


def _require(holds: bool, name: str, got: object, expected: str) -> None:
    if not holds:
        raise InputError(f"{name} is {got}, expected {expected}")


def _real(name: str, value: object) -> float:
    _require(isinstance(value, numbers.Real) and not isinstance(value, bool), name, repr(value), "a number")
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:  # a whole number beyond every float
        raise InputError(f"{name} is a number of more than 300 digits, expected a finite float") from None


def _whole(name: str, value: object) -> int:
    _require(isinstance(value, numbers.Integral) and not isinstance(value, bool), name, repr(value), "a whole number (int)")
    return int(value)  # type: ignore[call-overload, no-any-return]


def _texts(name: str, value: object) -> tuple[str, ...]:
    found = (value,) if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)
    _require(all(isinstance(text, str) for text in found), name, repr(value), "a text, or a sequence of texts")
    return found


class Sampler:
    """Chooses tokens one after the other; draws one random number per token, none when greedy."""

    def __init__(self, params: SamplingParams) -> None:
        self.params = params
        self._rng = np.random.default_rng(params.seed)

    def sample(self, logits: npt.NDArray[np.float32], seen: npt.NDArray[np.int64]) -> int:
        """Choose the next token.

        Args:
            logits: float `[V]`; not changed. Tokens of minus infinity are never chosen.
            seen: ids `[T]` that the repetition penalty applies to.

        Raises:
            InputError: no finite logit, one that is NaN or plus infinity, or another shape; seen ids outside the vocabulary.
        """
        params, logits = self.params, _checked(logits)
        if params.repetition_penalty != 1.0:
            logits = _penalised(logits, np.asarray(seen), params.repetition_penalty)
        if params.is_greedy:
            return int(logits.argmax())
        if params.top_k == 0 and params.top_p == 1 and params.min_p == 0:
            return self._draw(_softmax(logits, params.temperature))  # nothing to filter: no need to sort
        ids = _likeliest(logits, params.top_k)
        probabilities = _softmax(logits[ids], params.temperature)
        return int(ids[self._draw(probabilities[: _count_kept(probabilities, params.top_p, params.min_p)])])

    def uniform(self, count: int) -> npt.NDArray[np.float64]:
        """The numbers of [0, 1) that the next tokens are drawn by, `[count]`; zeros, and none used up, when greedy."""
        return np.zeros(count) if self.params.is_greedy else self._rng.random(count)

    def _draw(self, weights: npt.NDArray[np.float64]) -> int:
        """An index by its weight: the inverse of the cumulative distribution at one uniform number; none of weight 0."""
        cumulative = np.cumsum(weights)
        drawn = self._rng.random() * cumulative[-1]  # below it: the largest random number is 1 - 2**-53
        return int(np.searchsorted(cumulative, drawn, side="right"))


def _checked(logits: npt.ArrayLike) -> Floats:
    try:
        logits = np.asarray(logits)
    except ValueError:
        raise InputError("can't sample: logits are ragged, expected an array [vocabulary]") from None
    if logits.ndim != 1 or not logits.size or logits.dtype.kind not in "fiu":
        got = f"{logits.dtype} of shape {list(logits.shape)}"
        raise InputError(f"can't sample: got logits {got}, expected floats [vocabulary], those of one token")
    highest = logits.max()  # NaN if any is
    if not np.isfinite(highest):
        raise InputError(
            f"can't sample: the largest logit is {highest}, expected a finite number; the model's output is broken"
        )
    return logits


def _penalised(logits: Floats, seen: npt.NDArray[np.int64], penalty: float) -> Floats:
    """In float64, as fp32 would overflow."""
    if not seen.size:
        return logits
    if seen.dtype.kind not in "iu" or seen.min() < 0 or seen.max() >= len(logits):
        raise InputError(f"seen ids are {seen.dtype} from {seen.min()} to {seen.max()}, expected integers below {len(logits)}")
    penalised = logits.astype(np.float64)
    ids = np.unique(seen)
    values = penalised[ids]
    penalised[ids] = np.where(values > 0, values / penalty, values * penalty)
    return penalised


def _likeliest(logits: Floats, top_k: int) -> npt.NDArray[np.int64]:
    """The ids of the k largest logits (0: of all), in falling order, ties by the lower id."""
    if 0 < top_k < len(logits):
        threshold = np.partition(logits, -top_k)[-top_k]
        candidates = np.flatnonzero(logits >= threshold)
    else:
        top_k, candidates = len(logits), np.arange(len(logits))
    order = np.argsort(-logits[candidates], kind="stable")
    return candidates[order][:top_k]


def _softmax(logits: Floats, temperature: float) -> npt.NDArray[np.float64]:
    """The largest becomes 0 before anything is divided: whatever overflows weighs nothing."""
    below = logits.astype(np.float64) - logits.max()
    with np.errstate(over="ignore", under="ignore"):
        weights = np.exp(below / temperature)
    probabilities: npt.NDArray[np.float64] = weights / weights.sum()
    return probabilities


def _count_kept(probabilities: npt.NDArray[np.float64], top_p: float, min_p: float) -> int:
    """How many of the falling probabilities both filters keep; min-p is relative, so renormalising changes nothing."""
    count = len(probabilities)
    if top_p < 1:
        count = min(int(np.searchsorted(np.cumsum(probabilities), top_p)) + 1, count)
    if min_p > 0:
        count = min(count, int(np.count_nonzero(probabilities >= min_p * probabilities[0])))
    return count
