"""Peers of a benchmark that are small scripts."""

from __future__ import annotations

import sys
from pathlib import Path

from foveal.bench.peers.peers import Kind, Peer

FAKE = Path(__file__).parent / "bench" / "peers" / "fake_peer.py"


def fake(name: str = "fake", python: Path | None = None, requirements: Path | None = None, **precisions: Kind) -> Peer:
    """A peer of these precisions; without requirements run by this interpreter."""
    own = None if requirements else python or Path(sys.executable)
    return Peer(name=name, program=FAKE, python=own, requirements=requirements, precisions=precisions or {"exact": "fp32"})
