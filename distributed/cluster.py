"""A Ray cluster: one that is there, or one of this machine that lives as long as it is needed."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import BackendUnavailable, ConfigError, FovealError, install, reason_of

_log = logging.getLogger("foveal")
LOOPBACK = "127.0.0.1"
_CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


def import_ray(is_own: bool = False) -> Any:
    """The `ray` package.

    Args:
        is_own: whether it is for a cluster of this machine alone. Ray's processes listen on all addresses unless the machine's
            own is 127.0.0.1; told so (`_node_ip_address`), it takes another one. Where it thinks that there are no clusters, as
            on macOS, it stays with 127.0.0.1; it has to know before it is imported.

    Raises:
        BackendUnavailable: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it tells its makers about each cluster otherwise
    if is_own:
        if "ray" in sys.modules and os.environ.get(_CLUSTERS) != "0":
            _log.warning("ray was imported before: its processes will listen on all addresses of this machine")
        os.environ.setdefault(_CLUSTERS, "0")
        os.environ.setdefault("RAY_worker_niceness", "0")  # 15 otherwise: replicas and actors would stand behind anything else
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # as Ray has it where it starts such a cluster, but not where it joins
    try:
        import ray
    except ImportError as error:
        raise BackendUnavailable(f"ray can't be imported ({error.msg}); --ray needs it: {install('ray')}") from error
    return ray


@contextmanager
def cluster(address: str | None, cpus: int | None = None) -> Iterator[Any]:
    """The `ray` package, connected; one's own cluster ends with the block, and listens on this machine alone.

    A process that is connected already stays so.

    Args:
        address: of a cluster, or `auto`: the one that runs on this machine; None: start one.
        cpus: that one's own cluster reckons with; None: those of the machine.

    Raises:
        BackendUnavailable: Ray is not installed.
        ConfigError: there is no cluster at the address.
    """
    ray = import_ray(_is_own(address))
    if ray.is_initialized():
        yield ray
        return
    _connect(ray, address, cpus)
    try:
        yield ray
    finally:
        ray.shutdown()


def _is_own(address: str | None) -> bool:
    """Whether a cluster is one's own, or was begun as one: it calls this machine 127.0.0.1, and others must do so, too."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or _running()
    return address is None or address.partition(":")[0] in (LOOPBACK, "localhost")


def _running() -> str:
    """The address of a cluster of this machine alone that runs here, as Ray finds it, too; "" if there is none."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            for argument in path.read_bytes().split(b"\0"):
                if argument.startswith(b"--gcs-address=" + LOOPBACK.encode()):
                    return argument.partition(b"=")[2].decode()
    return ""


def _connect(ray: Any, address: str | None, cpus: int | None) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        ray.init("local", num_cpus=cpus, include_dashboard=False, **quiet)
        return
    try:
        ray.init(address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"no Ray cluster can be reached at {address}: {reason_of(error)}; start one with ray start --head, "
            "or leave --address out for one of this machine"
        ) from error


def require_room(ray: Any, count: int, cpus: float, gpus: float, what: str) -> None:
    """See that a cluster has room for so many processes, as Ray would wait for it without a word.

    Args:
        ray: connected.
        count: of processes.
        cpus, gpus: that each reserves.
        what: they are, for messages.

    Raises:
        ConfigError: it has not.
    """
    there = ray.cluster_resources()
    for kind, each in (("CPU", cpus), ("GPU", gpus)):
        if count * each > there.get(kind, 0.0):
            raise ConfigError(
                f"{count} {what} of {each:g} {kind} each take {count * each:g}, the cluster has {there.get(kind, 0.0):g}; "
                f"ask for fewer, or for a smaller share of a {kind} each"
            )


def foveal_error(error: BaseException) -> FovealError:
    """What foveal raised in another process, as it was; of anything else, what Ray says."""
    found: BaseException | None = error
    seen = set[int]()
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        if isinstance(found, FovealError) and not hasattr(found, "traceback_str"):
            return found
        found = getattr(found, "cause", None) or found.__cause__
    return FovealError(f"Ray: {reason_of(error)}")
