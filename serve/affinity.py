"""Sessions where there are several servers behind one address, and each keeps its own."""

from __future__ import annotations

from starlette.datastructures import Headers

from .failures import invalid


def check_affinity(header: str | None, headers: Headers, session: str) -> None:
    """See that a request was routed by its session.

    Args:
        header: by which requests are routed; None: there is one server, and nothing to see.
        headers: of the request.
        session: that it is about.

    Raises:
        Failure: 400 if the header is not there or names another session: the request may be anywhere, and what it would not
            find here would begin anew.
    """
    if header is None or (given := headers.get(header)) == session:
        return
    got = "which is not there" if given is None else f"which says {given[:40]!a}"
    raise invalid(
        f'requests of a session find its server by the header {header}, {got}; send {header}: {session} with all requests of "'
        f'{session}"',
        "session",
        "session_header",
    )


def check_expectation(header: str | None, position: int | None) -> None:
    """See that a request says where its session should stand, as a server may be lost with all its sessions.

    Raises:
        Failure: 400 if it does not.
    """
    if header is not None and position is None:
        raise invalid(
            "position is missing: a session may be lost together with its server, and would begin anew without a word; say how "
            "many tokens it is expected to hold, as the last answer said, or 0 for a new one",
            "position",
            "missing_field",
        )
