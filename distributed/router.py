"""Which replica a request goes to. Ray loads it by its path where requests are routed."""

from __future__ import annotations

import random

from ray.serve._private.request_router.common import PendingRequest
from ray.serve._private.request_router.replica_wrapper import RunningReplica
from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter


class SessionRouter(ConsistentHashRouter):
    """Requests of a session always go to the replica that the session's name hashes to, and wait for it if they must.

    Others go to the less busy of two chosen at random: hashed too, one of them would wait while another replica is idle.
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
