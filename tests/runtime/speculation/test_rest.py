"""Drafts rest where they save less than they take, ever longer, and come back."""

from __future__ import annotations

from foveal.runtime.speculation.rest import Rest


def drafted(rest: Rest, saved: float, tokens: int) -> list[bool]:
    """Of so many tokens, whether each was drawn with drafts, each of which saves so much."""
    found = []
    for _ in range(tokens):
        takes = rest.takes()
        found.append(not takes)
        if not takes:
            rest.note(saved)
    return found


def test_what_pays_never_rests() -> None:
    """However little it saves."""
    assert all(drafted(Rest(), 1e-9, 2000))


def test_what_does_not_pay_is_tried_ever_more_seldom() -> None:
    """At first after some tokens, at last in a few of a hundred; it is never given up."""
    found = drafted(Rest(), -1e-6, 20_000)
    assert all(found[:16])
    assert not any(found[16:80])
    assert all(found[80:96])
    assert 0.02 < sum(found[10_000:]) / 10_000 < 0.04


def test_a_text_that_changes_is_noticed() -> None:
    """And then it rests as shortly as at first."""
    rest = Rest()
    drafted(rest, -1.0, 5000)
    assert all(drafted(rest, 1.0, 2000)[1000:])
    assert sum(drafted(rest, -1.0, 100)) >= 24
