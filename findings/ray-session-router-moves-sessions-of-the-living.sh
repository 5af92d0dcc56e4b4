#!/bin/sh
# ray 2.60: with ConsistentHashRouter, a replica that takes the place of one that died also takes sessions of those that live.
#
# 2026-11-30; Python 3.11, ray 2.60.0, Linux x86-64.
#
# Replicas stand on the ring by random ids, a new one for the replacement: of two replicas, about a third of the survivor's sessions
# go to the replacement, which knows nothing of them. Hashed by the replica's rank, which the replacement takes over
# (record_replica_metadata makes it known to the router), none do.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "ray[serve]==2.60.0"
RAY_USAGE_STATS_ENABLED=0 "$folder/venv/bin/python" - <<'PYTHON'
import random
from collections import Counter
import logging
from ray.serve._private.common import DeploymentID, ReplicaID
from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter

class Ring(ConsistentHashRouter):
    def __init__(self, names):
        self._num_virtual_nodes, self._num_fallback_replicas = 100, 0
        self.deployment_id = self._deployment_id = DeploymentID("d", "a")
        self._rebuild_ring(frozenset(ReplicaID(name, self.deployment_id) for name in names))

    def home(self, session):
        return self._lookup_ranked_replicas(session)[0].unique_id

logging.getLogger("ray.serve").setLevel("ERROR")
draw, moved = random.Random(0), Counter()
for _ in range(20):
    survivor, dead, replacement = (f"{draw.getrandbits(40):08x}" for _ in range(3))
    before, after = Ring([survivor, dead]), Ring([survivor, replacement])
    for session in range(200):
        if before.home(f"s{session}") == survivor:
            moved[after.home(f"s{session}") != survivor] += 1
share = moved[True] / moved.total()
print(f"sessions of the living replica that moved: {share:.0%}")
raise SystemExit(share < 0.2)
PYTHON
