"""Runs the application on a cluster: on one of its own until a signal comes, or on one that is there and goes on by itself."""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError, FovealError, plain
from .application import Scale
from .cluster import LOOPBACK, cluster, require_room

_log = logging.getLogger("foveal.serve")
_LOOK_SECONDS = 2.0
"""So often it is looked how the replicas are."""
_END_SECONDS = 20.0
"""Beside the time that requests may take, in which replicas have to end."""


@dataclass(frozen=True)
class Place:
    """Where an application runs.

    Attributes:
        name: of the application in the cluster; one that is there under this name is updated.
        host, port: that each machine of the cluster listens on; port 0: any that is free.
        address: of a cluster; None: one of this machine, which ends with this process.
    """

    name: str = "foveal"
    host: str = LOOPBACK
    port: int = 8000
    address: str | None = None


def run(make: Callable[[], Any], scale: Scale, place: Place, on_listening: Callable[[str, str], None]) -> None:
    """Serve until SIGTERM or SIGINT; on a cluster that was there already, return as soon as it serves.

    Args:
        make: makes the application (`application`), once there is a cluster.
        scale: how many replicas.
        place: where.
        on_listening: told the address, and that of the cluster, once requests are taken.

    Raises:
        ConfigError: no cluster at the address, no room for the replicas, or it can't listen there.
        FovealError: the replicas can't start.
    """
    with cluster(place.address) as ray:
        require_room(ray, scale.first, scale.cpus, scale.gpus, "replicas")
        from ray import serve

        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        address = _listen(serve, place)
        with _ending() as ended:
            try:
                _deploy(serve, make(), place.name)
                on_listening(address, ray.get_runtime_context().gcs_address)
                if place.address is None:
                    _watch(serve, place.name, ended)
            finally:
                if place.address is None:
                    _end(serve, place.name, scale.drain_seconds)


def _listen(serve: Any, place: Place) -> str:
    port = place.port or _free_port(place.host)
    try:
        serve.start(http_options={"host": place.host, "port": port}, logging_config={"log_level": "WARNING"})
    except Exception as error:  # whatever a proxy says
        said = plain(str(error)).strip().splitlines()[-1]
        raise ConfigError(f"can't listen on {place.host}:{port}: {said}; choose another --host or --port") from error
    from ray.serve.context import _get_global_client

    client: Any = _get_global_client()
    listening = client.http_config  # of whoever started it first
    return f"http://{listening.host}:{listening.port}"


def _deploy(serve: Any, application: Any, name: str) -> None:
    try:
        serve.run(application, name=name, route_prefix="/")
    except RuntimeError as error:
        lines = [line.strip() for line in plain(str(error)).splitlines() if line.strip()]
        said = next((line for line in reversed(lines) if "Error" in line), lines[-1] if lines else "no reason was given")
        raise FovealError(f"the replicas can't start: {said}; their logs say more: see Ray's session directory") from error


def _free_port(host: str) -> int:
    with socket.socket() as one:
        one.bind((host, 0))
        port: int = one.getsockname()[1]
        return port


@contextmanager
def _ending() -> Iterator[threading.Event]:
    """Signals that end the process set an event in the block; Ray would end it at once."""
    ended = threading.Event()
    signals = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(one, lambda *_: ended.set()) for one in signals]
    try:
        yield ended
    finally:
        for one, handler in zip(signals, before, strict=True):
            signal.signal(one, handler)


def _watch(serve: Any, name: str, ended: threading.Event) -> None:
    """Until a signal comes; says when the application's state changes."""
    state = "RUNNING"
    while not ended.wait(_LOOK_SECONDS):
        now = _state(serve, name)
        if now != state:
            _log.warning("the application is %s", now)
            state = now


def _state(serve: Any, name: str) -> str:
    found = serve.status().applications.get(name)
    return "GONE" if found is None else str(found.status.value)


def _end(serve: Any, name: str, drain_seconds: float) -> None:
    """Take no more requests, and let replicas answer those that they have; the rest ends with the cluster."""
    serve.delete(name, _blocking=False)
    last = time.monotonic() + drain_seconds + _END_SECONDS
    while name in serve.status().applications and time.monotonic() < last:
        time.sleep(0.2)
