"""The settings of a generation by name, as `Model.generate` and all that is like it take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypedDict

from ...errors import InputError
from ..given import shown
from ..guides.constraint import KINDS, Constraint
from ..sampling import LogitsHook, SamplingParams
from ..tokenizer import check_text


class Settings(TypedDict, total=False):
    """Those of `SamplingParams`, and seven more.

    `json_schema`, `regex` or `grammar`, of which at most one is given, are the constraint. `end` are tokens that end the text:
    ids, or as the tokenizer writes them, such as `"</s>"`. `end_rules` are names of ends that the model's own ids mark, such as
    `"piece"` (`EndRule`; `foveal inspect` lists them). `draft` is what guesses tokens to
    come, which change nothing but the time it takes, and `draft_tokens` how many at most.
    """

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    frequency_penalty: float
    presence_penalty: float
    logit_bias: Mapping[int, float]
    logits_hook: LogitsHook | None
    constraint: Constraint | None
    json_schema: str | Mapping[str, Any] | bool | None
    regex: str | None
    grammar: str | None
    logprobs: int | None
    prompt_logprobs: int | None
    seed: int | None
    max_new_tokens: int
    min_tokens: int
    max_seconds: float | None
    stop: str | Sequence[str]
    end: int | str | Sequence[int | str]
    end_rules: str | Sequence[str]
    draft: Any
    draft_tokens: int | None


NAMES = frozenset(Settings.__annotations__)
_OF_PARAMS = frozenset(field.name for field in fields(SamplingParams))


def check_names(settings: Mapping[str, Any]) -> None:
    """Raise InputError for a setting that there is not."""
    for name in settings:
        if name not in NAMES:
            raise InputError(f'there is no setting "{name}"; there are: {", ".join(sorted(NAMES))}')


MOST_TEXTS = 10_000
"""Of one prompt: all of them are in memory at once, whether they have a slot or not."""


def check_count(n: int) -> None:
    """Raise InputError for so many texts after one prompt, if there can't be."""
    if not 1 <= n <= MOST_TEXTS:
        raise InputError(f"n is {shown(n)}, expected 1 to {MOST_TEXTS:,}: texts of each prompt")


def params_of(settings: Mapping[str, Any]) -> SamplingParams:
    """What settings say of choosing tokens; `end` and `end_rules` are not part of it.

    Raises:
        InputError: an unknown setting, one out of its range, several constraints, or one that can't be followed.
    """
    check_names(settings)
    given = {name: value for name, value in settings.items() if name in _OF_PARAMS}
    wanted = [name for name in ("constraint", *KINDS) if settings.get(name) is not None]
    if len(wanted) > 1:
        raise InputError(f"got {' and '.join(wanted)}, expected at most one of them: a text follows one constraint")
    for kind in KINDS:
        if kind in wanted:
            given["constraint"] = Constraint(kind, settings[kind])
    params = SamplingParams(**given)
    for text in params.stop:
        check_text(text, "the stop string")
    return params
