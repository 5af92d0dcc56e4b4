"""The application of `foveal serve` as a Ray Serve application: how many replicas, and how requests find them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..serve.loading import ServiceOptions
from ..serve.settings import ServeSettings

ROUTER = "foveal.distributed.router.SessionRouter"
RETRY_SECONDS = 2
"""After which a request may be sent again that found the queue full."""
_BESIDE = 8
"""Requests that a replica takes beside those that generate: for its state, and for how it is."""
_MARGIN_SECONDS = 10
"""In which a replica that is idle has to end."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How many replicas there are, and what Ray reserves for each.

    Attributes:
        replicas: always so many; None: between `least` and `most`, as many as there are requests for.
        least, most: of them.
        cpus, gpus: that each reserves; a share of one is allowed.
        queued: requests that wait at each proxy if all replicas are full; beyond, they are refused (503).
        drain_seconds: that what a replica has begun may still take when it is to end.
    """

    replicas: int | None = 1
    least: int = 1
    most: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    queued: int = 64
    drain_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.replicas is not None and self.replicas < 1:
            raise ConfigError(f"got {self.replicas} replicas, expected at least 1")
        if self.replicas is None and not 1 <= self.least <= self.most:
            raise ConfigError(
                f"got between {self.least} and {self.most} replicas, expected at least 1, and no fewer at most than at least"
            )
        if self.cpus < 0 or self.gpus < 0:
            raise ConfigError(f"a replica can't reserve {self.cpus:g} CPUs and {self.gpus:g} GPUs; expected at least 0 of each")
        if self.queued < 1:
            raise ConfigError(
                f"got room for {self.queued} requests that wait, expected at least 1: each waits until it is routed"
            )

    @classmethod
    def of(cls, fixed: int | None, least: int | None, most: int | None, **shares: Any) -> Scale:
        """A number of replicas, or a range of it; one replica if nothing is said.

        Args:
            fixed: always so many.
            least, most: or between these.
            shares: what else there is to say.

        Raises:
            ConfigError: both, half a range, or numbers that can't be.
        """
        if fixed is not None and (least is not None or most is not None):
            raise ConfigError("got a number of replicas beside a least or a most, expected either; leave one out")
        if least is not None and most is None:
            raise ConfigError("got the least number of replicas without the most; give it, too (--max-replicas)")
        if most is not None:
            return cls(replicas=None, least=1 if least is None else least, most=most, **shares)
        return cls(replicas=1 if fixed is None else fixed, **shares)

    @property
    def first(self) -> int:
        """Replicas at the beginning."""
        return self.least if self.replicas is None else self.replicas


def session_header() -> str:
    """The header by which Ray routes requests of a session."""
    return os.environ.get("RAY_SERVE_SESSION_ID_HEADER_KEY", "x-session-id")


def application(
    bundles: Mapping[str, Path], options: ServiceOptions, settings: ServeSettings, scale: Scale, log_level: str = "info"
) -> Any:
    """What `ray.serve.run` runs. Ray is to be imported before (`import_ray`, or `cluster`).

    Args:
        bundles: by the names that clients ask for; at one path on all machines of the cluster.
        options: how each is served, in each replica.
        settings: what is allowed.
        scale: how many replicas.
        log_level: of their logs.

    Raises:
        ConfigError: a store in a directory, which only one of several replicas could use.
    """
    from ray import serve
    from ray.serve.config import BackpressureConfig, RequestRouterConfig

    from .replica import Replica

    if options.store_directory is not None:
        raise ConfigError("--store does nothing with --ray: each replica keeps its sessions in memory; leave --store out")
    settings = _routed(settings)
    at_once = len(bundles) * (options.slots + options.queue) + _BESIDE
    deployment: Any = serve.deployment(
        serve.ingress()(Replica),
        name="foveal",
        num_replicas=scale.replicas,
        autoscaling_config=_autoscaling(scale, options.slots * len(bundles)),
        ray_actor_options={"num_cpus": scale.cpus, "num_gpus": scale.gpus},
        max_ongoing_requests=at_once,
        max_queued_requests=scale.queued,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=RETRY_SECONDS),
        request_router_config=RequestRouterConfig(
            request_router_class=ROUTER,  # type: ignore[arg-type]  # a path, or a class
            request_router_kwargs={"num_fallback_replicas": 0},
        ),
        graceful_shutdown_timeout_s=scale.drain_seconds + _MARGIN_SECONDS,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=5,
        health_check_timeout_s=30,
    )
    paths = {name: path.resolve() for name, path in bundles.items()}
    return deployment.bind(paths, options, settings, log_level)


def _routed(settings: ServeSettings) -> ServeSettings:
    return replace(settings, session_header=session_header())


def _autoscaling(scale: Scale, slots: int) -> dict[str, Any] | None:
    """As many replicas as it takes for each to have as many requests as slots."""
    if scale.replicas is not None:
        return None
    return {"min_replicas": scale.least, "max_replicas": scale.most, "target_ongoing_requests": slots}
