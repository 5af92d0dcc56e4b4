"""What a choice of tokens is by definition, in exact fractions: the distribution that a sampler's draws must follow."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from fractions import Fraction

import numpy as np

from foveal import SamplingParams

_NEGLIGIBLE = -800
"""exp of less is nothing in float64."""


def shares_of(
    logits: np.ndarray,
    params: SamplingParams,
    seen: Sequence[int] = (),
    drawn: Sequence[int] = (),
    forbidden: Collection[int] = (),
) -> tuple[list[int], np.ndarray]:
    """Ids in the order in which they share [0, 1), and the probability each is drawn with.

    From the likeliest on, ties by the lower; where nothing is left out by a setting, as they are numbered. Tokens that were
    `drawn` count for the penalties of OpenAI's API, those `seen` for the one of repetition.
    """
    exact = {}
    for i, value in enumerate(logits):
        bias = params.logit_bias.get(i, 0.0)
        if np.isfinite(value) and bias > -math.inf and i not in forbidden:
            biased = _penalised(Fraction(float(value)) + Fraction(bias), params, i in seen)
            exact[i] = biased - _discouragement(params, list(drawn).count(i))
    if not exact:
        return [], np.zeros(0)
    ids = sorted(exact, key=lambda i: (-exact[i], i))[: params.top_k or None]
    if params.temperature == 0:
        return ids[:1], np.ones(1)
    scaled = [(exact[i] - exact[ids[0]]) / Fraction(params.temperature) for i in ids]
    weights = np.array([math.exp(value) if value > _NEGLIGIBLE else 0.0 for value in scaled])
    shares = weights / weights.sum()
    is_kept = ((np.cumsum(shares) - shares < params.top_p) | (params.top_p == 1)) & (shares >= params.min_p * shares[0])
    is_kept[0] = True
    kept = np.where(is_kept, shares, 0)
    if params.top_k == 0 and params.top_p == 1 and params.min_p == 0:
        order = np.argsort(ids)
        ids, kept = [ids[place] for place in order], kept[order]
    return ids, kept / kept.sum()


def is_drawn_right(chosen: int, uniform: float, ids: Sequence[int], shares: np.ndarray, tolerance: float) -> bool:
    """Whether a token that can be drawn was, and the uniform number falls into its part of [0, 1)."""
    if chosen not in ids:
        return False
    place = ids.index(chosen)
    end = float(np.cumsum(shares)[place])
    return shares[place] > 0 and end - shares[place] - tolerance <= uniform <= end + tolerance


def _discouragement(params: SamplingParams, count: int) -> Fraction:
    """`c[j] * alpha_frequency + (c[j] > 0) * alpha_presence`, as OpenAI's documentation has it."""
    return count * Fraction(params.frequency_penalty) + (count > 0) * Fraction(params.presence_penalty)


def _penalised(logit: Fraction, params: SamplingParams, is_seen: bool) -> Fraction:
    if not is_seen:
        return logit
    penalty = Fraction(params.repetition_penalty)
    return logit / penalty if logit > 0 else logit * penalty
