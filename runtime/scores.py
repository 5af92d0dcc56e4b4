"""How likely a model finds a text that is there already, token by token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from ..bundle import Bundle
from ..contract import period_of
from ..errors import ConfigError, InputError
from .capacity import capacity_for, whole
from .logprobs import TokenLogprobs
from .model import Model, load
from .scoring import append_scored, bits_per_byte
from .session import Session


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """Of one text.

    Attributes:
        ids: of all its tokens, `[T]`.
        logprobs: of `ids[1:]`, as nothing says how likely the first is.
        logprob: their sum, in nats.
        perplexity: exp of minus their mean.
        bits_per_byte: of the UTF-8 text, as `evaluate` counts them: as if the first token cost as much as the others do on
            average. None for ids of a model without a tokenizer.
        bytes: of the text in UTF-8, None where `bits_per_byte` is.
        window: tokens that were read in one go at most.
        stride: by how many tokens each window begins after the one before; None: one window held all of the text.
    """

    ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...]
    logprob: float
    perplexity: float
    bits_per_byte: float | None
    bytes: int | None
    window: int
    stride: int | None


def score(
    model: str | Path | Bundle | Model,
    text: str | npt.ArrayLike,
    top: int = 0,
    *,
    stride: int | None = None,
    target: str | None = None,
    threads: int | None = None,
) -> Score:
    """Say how likely each token of a text is after those before it, in the model's own distribution.

    A text that the context holds is read as one, so that what comes out is exact. A longer one is read in windows as long as
    the context, each of which begins `stride` tokens after the one before: every token is scored once, in the first window
    that reaches it, with at least `context - stride` tokens in front of it. A small stride is nearer to what an endless context
    would say, and takes more time. Where the data decides who fires, a window fires as a text that begins there.

    Args:
        model: a bundle, or a model that is loaded.
        text: text, or ids `[T]`.
        top: so many of the likeliest tokens are kept with each token.
        stride: None: half the context, less what of it is no whole number of the model's patches or groups.
        target: as of `load`, for a bundle.
        threads: likewise.

    Raises:
        InputError: a text of fewer than two tokens, no text, ids outside the vocabulary, a `top` below 0, a stride that is not
            from 1 to less than the context, or logits that are not finite.
        ConfigError: text for a model without a tokenizer; a target or threads for a model that is loaded; else as `load`.
        BundleError, BackendUnavailable, EngineMismatchError: as `load`.
    """
    opened = _model(model, target, threads)
    top = whole("top", top, InputError)
    if top < 0:
        raise InputError(f"top is {top}, expected at least 0: of the likeliest tokens at each place")
    ids = opened.prompt_ids(text)
    if len(ids) < 2:
        raise InputError(f"the text has {len(ids)} tokens, expected at least two: nothing says how likely the first is")
    context = capacity_for(opened.engines, opened.manifest.model, None)
    step = _stride(opened, stride, context)
    with opened.session(capacity=min(len(ids), context)) as session:
        found = [one for window in _windows(session, ids, top, step) for one in window]
    size = _bytes(opened, text, ids)
    nats = -sum(one.logprob for one in found)
    return Score(
        ids=tuple(ids),
        logprobs=tuple(found),
        logprob=-nats,
        perplexity=_exp(nats / len(found)),
        bits_per_byte=bits_per_byte(nats / len(found), len(ids), size),
        bytes=size or None,
        window=min(len(ids), context),
        stride=step if len(ids) > context else None,
    )


def _model(given: str | Path | Bundle | Model, target: str | None, threads: int | None) -> Model:
    if not isinstance(given, Model):
        return load(given, target or "cpu", threads)
    if target is not None or threads is not None:
        raise ConfigError("got a target or threads for a model that is loaded already; give them to load, or give a bundle")
    return given


def _stride(model: Model, stride: int | None, context: int) -> int:
    if stride is None:
        period = period_of(model.specs)
        return max(context // 2 // period * period, 1)
    stride = whole("stride", stride, InputError)
    if not 1 <= stride < context:
        raise InputError(f"stride is {stride}, expected 1 to {context - 1}, less than the context of {context} tokens")
    return stride


def _windows(session: Session, ids: list[int], top: int, stride: int) -> Iterator[list[TokenLogprobs]]:
    """Of each window, what no earlier one scored."""
    done, start = 1, 0
    while done < len(ids):
        session.reset()
        window = ids[start : start + session.capacity]
        yield append_scored(session, window, top, first=done - start)[0]
        done, start = start + len(window), start + stride


def _bytes(model: Model, text: str | npt.ArrayLike, ids: list[int]) -> int:
    if isinstance(text, str):
        return len(text.encode())
    return 0 if model.tokenizer is None else len(model.tokenizer.decode(ids).encode())


def _exp(nats: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.exp(nats))
