"""What the verbs that run on Ray share: their options, and what they come to."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from .console import err

if TYPE_CHECKING:
    from ..distributed.application import Scale
    from ..serve.loading import ServiceOptions
    from ..serve.settings import ServeSettings

OnRay = Annotated[bool, typer.Option("--ray", help="Run on Ray: in several processes, or on several machines.")]
Address = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Of a Ray cluster, or auto: the one on this machine; one of this machine is started if not given."),
]
Replicas = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="Processes that serve; 1 if not given."),
]
MinReplicas = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="With --max-replicas, in the place of --replicas: as many as the requests need."),
]
MaxReplicas = Annotated[Optional[int], typer.Option(help="See --min-replicas.")]  # noqa: UP045
CpusPerReplica = Annotated[float, typer.Option(help="CPUs that Ray reserves for each; 0.5 is two on one.")]
GpusPerReplica = Annotated[float, typer.Option(help="GPUs that Ray reserves for each.")]
MaxQueued = Annotated[
    int, typer.Option(min=1, help="Requests that wait in front of full replicas; beyond, they are refused (503).")
]
AppName = Annotated[str, typer.Option(help="Of the application in the cluster; one that is there is updated.")]


OF_SERVE = (
    *("replicas", "min_replicas", "max_replicas", "cpus_per_replica", "gpus_per_replica"),
    *("max_queued", "address", "app_name"),
)
"""Options of `foveal serve` that do nothing without --ray."""


def serve_on_ray(
    models: Mapping[str, Path],
    options: ServiceOptions,
    settings: ServeSettings,
    scale: Scale,
    log_level: str,
    place: tuple[str, str, int, str | None],
) -> None:
    """Serve on Ray; `place` is the application's name, host, port, and the cluster's address.

    Raises: as `distributed.serving.run`; FovealError for bundles that can't be opened.
    """
    from ..bundle import open_bundle
    from ..distributed.application import application
    from ..distributed.serving import Place, run

    def say(address: str, cluster: str) -> None:
        ends = "; Ctrl+C ends it" if place[3] is None else ", and goes on by itself"
        err.print(f"foveal serves at {address}, on the Ray cluster {cluster}{ends}")

    for path in models.values():
        open_bundle(path)  # before a cluster is started
    run(partial(application, models, options, settings, scale, log_level), scale, Place(*place), say)
