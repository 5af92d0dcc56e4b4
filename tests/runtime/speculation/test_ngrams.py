"""Drafts from the text itself."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from foveal.runtime.speculation.drafter import Proposal
from foveal.runtime.speculation.ngrams import NgramDrafter

LINE = [1, 2, 3, 4, 5, 6]
"""As many tokens as have to agree."""


def proposals(ids: list[int], count: int = 8) -> list[Proposal]:
    """The first of them behind some tokens."""
    drafter = NgramDrafter()
    drafter.catch_up(np.array(ids, np.int64))
    found = list(itertools.islice(drafter.propose(), count))
    assert drafter.is_silent is (not found)
    return found


def proposed(ids: list[int], count: int = 8) -> list[int]:
    """Their tokens."""
    return [one.token for one in proposals(ids, count)]


def test_what_followed_follows() -> None:
    """After the last place that ended in the same way."""
    assert proposed([*LINE, 7, 9, 9, *LINE], 3) == [7, 9, 9]
    assert proposed([*LINE, 7, 0, *LINE, 8, 0, *LINE], 1) == [8]


def test_the_place_that_agrees_for_longest_counts() -> None:
    """Not the latest."""
    longer = [*range(20, 30), *LINE]
    assert proposed([*longer, 7, 0, *LINE, 8, *longer], 1) == [7]


def test_loops_go_on() -> None:
    """A text that ends within what it repeats is drafted round and round."""
    assert proposed([1, 2, 3] * 3, 7) == [1, 2, 3, 1, 2, 3, 1]
    assert proposed([4] * 8, 3) == [4, 4, 4]


def test_what_is_new_is_not_guessed() -> None:
    """Nothing is proposed behind tokens that never came before, or of which too few did."""
    assert proposed([]) == proposed([1]) == proposed(LINE) == proposed([*LINE, *LINE[:-1]]) == []


def test_ids_beyond_all_characters_are_told_apart_by_what_is_left() -> None:
    """Such as surrogates, and those above a million: they may be guessed wrongly, and are checked."""
    ids = [0xD800, 0xDFFF, 0x10FFFF, 2**31, 0, 0xFFFF]
    assert proposed([*ids, 55_300, 3, *ids], 2) == [55_300, 3]


def test_a_guess_is_as_likely_as_guesses_were() -> None:
    """By the length of agreement: of long ones more than of short ones, once the text has shown it."""
    drafter = NgramDrafter()
    line = list(range(40))
    for end in range(20):
        for token in (*line, 100 + end, 3, 200 + end):
            drafter.extend(token)
    for token in line[:30]:
        drafter.extend(token)
    first, guess = next(drafter.propose()), proposals([*LINE, 7, *LINE], 1)[0]
    assert first.token == 30
    assert first.chance > 0.9 > guess.chance


@given(st.lists(st.integers(0, 2), max_size=80), st.integers(0, 80))
def test_each_proposal_followed_the_same_tokens_before(ids: list[int], cut: int) -> None:
    """Whether the text comes at once, or token by token; and there is one if the last tokens came before."""
    parts = NgramDrafter()
    parts.catch_up(np.array(ids[:cut], np.int64))
    for token in ids[cut:]:
        parts.extend(token)
    sixes = [tuple(ids[place : place + 6]) for place in range(len(ids) - 5)]
    is_repeated = bool(sixes) and sixes[-1] in sixes[:-1]
    assert parts.is_silent is not is_repeated
    for found in (proposed(ids, 5), [one.token for one in itertools.islice(parts.propose(), 5)]):
        assert bool(found) is is_repeated
        text = list(ids)
        for token in found:
            assert any(text[place : place + 4] == [*text[-3:], token] for place in range(len(text) - 3))
            text.append(token)
