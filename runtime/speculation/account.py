"""When drafts rest, and when they are tried again: the one rule for all drafters, of texts alone and of those in a batch.

What drafts save is paid into an account, and what they take is taken off it. They rest once a trial has lost as much as it may,
and where they have nothing to say, and nothing is done for them then. Each token that is drawn meanwhile pays in a share of its
time, and once that has made up for what was lost, they are tried again: what never pays takes that share, and one trial.
"""

from __future__ import annotations

import math

SHARE = 0.01
"""Of the time without drafts, that trials in vain may take."""
TRIAL = 4.0
"""That a trial may lose, in the time that one token takes without drafts."""
_SHORTEST = 16
"""Tokens of a rest after a look, however little it took: what a token takes may not be known well yet."""
_CREDIT = 8.0
"""The most that an account holds: a text changes, and what was won before it did is soon no reason to go on."""


class Account:
    """What drafts have won, in the time that one token takes without them.

    Attributes:
        rest: tokens to draw without drafts until the next trial; 0 while drafts are made.
    """

    def __init__(self) -> None:
        self._balance, self._least, self._look, self.rest = 0.0, -TRIAL, 0.0, 0

    def begin(self, took: float, is_silent: bool) -> None:
        """A trial begins, and it took this to catch up with the text: it is paid back, but is no fault of the drafts.

        Args:
            took: that long.
            is_silent: whether there is nothing to draft now, and the trial is over.
        """
        self._balance, self._look = self._balance - took, took
        self._least = min(self._balance, 0.0) - TRIAL
        self.note(0.0, is_silent)

    def note(self, won: float, is_silent: bool) -> None:
        """What drafts won, less than 0 if they lost it; and whether there is nothing to draft now."""
        self._balance = min(self._balance + won, _CREDIT)
        self._least = max(self._least, min(self._balance, 0.0) - TRIAL)
        if self._balance < self._least:
            self.rest = math.ceil(-self._balance / SHARE)
        elif is_silent and self._balance <= 0:
            self.rest = max(math.ceil(self._look / SHARE), _SHORTEST)

    def rested(self, tokens: int) -> None:
        """So many were drawn without drafts, which makes up for what was lost, and is no credit."""
        self._balance = max(self._balance, min(self._balance + SHARE * tokens, 0.0))
        self.rest = max(self.rest - tokens, 0)
