"""Guides for one model."""

from __future__ import annotations

from functools import partial
from typing import Any

from ...errors import InputError
from ..tokenizer import TextTokenizer
from .constraint import Constraint
from .library import brief, limits, load_library, with_stack
from .matcher import Matcher
from .token_guide import TokenGuide
from .vocabulary import Vocabulary


class Guides:
    """Makes guides; for any number of threads. Costs about a second for a vocabulary of 128k, so make it once per model.

    Args:
        tokenizer: the model's.
        vocab_size: ids that the model has, V; those without a token are never allowed.

    Raises:
        InputError: the tokenizer's tokens have no bytes of their own.
        BackendUnavailable: llguidance is not installed.
    """

    def __init__(self, tokenizer: TextTokenizer, vocab_size: int) -> None:
        self._vocabulary = Vocabulary(tokenizer.spelling(), vocab_size)

    def guide(self, constraint: Constraint, end_ids: frozenset[int] = frozenset()) -> TokenGuide:
        """A guide at the beginning of a text; its first mask is being computed.

        Args:
            constraint: what the text has to follow.
            end_ids: tokens that end it: allowed where it may end, and nowhere else. Without any, nothing is allowed where
                only the end may follow.

        Raises:
            InputError: a constraint that llguidance refuses for this vocabulary, as one that names a token which is not there.
        """
        size = self._vocabulary.size
        if wrong := [id for id in end_ids if not 0 <= id < size]:
            raise InputError(f"the end tokens hold {wrong[0]}, expected 0 <= id < {size}")
        make = partial(with_stack, partial(self._new_matcher, constraint.grammar()))
        return TokenGuide(self._vocabulary, Matcher(make, made=make()), end_ids)

    def _new_matcher(self, grammar: str) -> Any:
        matcher = load_library().LLMatcher(self._vocabulary.library_tokenizer, grammar, log_level=0, limits=limits())
        if matcher.is_error():
            raise InputError(f"the constraint can't be followed with this tokenizer: {brief(matcher.get_error())}")
        return matcher
