"""Replicas stand on the ring by their places, so that a replacement takes over what was its predecessor's and nothing else."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("ray")
from foveal.distributed.router import PLACE, SessionRouter, names_on_ring

SESSIONS = [f"session {number}" for number in range(400)]


class Standing(SessionRouter):
    """A router without a cluster.

    Args:
        places: of the replicas, by their ids.
    """

    def __init__(self, places: dict[str, int | None]) -> None:
        self._num_virtual_nodes, self._num_fallback_replicas = 100, 0
        self._replicas = {
            SimpleId(name): SimpleNamespace(name=name, replica_metadata={} if place is None else {PLACE: place})
            for name, place in places.items()
        }
        self._rebuild_ring(frozenset(self._replicas))

    def home(self, session: str) -> str:
        """Whose a session is."""
        (found,) = asyncio.run(self.choose_replicas(list(self._replicas.values()), pending(session)))
        (replica,) = found
        return replica.name


class SimpleId(str):
    """Of a replica."""

    @property
    def unique_id(self) -> str:
        """As Ray calls it."""
        return str(self)


def pending(session: str) -> Any:
    """A request."""
    metadata = SimpleNamespace(session_id=session, internal_request_id="r")
    return SimpleNamespace(metadata=metadata, routing_context=SimpleNamespace(should_backoff=False))


def test_a_replacement_takes_over_the_sessions_of_the_one_that_died() -> None:
    """And no others."""
    before, after = Standing({"a": 0, "b": 1, "c": 2}), Standing({"a": 0, "new": 1, "c": 2})
    for session in SESSIONS:
        assert after.home(session) == {"b": "new"}.get(before.home(session), before.home(session))


def test_sessions_are_spread() -> None:
    """Each of three replicas has at least a fifth."""
    counts = Counter(map(Standing({"a": 0, "b": 1, "c": 2}).home, SESSIONS))
    assert min(counts[name] for name in "abc") >= len(SESSIONS) / 5


def test_one_more_replica_takes_its_share_alone() -> None:
    """No session goes from one that was there to another that was there."""
    before, after = Standing({"a": 0, "b": 1}), Standing({"a": 0, "b": 1, "c": 2})
    assert {after.home(session) for session in SESSIONS if after.home(session) != before.home(session)} == {"c"}


def test_requests_without_a_session_have_two_replicas_to_choose_from() -> None:
    """Any two, and the less busy is taken."""
    router = Standing({"a": 0, "b": 1, "c": 2})
    chosen = [asyncio.run(router.choose_replicas(list(router._replicas.values()), pending(""))) for _ in range(50)]
    assert {len(two) for (two,) in chosen} == {2}
    assert {one.name for (two,) in chosen for one in two} == {"a", "b", "c"}


def test_two_replicas_of_one_place_are_told_apart() -> None:
    """And so are those that have none."""
    assert names_on_ring({"a": 0, "b": 0, "c": None, "d": 1}) == {"a": "0", "b": "b", "c": "c", "d": "1"}
