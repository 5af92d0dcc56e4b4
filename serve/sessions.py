"""Names of sessions: what a client calls them, and what they are called inside."""

from __future__ import annotations

import re

from .failures import invalid

PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$"
_NAME = re.compile(PATTERN)


def key_of(owner: str, session: str) -> str:
    """What a client's session is called in the store: no other client's has that name.

    Raises:
        Failure: 400 for a name that is none.
    """
    if not _NAME.match(session) or session.endswith("\n"):
        raise invalid(
            "a session's name has 1 to 128 of letters, digits, dots, colons, hyphens and underscores, and begins with one of "
            f"the first two; got {session[:40]!a}",
            "session",
        )
    return f"{owner}:{session}"
