"""What a device's sampler can draw by, and how it is told: all that it is given is an ordinary fp32 or int64 number."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ..contract import CANDIDATES
from ..errors import InputError
from .sampling import SamplingParams

_COLDEST, _HOTTEST = 1e-30, 1e30
"""Between them fp32 holds the inverse of a temperature, and differences of logits that a GPU flushes to 0 weigh nothing."""
_FLOAT32 = np.finfo(np.float32)


def can_draw(params: SamplingParams) -> bool:
    """Whether a device's sampler follows these settings: greedy, or a choice among few enough, from the logits as they are."""
    few = 1 <= params.top_k <= CANDIDATES and _COLDEST <= params.temperature <= _HOTTEST
    return params.takes_logits_as_they_are and (params.is_greedy or few)


def check_draws(params: SamplingParams, uniform: npt.ArrayLike, shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    """The numbers `[draws, B]` as an array; raises InputError unless a device can draw by these settings and numbers."""
    if not isinstance(params, SamplingParams):
        raise InputError(f"the settings are {type(params).__name__}, expected SamplingParams, such as SamplingParams(top_k=5)")
    if not can_draw(params):
        raise InputError(
            f"a device draws greedily, or with top_k from 1 to {CANDIDATES} at temperatures from {_COLDEST} to {_HOTTEST}, and "
            "without penalties, bias, hook, constraint, log probabilities or min_tokens; "
            f"got {params}; draw from the logits of advance by these"
        )
    try:
        numbers = np.asarray(uniform, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"the random numbers are no array ({error}), expected one of shape {list(shape)}") from None
    if numbers.shape != shape or not ((numbers >= 0) & (numbers < 1)).all():
        raise InputError(
            f"got random numbers of shape {list(numbers.shape)}, expected {list(shape)}, each at least 0 and below 1"
        )
    return numbers


def settings_of(params: SamplingParams) -> Mapping[str, float]:
    """What it is told of settings that it can draw by; by the tensor's name."""
    return {
        "inverse_temperature": 1.0 if params.is_greedy else 1 / params.temperature,
        "top_k": 1 if params.is_greedy else params.top_k,
        "top_p": max(params.top_p, float(_FLOAT32.tiny)),  # at 0 it would keep none
        "min_p": params.min_p,
    }


def uniform_of(uniform: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Random numbers of [0, 1) as it takes them: none is rounded to 1."""
    return np.minimum(uniform.astype(np.float32), np.float32(1 - _FLOAT32.epsneg))


def check_drawn(drawn: npt.NDArray[np.int64]) -> None:
    """Raise InputError if it found no token that can be drawn."""
    if (drawn < 0).any():
        raise InputError("can't sample: no logit that the device drew from is finite; the model's output is broken")
