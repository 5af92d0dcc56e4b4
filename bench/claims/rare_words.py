"""Claim 4: hierarchical models predict rare words better.

Trained models beside the trained vanilla one of equal compute, on the same positions of the same windows: the difference of
their losses by how common the token is, and by how common the word.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from ...calibration.buckets import EDGES, Floats
from ...calibration.quality import score
from ...calibration.text import Ids, read_ids, spread
from ...errors import ConfigError
from ...progress import Progress
from ...runtime.model import Model, load
from .clustered import clustered_mean
from .result import RareGroup, RareModel, RareWordsResult, Verdict
from .settings import Settings
from .verdicts import answer_of
from .words import NO_WORD, Words, find_words
from .workshop import Workshop

Losses = Floats | npt.NDArray[np.float64]
WORD_EDGES = (1, 2, 4, 11, 101)
"""Lower ends of the groups of words, in occurrences in the whole text."""


class _Training(msgspec.Struct):
    """What is read of a `training.json`."""

    flops_per_token: float
    curve: list[_Point]


class _Point(msgspec.Struct):
    tokens: int


class _Losses(NamedTuple):
    """Of every predicted position: its place in the text, its token and window, and what each model lost there."""

    place: Ids
    target: Ids
    window: Ids
    nats: dict[str, Floats]


def measure_rare_words(
    workshop: Workshop,
    settings: Settings,
    checkpoints: Mapping[str, Path],
    texts: Sequence[Path],
    threads: int,
    report: Progress,
) -> RareWordsResult:
    """Losses of all checkpoints on the same windows.

    Raises:
        ConfigError: not one vanilla checkpoint among them or nothing to compare it with, checkpoints of different tokenizers,
            windows that are longer than a context, or too little text.
    """
    models = {name: load(workshop.trained(name, path), threads=threads) for name, path in checkpoints.items()}
    vanilla = _vanilla_of(models)
    ids = _same_ids(models, vanilla, texts)
    window, context = settings.window, min(model.manifest.model.context for model in models.values())
    if not 2 <= window <= context:
        raise ConfigError(f"the window is {window} tokens, expected 2 to {context}, the shortest context of the models")
    places = [part.astype(np.int64) for part in spread(np.arange(len(ids)), window, settings.limit)]
    if not places:
        raise ConfigError("the text is a single token, which predicts nothing; give more text")
    losses = _losses(models, ids, places, report)
    tokenizer = models[vanilla].tokenizer
    words = None if tokenizer is None else find_words(ids, tokenizer)
    compute = {name: _compute(path) for name, path in checkpoints.items()}
    ratios = {name: _ratio(own, compute[vanilla]) for name, own in compute.items()}
    others = {name: model.manifest.model.hierarchy for name, model in models.items() if name != vanilla}
    found = [_compared(name, vanilla, hierarchy, ratios[name], losses, ids, words) for name, hierarchy in others.items()]
    return RareWordsResult(
        vanilla=models[vanilla].manifest.model.hierarchy,
        texts=[text.name for text in texts],
        window=window,
        windows=len(places),
        text_tokens=len(ids),
        models=found,
        verdict=verdict_on_rare_words(found),
    )


def _vanilla_of(models: Mapping[str, Model]) -> str:
    found = [name for name, model in models.items() if model.manifest.model.architecture == "vanilla"]
    if len(found) != 1 or len(models) < 2:
        given = [f"{name} ({model.manifest.model.architecture})" for name, model in models.items()]
        raise ConfigError(
            "rare words need one vanilla checkpoint, as --hierarchy 6@1 trains it, and others to compare with it, "
            f"got {', '.join(given) or 'none'}"
        )
    return found[0]


def _same_ids(models: Mapping[str, Model], vanilla: str, texts: Sequence[Path]) -> Ids:
    ids = {name: read_ids(texts, model).ids for name, model in models.items()}
    for name, own in ids.items():
        if not np.array_equal(own, ids[vanilla]):
            raise ConfigError(
                f'"{name}" and "{vanilla}" read the text as different tokens; '
                "losses can be compared between models of one tokenizer"
            )
    return ids[vanilla]


def _losses(models: Mapping[str, Model], ids: Ids, places: Sequence[Ids], report: Progress) -> _Losses:
    given, nats = [ids[part] for part in places], {}
    for done, (name, model) in enumerate(models.items()):
        report(f"reading text with {name}", done, len(models))
        scores = score(model, None, given)
        nats[name] = scores.nats
    return _Losses(np.concatenate([part[1:] for part in places]), scores.target, scores.window, nats)


def _compared(
    name: str, vanilla: str, hierarchy: str, compute: float | None, losses: _Losses, ids: Ids, words: Words | None
) -> RareModel:
    mine, theirs = losses.nats[name], losses.nats[vanilla]
    per_million = np.bincount(ids)[losses.target] * 1e6 / len(ids)
    return RareModel(
        model=name,
        hierarchy=hierarchy,
        compute=compute,
        overall=_group(mine, theirs, losses.window, 0, None),
        tokens=groups(per_million, EDGES, mine, theirs, losses.window),
        words=[] if words is None else _word_groups(words, losses, mine, theirs),
    )


def _word_groups(words: Words, losses: _Losses, mine: Floats, theirs: Floats) -> list[RareGroup]:
    """Words all of whose tokens were predicted in one window; their losses are sums."""
    word = words.of_token[losses.place]
    is_part = word != NO_WORD
    key = losses.window[is_part] * len(words.tokens) + word[is_part]
    present, place, counts = np.unique(key, return_inverse=True, return_counts=True)
    window, kind = present // len(words.tokens), present % len(words.tokens)
    is_whole = counts == words.tokens[kind]
    own, other = (np.bincount(place, nats[is_part])[is_whole] for nats in (mine, theirs))
    return groups(words.occurrences[kind][is_whole], WORD_EDGES, own, other, window[is_whole])


def groups(
    rates: npt.NDArray[np.float64] | Ids, edges: Sequence[int], mine: Losses, theirs: Losses, window: Ids
) -> list[RareGroup]:
    """Values `[T]` by their rate `[T]`, from one edge to the next; empty groups are left out."""
    found = []
    for low, high in itertools.pairwise((*edges, math.inf)):
        chosen = (rates >= low) & (rates < high)
        if chosen.any():
            below = None if math.isinf(high) else int(high)
            found.append(_group(mine[chosen], theirs[chosen], window[chosen], int(low), below))
    return found


def _group(mine: Losses, theirs: Losses, window: Ids, at_least: int, below: int | None) -> RareGroup:
    difference = clustered_mean(mine.astype(np.float64) - theirs.astype(np.float64), window)
    return RareGroup(
        at_least=at_least,
        below=below,
        count=len(mine),
        nats=float(mine.mean(dtype=np.float64)),
        vanilla_nats=float(theirs.mean(dtype=np.float64)),
        difference=difference.mean,
        half_width=difference.half_width,
    )


def interval(group: RareGroup) -> str:
    """The difference and its interval."""
    return f"{group.difference:+.3f}" + ("" if group.half_width is None else f" ± {group.half_width:.3f}")


def _compute(checkpoint: Path) -> float | None:
    """Arithmetic spent on training, if the checkpoint says."""
    path = checkpoint / "training.json"
    if not path.is_file():
        return None
    training = msgspec.json.decode(path.read_bytes(), type=_Training)
    return training.flops_per_token * training.curve[-1].tokens if training.curve else None


def _ratio(mine: float | None, theirs: float | None) -> float | None:
    return None if mine is None or theirs is None else mine / theirs


def verdict_on_rare_words(models: Sequence[RareModel]) -> Verdict:
    """It holds for a model if the interval of the rarest group lies below zero: of tokens, and of words."""
    held, parts = [], []
    for model in models:
        rarest = [("tokens", model.tokens[0])] + ([("words", model.words[0])] if model.words else [])
        held += [group.answer == "better" for _, group in rarest]
        said = [f"{kind} {group.answer} ({interval(group)} nats)" for kind, group in rarest]
        parts.append(f"{model.model}: rarest {', '.join(said)}; all {model.overall.answer} ({interval(model.overall)})")
    return Verdict(answer=answer_of(held), sentence="Against the vanilla model: " + "; ".join(parts) + ".")
