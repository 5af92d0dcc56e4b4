"""Where several servers stand behind one address, a request of a session shows that it was routed by it."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from foveal.serve.affinity import check_affinity, check_expectation
from foveal.serve.failures import Failure


def test_one_server_asks_for_nothing() -> None:
    """Neither a header nor a position."""
    check_affinity(None, Headers(), "s")
    check_expectation(None, None)


@pytest.mark.parametrize(("headers", "got"), [({}, "which is not there"), ({"x-session-id": "t"}, "which says 't'")])
def test_a_request_that_may_be_anywhere_is_refused(headers: dict[str, str], got: str) -> None:
    """The answer says what to send."""
    with pytest.raises(Failure) as caught:
        check_affinity("x-session-id", Headers(headers), "s")
    assert (caught.value.status, caught.value.code) == (400, "session_header")
    assert got in caught.value.message
    assert "send x-session-id: s" in caught.value.message
    check_affinity("x-session-id", Headers({"X-Session-Id": "s"}), "s")


def test_a_session_is_expected_somewhere() -> None:
    """Also at 0."""
    with pytest.raises(Failure, match="position is missing") as caught:
        check_expectation("x-session-id", None)
    assert caught.value.param == "position"
    check_expectation("x-session-id", 0)
