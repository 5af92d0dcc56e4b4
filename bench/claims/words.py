"""Tokens to the words they are parts of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...runtime.tokenizer import TextTokenizer

Ids = npt.NDArray[np.int64]
NO_WORD = -1


class Words(NamedTuple):
    """Of every token of a text `[T]`, which word it is part of (`NO_WORD`: punctuation, spaces); of every word `[W]`, how many
    tokens it has and how often it occurs in the text."""

    of_token: Ids
    tokens: Ids
    occurrences: Ids


def find_words(ids: Ids, tokenizer: TextTokenizer) -> Words:
    """A word is a run of tokens with letters in them, up to a token that begins or ends with a space; case does not matter."""
    pieces = {int(id): tokenizer.decode([int(id)]) for id in np.unique(ids)}
    of_token, texts, is_open = np.full(len(ids), NO_WORD), [], False
    for place, id in enumerate(ids):
        piece = pieces[int(id)]
        if not any(letter.isalpha() for letter in piece):
            is_open = False
            continue
        if not is_open or piece[0].isspace():
            texts.append("")
        texts[-1] += piece
        of_token[place] = len(texts) - 1
        is_open = not piece[-1].isspace()
    if not texts:
        return Words(of_token, np.zeros(0, np.int64), np.zeros(0, np.int64))
    _, kind, counts = np.unique([text.strip().lower() for text in texts], return_inverse=True, return_counts=True)
    return Words(of_token, np.bincount(of_token[of_token != NO_WORD]), counts[kind])
