"""Which replica a request goes to. Ray loads it by its path where requests are routed."""

from __future__ import annotations

import random
from collections.abc import Mapping

from ray.serve._private.common import ReplicaID
from ray.serve._private.request_router.common import PendingRequest
from ray.serve._private.request_router.replica_wrapper import RunningReplica
from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter, _hash_bytes

PLACE = "place"
"""What a replica says of itself: a number that the replacement of one that died takes over."""


class SessionRouter(ConsistentHashRouter):
    """Requests of a session always go to the replica that the session's name hashes to, and wait for it if they must.

    Replicas stand on the ring by their places: hashed by their own ids, as Ray does it, one that takes the place of another
    would also take a third of the sessions of those that live. Requests without a session go to the less busy of two replicas
    that are chosen at random: if they were hashed, some would wait while another replica is idle.
    """

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Replicas to try; the least busy of a list is taken."""
        if pending_request is None or pending_request.metadata.session_id or not candidate_replicas:
            ranked: list[list[RunningReplica]] = await super().choose_replicas(candidate_replicas, pending_request)
            return ranked
        pending_request.routing_context.should_backoff = True
        return [random.sample(candidate_replicas, min(2, len(candidate_replicas)))]

    def _rebuild_ring(self, new_snapshot: frozenset[ReplicaID]) -> None:
        ids = {one.unique_id: one for one in new_snapshot}
        names = names_on_ring({name: self._replicas[one].replica_metadata.get(PLACE) for name, one in ids.items()})
        points = sorted(
            (_hash_bytes(f"{names[name]}:{index}".encode()), name) for name in ids for index in range(self._num_virtual_nodes)
        )
        self._ring_hashes, self._ring_replicas = [point for point, _ in points], [ids[name] for _, name in points]
        self._replica_set_snapshot = new_snapshot


def names_on_ring(places: Mapping[str, int | None]) -> dict[str, str]:
    """What each replica is hashed by: its place, or its id if it has none, or another one has the same.

    Args:
        places: by ids. Two have the same for a while, if replicas were given up and others came.
    """
    found, taken = dict[str, str](), set[int]()
    for name in sorted(places):
        place = places[name]
        found[name] = name if place is None or place in taken else str(place)
        if place is not None:
            taken.add(place)
    return found
