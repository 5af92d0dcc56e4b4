"""What a user's `draft` stands for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from ...bundle import Bundle, Manifest, may_be_there
from ...errors import ConfigError, InputError
from ..capacity import whole
from ..engines.native import NativeEngine
from ..given import shown
from ..sampling import Sampler
from ..session import Session
from .costs import CallCosts
from .drafter import Drafter
from .drafting import MOST_DRAFTED, Drafting
from .model_drafter import Guesses, ModelDrafter
from .ngrams import NgramDrafter

NGRAMS = "ngrams"
_LARGEST = 1024
_ALLOWED = f'"{NGRAMS}", a bundle of another model with the same tokens, or a model that is loaded'


class DraftedModel(Protocol):
    """What is asked of a model that drafts, or that is drafted for: of `runtime/model.py`, which imports this."""

    bundle: Bundle
    engines: Any
    guesses: Guesses
    identity: str

    @property
    def manifest(self) -> Manifest: ...

    def session(self) -> Session:
        """A fresh one, of one sequence."""
        ...


def checked_most(most: object) -> int:
    """The most tokens of a draft; None: the default.

    Raises:
        InputError: it is no whole number of 1 to 1,024.
    """
    if most is None:
        return MOST_DRAFTED
    found = whole("draft_tokens", most, InputError)
    if not 1 <= found <= _LARGEST:
        raise InputError(f"draft_tokens is {found}, expected 1 to {_LARGEST:,}: tokens of one draft, which may be shorter")
    return found


def drafting_of(
    draft: object, most: object, model: DraftedModel, costs: CallCosts, model_of: Callable[[object], DraftedModel]
) -> Drafting:
    """How a model's sequences are drafted.

    Args:
        draft: `"ngrams"`, a bundle or its path, or a model.
        most: tokens of a draft; None: the default.
        model: that checks.
        costs: of its calls.
        model_of: finds a drafting model by what was given for it.

    Raises:
        InputError: a draft of another kind, or a number of tokens out of range.
        ConfigError: a model of other tokens.
        BundleError: a path that is no bundle; and what else `model_of` raises.
    """
    count = min(checked_most(most), most_alike(model) - 1)
    if draft == NGRAMS and isinstance(draft, str):
        return Drafting(lambda sampler: NgramDrafter(), costs, count)
    other = model_of(draft)
    check_same_tokens(model, other)

    def open_drafter(sampler: Sampler) -> Drafter:
        return ModelDrafter(other.session(), sampler, other.guesses)

    return Drafting(open_drafter, costs, count)


def most_alike(model: DraftedModel) -> int:
    """Tokens of a call in which each row is what it is alone, bit for bit, where stages run so; else more than a draft has."""
    engines = model.engines if isinstance(model.engines, tuple) else ()
    fewest = [engine.most_rows * engine.spec.stride for engine in engines if isinstance(engine, NativeEngine)]
    return min(fewest, default=_LARGEST + 1)


def checked_bundle(draft: object) -> str | Path | Bundle:
    """What is given for a drafting model that is not loaded yet; raises InputError unless it can be one."""
    if isinstance(draft, str) and not may_be_there(draft):
        raise InputError(f"draft is {shown(draft)}, where there is no bundle; expected {_ALLOWED}")
    if not isinstance(draft, str | Path | Bundle):
        raise InputError(f"draft is {shown(draft)}, expected {_ALLOWED}")
    return draft


def check_same_tokens(model: DraftedModel, other: DraftedModel) -> None:
    """Raise ConfigError unless an id stands for the same token in both."""
    own, its = model.manifest, other.manifest
    if own.model.vocab_size != its.model.vocab_size:
        raise ConfigError(
            f"the drafting model {other.bundle.path} has {its.model.vocab_size:,} ids, {model.bundle.path} has "
            f"{own.model.vocab_size:,}; a model that drafts needs the same tokenizer"
        )
    if _tokenizer(model) != _tokenizer(other):
        raise ConfigError(
            f"the drafting model {other.bundle.path} has another tokenizer than {model.bundle.path}: its ids stand for other "
            "tokens; take a model that was trained with the same"
        )


def _tokenizer(model: DraftedModel) -> str | None:
    """What tells tokenizers apart: the name, of a file its hash."""
    name = model.manifest.tokenizer
    entry = None if name is None else model.manifest.files.get(name)
    return name if entry is None else entry.sha256
