"""Words of a text, from its tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foveal.bench.claims.words import NO_WORD, find_words

PIECES = ["Mega", "deth", ", ", "the", " the", " Mega", "\n", "'s", " 1"]


class Pieces:
    """Ids are places in `PIECES`."""

    def encode(self, text: str) -> list[int]:
        """Never asked for."""
        raise NotImplementedError

    def decode(self, ids: Sequence[int]) -> str:
        """The pieces one after the other."""
        return "".join(PIECES[id] for id in ids)


def test_pieces_join_into_words() -> None:
    """`Megadeth, the the Megadeth's\\nthe 1`: spaces begin a word, punctuation and numbers are none."""
    ids = np.array([0, 1, 2, 3, 4, 5, 1, 7, 6, 3, 8])
    words = find_words(ids, Pieces())
    assert words.of_token.tolist() == [0, 0, NO_WORD, 1, 2, 3, 3, 3, NO_WORD, 4, NO_WORD]
    assert words.tokens.tolist() == [2, 1, 1, 3, 1]
    assert words.occurrences.tolist() == [1, 3, 3, 1, 3]


def test_case_does_not_matter() -> None:
    """A name at the beginning of a line is the name elsewhere."""
    words = find_words(np.array([0, 5]), Pieces())
    assert words.occurrences.tolist() == [2, 2]


def test_a_text_without_words() -> None:
    """Has none."""
    words = find_words(np.array([6, 8, 6]), Pieces())
    assert words.of_token.tolist() == [NO_WORD] * 3
    assert (len(words.tokens), len(words.occurrences)) == (0, 0)
