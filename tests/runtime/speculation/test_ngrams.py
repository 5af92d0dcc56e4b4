"""Drafts from the text itself."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from foveal.runtime.speculation.ngrams import NgramDrafter


def proposed(ids: list[int], count: int = 8) -> list[int]:
    """The first tokens proposed behind some."""
    drafter = NgramDrafter()
    drafter.extend(ids)
    return [one.token for one in itertools.islice(drafter.propose(), count)]


def test_what_followed_follows() -> None:
    """After the last place that ended in the same way."""
    assert proposed([1, 2, 3, 4, 5, 9, 9, 1, 2, 3], 4) == [4, 5, 9, 9]
    assert proposed([1, 2, 3, 7, 0, 1, 2, 3, 8, 0, 1, 2, 3], 1) == [8]


def test_the_place_that_agrees_for_longest_counts() -> None:
    """Not the latest."""
    assert proposed([5, 6, 1, 2, 3, 4, 7, 0, 2, 3, 4, 8, 5, 6, 1, 2, 3, 4], 1) == [7]


def test_loops_go_on() -> None:
    """A text that ends within what it repeats is drafted round and round."""
    assert proposed([1, 2, 3, 1, 2, 3, 1], 7) == [2, 3, 1, 2, 3, 1, 2]
    assert proposed([4] * 5, 3) == [4, 4, 4]


def test_what_is_new_is_not_guessed() -> None:
    """Nothing is proposed behind three tokens that never came before."""
    assert proposed([]) == proposed([1]) == proposed([1, 2, 3]) == proposed([1, 2, 3, 1, 2]) == []


def test_a_guess_is_as_likely_as_guesses_were() -> None:
    """By the length of agreement: of long ones more than of short ones, once the text has shown it."""
    drafter = NgramDrafter()
    line = list(range(40))
    for end in range(20):
        drafter.extend([*line, 100 + end, 3, 200 + end])
    drafter.extend(line[:30])
    first = next(drafter.propose())
    other = NgramDrafter()
    other.extend([*range(300), 3, 4, 5])
    guess = next(other.propose())
    assert first.token == 30
    assert first.chance > 0.9 > guess.chance


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(0, 60))
def test_it_is_the_same_however_the_text_comes(ids: list[int], cut: int) -> None:
    """At once, in two parts, or token by token; and each proposal has followed its context somewhere before."""
    whole, parts = NgramDrafter(), NgramDrafter()
    whole.extend(ids)
    parts.extend(ids[:cut])
    for token in ids[cut:]:
        parts.extend([token])
    first = list(itertools.islice(whole.propose(), 5))
    assert first == list(itertools.islice(parts.propose(), 5))
    threes = [tuple(ids[place : place + 3]) for place in range(len(ids) - 2)]
    assert bool(first) is (bool(threes) and threes[-1] in threes[:-1])
    text = list(ids)
    for one in first:
        assert 0 < one.chance < 1
        assert any(text[place : place + 2] == [text[-1], one.token] for place in range(len(text) - 1)) or text[-1] == one.token
        text.append(one.token)
