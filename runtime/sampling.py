"""Logits to one token: numpy only, and reproducible: the same seed and logits give the same token."""

from __future__ import annotations

import math
import numbers
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from .given import several, shown
from .guides.constraint import Constraint
from .logprobs import TokenLogprobs, token_logprobs
from .weights import Floats, Weights, falling, highest_of, id_at, index_of, weights_of

_LEAST_PENALTY, _LARGEST_PENALTY = 1e-100, 1e100
"""Any fp32 logit, divided or multiplied by these, is a float64 of full precision."""
_LARGEST_SHIFT = 1e30
"""Added to any fp32 logit it stays finite in fp32, so that what a bias or a penalty makes of logits can be drawn from."""
_NO_BIAS: Mapping[int, float] = MappingProxyType({})

LogitsHook = Callable[[npt.NDArray[np.int64], npt.NDArray[np.float32]], npt.ArrayLike]
"""From the ids so far `[T]` and the logits after them, float32 `[V]`, its own copy, to the logits to draw from `[V]`."""


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How to choose tokens, and when to stop.

    What changes the logits works in this order: the hook, the bias, the penalties, the constraint and the end tokens that come
    too early; then, as in Hugging Face transformers, temperature, top-k, top-p, min-p.

    Numbers may be numpy's; they become Python's own.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest token, the first if there are several, whatever `top_k`, `top_p`,
            `min_p` and `seed` are.
        top_k: keep the k likeliest; 0 keeps all.
        top_p: keep the smallest set of likeliest tokens whose probabilities reach this sum.
        min_p: drop tokens less likely than this share of the likeliest one.
        repetition_penalty: divide positive logits of tokens already seen, multiply negative ones (CTRL, arXiv 1909.05858);
            from 1e-100 to 1e100.
        frequency_penalty: subtract so much from the logit of a token for each time that it was drawn, and `presence_penalty`
            once if it was drawn at all (OpenAI's; tokens of the prompt do not count).
        logit_bias: what is added to the logits of some ids, `{id: bias}`; minus infinity forbids a token.
        logits_hook: a function of (ids so far `[T]`, logits float32 `[V]`) that gives the logits to go on with.
        constraint: what the text has to follow, a `foveal.Constraint`.
        logprobs: how many of the likeliest tokens are kept with each token drawn, beside its own log probability, in the
            model's own distribution; 0 keeps its own alone, None nothing.
        prompt_logprobs: the same for the tokens of the prompt, but the first.
        seed: None draws a fresh one.
        max_new_tokens: stop after so many.
        min_tokens: draw no end token, and look for no stop string, before there are so many tokens.
        max_seconds: stop when so much time has passed since the call; None: never.
        stop: texts that end the generation (one text, or any number); they are not given out.

    Raises:
        InputError: a setting out of its range, or of another type: NaN, a truth value, a `top_k` of 5.0.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=lambda: _NO_BIAS)
    logits_hook: LogitsHook | None = None
    constraint: Constraint | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    seed: int | None = None
    max_new_tokens: int = 128
    min_tokens: int = 0
    max_seconds: float | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty"):
            self._put(name, _real(name, getattr(self, name)))
        for name in ("top_k", "max_new_tokens", "min_tokens"):
            self._put(name, _whole(name, getattr(self, name)))
        for name in ("seed", "logprobs", "prompt_logprobs"):
            if getattr(self, name) is not None:
                self._put(name, _whole(name, getattr(self, name)))
        if self.max_seconds is not None:
            self._put("max_seconds", _real("max_seconds", self.max_seconds))
        self._put("stop", _texts("stop", self.stop))
        self._put("logit_bias", _biases("logit_bias", self.logit_bias))
        self._check_ranges()

    def _check_ranges(self) -> None:
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
        for name in ("frequency_penalty", "presence_penalty"):
            shift = getattr(self, name)
            _require(abs(shift) <= _LARGEST_SHIFT, name, shift, "from -1e30 to 1e30 (0: no penalty)")
        for name in ("logprobs", "prompt_logprobs"):
            count = getattr(self, name)
            _require(count is None or count >= 0, name, count, "at least 0, or None for no log probabilities")
        _require(self.max_new_tokens >= 1, "max_new_tokens", self.max_new_tokens, "at least 1")
        _require(
            0 <= self.min_tokens <= self.max_new_tokens,
            "min_tokens",
            self.min_tokens,
            f"at least 0 and at most max_new_tokens, {self.max_new_tokens}",
        )
        _require(
            self.max_seconds is None or self.max_seconds > 0,
            "max_seconds",
            self.max_seconds,
            "more than 0, or None for no limit",
        )
        hook = self.logits_hook
        _require(hook is None or callable(hook), "logits_hook", hook, "a function of (ids, logits)")
        limit = self.constraint
        _require(limit is None or isinstance(limit, Constraint), "constraint", limit, "a foveal.Constraint")
        _require(all(self.stop), "stop", list(self.stop), "texts of at least one character")

    def _put(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is always taken, and no random number is used."""
        return self.temperature == 0 or self.top_k == 1

    @property
    def takes_logits_as_they_are(self) -> bool:
        """Whether nothing changes the logits before they are filtered, and nothing is kept of them."""
        return (
            self.repetition_penalty == 1
            and not (self.frequency_penalty or self.presence_penalty or self.logit_bias or self.min_tokens)
            and self.logits_hook is None
            and self.constraint is None
            and self.logprobs is None
        )


def _require(holds: bool, name: str, got: object, expected: str) -> None:
    if not holds:
        raise InputError(f"{name} is {shown(got)}, expected {expected}")


def _real(name: str, value: object) -> float:
    _require(isinstance(value, numbers.Real) and not isinstance(value, bool), name, value, "a number")
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:  # a whole number beyond every float
        raise InputError(f"{name} is a number of more than 300 digits, expected a finite float") from None


def _whole(name: str, value: object) -> int:
    _require(isinstance(value, numbers.Integral) and not isinstance(value, bool), name, value, "a whole number (int)")
    return int(value)  # type: ignore[call-overload, no-any-return]


def _texts(name: str, value: object) -> tuple[str, ...]:
    found = several(value)
    _require(all(isinstance(text, str) for text in found), name, value, "a text, or a sequence of texts")
    return found


def _biases(name: str, value: object) -> Mapping[int, float]:
    _require(isinstance(value, Mapping), name, value, "a mapping of ids to numbers, such as {17: -5}")
    found = {_whole(f"an id of {name}", token): _real(name, bias) for token, bias in value.items()}  # type: ignore[attr-defined]
    for token, bias in found.items():
        _require(token >= 0, f"an id of {name}", token, "at least 0")
        fits = bias == -math.inf or abs(bias) <= _LARGEST_SHIFT
        _require(fits, f"{name} of {token}", bias, "from -1e30 to 1e30, or minus infinity: the token never comes")
    return MappingProxyType(found)


class Sampler:
    """Chooses tokens one after the other; draws one random number per token, none when greedy.

    Args:
        params: how.
        end_ids: tokens that are not chosen before there are `min_tokens`.

    Attributes:
        logprobs: of each token chosen so far, if `params.logprobs` says so.
    """

    def __init__(self, params: SamplingParams, end_ids: Collection[int] = ()) -> None:
        self.params = params
        self.logprobs: list[TokenLogprobs] = []
        self._rng = np.random.default_rng(params.seed)
        self._ahead = deque[float]()
        """Random numbers that were looked at and not used."""
        self._end_ids, self._count, self._drawn = list(end_ids), 0, dict[int, int]()

    def sample(
        self,
        logits: npt.NDArray[np.float32],
        seen: npt.NDArray[np.int64],
        allowed: npt.NDArray[np.bool_] | None = None,
    ) -> int:
        """Choose the next token.

        Args:
            logits: float `[V]`; not changed. Tokens of minus infinity are never chosen.
            seen: ids `[T]` that the repetition penalty applies to.
            allowed: the tokens to choose from, `[V]`; None: all.

        Raises:
            InputError: no finite logit, one that is NaN or plus infinity, or another shape; seen ids, end tokens or ids of the
                bias outside the vocabulary; none allowed; a hook that raised an error or gave no logits.
        """
        given = _checked(logits)
        token = self._choose(self._adjusted(given, seen, allowed), self._random)
        self._count += 1
        if self.params.frequency_penalty or self.params.presence_penalty:
            self._drawn[token] = self._drawn.get(token, 0) + 1
        if self.params.logprobs is not None:
            self.logprobs.append(token_logprobs(given, token, self.params.logprobs))
        return token

    def _adjusted(self, given: Floats, seen: npt.NDArray[np.int64], allowed: npt.NDArray[np.bool_] | None) -> Floats:
        """What is drawn from, in the order that `SamplingParams` says."""
        params, logits = self.params, given
        if params.logits_hook is not None:
            logits = _hooked(params.logits_hook, seen, logits)
        if params.logit_bias:
            logits = _biased(logits, params.logit_bias)
        if params.repetition_penalty != 1.0:
            logits = _penalised(logits, np.asarray(seen), params.repetition_penalty)
        if self._drawn:
            logits = _discouraged(logits, self._drawn, params.frequency_penalty, params.presence_penalty)
        if allowed is not None:
            logits = np.where(allowed, logits, -np.inf)
        if self._end_ids and self._count < params.min_tokens:
            logits = _without(logits, self._end_ids)
        return logits if logits is given or highest_of(logits) > -math.inf else _refuse_all(allowed is not None)

    def guess(self, logits: npt.NDArray[np.float32], uniform: float) -> tuple[int, float]:
        """What would be drawn from another model's logits `[V]` by a random number, and how likely its likeliest token is.

        Nothing is drawn: neither are the model's own logits looked at, nor what `SamplingParams` does to them before filters.
        """
        surest = 1 / float(weights_of(logits, 1.0).sum())
        return self._choose(logits, lambda: uniform), surest

    def _choose(self, logits: Floats, random: Callable[[], float]) -> int:
        params = self.params
        if params.is_greedy:
            return int(logits.argmax())
        if params.top_k == 0 and params.top_p == 1 and params.min_p == 0:
            return index_of(weights_of(logits, params.temperature), random())  # nothing to filter: no need to sort
        found = falling(logits, params.top_k or len(logits))
        weights = weights_of(found, params.temperature)
        return id_at(logits, found, index_of(weights[: _count_kept(weights, params)], random()))

    def uniform(self, count: int) -> npt.NDArray[np.float64]:
        """The numbers of [0, 1) that the next tokens are drawn by, `[count]`; zeros, and none used up, when greedy."""
        return np.array([0.0 if self.params.is_greedy else self._random() for _ in range(count)])

    def upcoming(self) -> Iterator[float]:
        """The numbers that the next tokens will be drawn by, one by one, and none used up; zeros when greedy."""
        place = 0
        while True:
            if not self.params.is_greedy and place == len(self._ahead):
                self._ahead.append(self._rng.random())
            yield 0.0 if self.params.is_greedy else self._ahead[place]
            place += 1

    def _random(self) -> float:
        return self._ahead.popleft() if self._ahead else self._rng.random()


def _checked(logits: npt.ArrayLike) -> Floats:
    try:
        logits = np.asarray(logits)
    except ValueError:
        raise InputError("can't sample: logits are ragged, expected an array [vocabulary]") from None
    if logits.ndim != 1 or not logits.size or logits.dtype.kind not in "fiu":
        got = f"{logits.dtype} of shape {list(logits.shape)}"
        raise InputError(f"can't sample: got logits {got}, expected floats [vocabulary], those of one token")
    highest = highest_of(logits)
    if not math.isfinite(highest):
        raise InputError(
            f"can't sample: the largest logit is {highest}, expected a finite number; the model's output is broken"
        )
    return logits


def _refuse_all(is_constrained: bool) -> Floats:
    what = "the constraint, " if is_constrained else ""
    raise InputError(f"can't sample: {what}the bias, the hook and min_tokens together allow no token; loosen one of them")


def _hooked(hook: LogitsHook, seen: npt.NDArray[np.int64], logits: Floats) -> Floats:
    try:
        found = np.asarray(hook(np.asarray(seen), logits.copy()))
    except Exception as error:  # whatever a user's function may raise
        raise InputError(f"the logits_hook raised {type(error).__name__}: {error}") from error
    if found.shape != logits.shape or found.dtype.kind not in "fiu":
        got = f"{found.dtype} of shape {list(found.shape)}"
        raise InputError(f"the logits_hook gave {got}, expected floats {list(logits.shape)}: the logits to draw from")
    highest = found.max()
    if np.isnan(highest) or highest == np.inf:
        raise InputError(f"the logits_hook gave {highest}, expected finite numbers, or minus infinity for what must not come")
    return found


def _biased(logits: Floats, bias: Mapping[int, float]) -> Floats:
    if (largest := max(bias)) >= len(logits):
        raise InputError(f"logit_bias has id {largest}, expected ids below {len(logits)}")
    found = logits.astype(np.float64)
    found[list(bias)] += list(bias.values())
    return found


def _discouraged(logits: Floats, drawn: Mapping[int, int], frequency: float, presence: float) -> Floats:
    """github.com/openai/openai-openapi, "Frequency and presence penalties"."""
    found = logits.astype(np.float64)
    found[list(drawn)] -= np.array(list(drawn.values())) * frequency + presence
    return found


def _without(logits: Floats, ids: list[int]) -> Floats:
    if min(ids) < 0 or max(ids) >= len(logits):
        raise InputError(f"the end tokens are {ids}, expected ids below {len(logits)}")
    found = logits.astype(np.float64)  # a hook may have given integers, which hold no infinity
    found[ids] = -np.inf
    return found


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


def _count_kept(weights: Weights, params: SamplingParams) -> int:
    """How many of the falling weights top-p and min-p keep; the first is 1, so that min-p is a weight."""
    count = len(weights)
    if params.top_p < 1:
        count = index_of(weights, params.top_p, "left") + 1
    if params.min_p > 0:
        count = min(count, int(np.count_nonzero(weights >= params.min_p)))
    return count
