"""Drafts rest where they save less than they take, are tried again, and take a bounded share of the time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from foveal.runtime.speculation.account import SHARE, TRIAL, Account


def drafted(account: Account, won: float, tokens: int) -> list[bool]:
    """Of so many tokens, whether each was drawn with drafts, each of which wins so much."""
    found = list[bool]()
    while len(found) < tokens:
        if account.rest:
            found += [False] * account.rest
            account.rested(account.rest)
            account.begin(0.1, is_silent=False)
        else:
            account.note(won, is_silent=False)
            found.append(True)
    return found[:tokens]


def test_what_pays_never_rests() -> None:
    """However little it wins."""
    assert all(drafted(Account(), 1e-9, 5000))


def test_what_lost_a_trial_rests_until_its_share_has_made_up_for_it() -> None:
    """A hundred tokens for each token's time that was lost; and then it is tried again."""
    account = Account()
    found = drafted(account, -0.5, 20_000)
    assert all(found[: int(TRIAL / 0.5)])
    assert not any(found[int(TRIAL / 0.5) + 1 : int(TRIAL / SHARE)])
    assert any(found[10_000:])


@given(st.floats(1e-4, 20), st.floats(0, 30))
def test_what_never_pays_takes_its_share_and_one_trial(lost: float, took: float) -> None:
    """Whatever each loses, and however long it takes to catch up."""
    account, tokens, spent = Account(), 0, 0.0
    while tokens < 50_000:
        if account.rest:
            tokens += account.rest
            account.rested(account.rest)
            account.begin(took, is_silent=False)
            spent += took
        else:
            tokens += 1
            account.note(-lost, is_silent=False)
            spent += lost
        assert spent <= SHARE * tokens + 2 * (TRIAL + lost) + took + 1e-6


def test_a_text_that_changes_is_noticed() -> None:
    """What was won before counts for some tokens alone: drafts rest soon, and are made as soon as they pay again."""
    account = Account()
    assert all(drafted(account, 1.0, 1000))
    assert sum(drafted(account, -0.5, 1000)) < 60
    assert all(drafted(account, 1.0, 2000)[1200:])


def test_where_nothing_can_be_said_the_look_is_paid_for_first() -> None:
    """Until then nothing is looked at; what was won pays for looks, too."""
    account = Account()
    account.begin(0.5, is_silent=True)
    assert account.rest == 50
    account.rested(50)
    assert account.rest == 0
    account.begin(0.01, is_silent=True)
    assert account.rest == 16
    account.rested(20)
    account.note(3.0, is_silent=True)
    assert account.rest == 0
