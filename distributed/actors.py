"""Parts of a job done by the actors of a Ray cluster, through Ray Data: each holds the model, and does part after part.

What is done comes back to the process that asked, which alone writes it. So a part that Ray does a second time, as when an
actor died with its answer, is written once all the same.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import ConfigError, FovealError
from ..offline.inputs import Part
from ..offline.job import Execute
from ..offline.runner import SLOTS, Done, Runner
from ..offline.tasks import Task
from ..runtime.model import load
from .cluster import cluster, foveal_error, require_room

TRIES = 4
"""How often a part is begun whose actors die: Ray would go on for ever with one that kills each of them."""
_MOST_BLOCKS = 10_000
"""Ray Data keeps account of each; with more parts, several are in one."""


@dataclass(frozen=True)
class Actors:
    """How many processes do it, and what Ray reserves for each.

    Attributes:
        count: of actors.
        cpus: of each.
        gpus: of each.
        threads: engine threads of each; None: as measured.
        address: of a cluster; None: one of this machine, for as long as the job takes.
        native: as of `load`.
    """

    count: int = 1
    cpus: float = 0.5
    gpus: float = 0.0
    threads: int | None = None
    address: str | None = None
    native: bool | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"got {self.count} actors, expected at least 1")
        if self.cpus < 0 or self.gpus < 0:
            raise ConfigError(f"an actor can't reserve {self.cpus:g} CPUs and {self.gpus:g} GPUs; expected at least 0 of each")


def on_actors(
    bundle: Path, task: Task, actors: Actors, target: str = "cpu", slots: int = SLOTS, capacity: int | None = None
) -> Execute:
    """Does them with a batch in each actor. Bundle and inputs are at one path on all machines of the cluster.

    Args:
        bundle: its path.
        task: what to do with each line.
        actors: who does it.
        target: whose engines run.
        slots, capacity: of each actor's batch.

    Raises (when it is used):
        BackendUnavailable: Ray is not installed.
        ConfigError: actors that the cluster has no room for, or no cluster at the address.
        FovealError: what an actor raised; or the actors of one part died again and again.
    """
    arguments = (bundle.resolve(), target, task, slots, capacity, actors.threads, actors.native)

    def execute(parts: Sequence[Part], _on_line: Callable[[], None]) -> Iterator[Done]:
        with cluster(actors.address) as ray:
            require_room(ray, actors.count, actors.cpus, actors.gpus, "actors")
            tries = ray.remote(num_cpus=0)(_Tries).remote()
            try:
                for row in _rows(parts, (tries, *arguments), actors).iter_rows():
                    yield Done(_part(row), row["output"])
            except ray.exceptions.RayError as error:
                raise foveal_error(error) from error

    return execute


def _rows(parts: Sequence[Part], arguments: tuple[Any, ...], actors: Actors) -> Any:
    """The data set of what is done, which is done as it is read."""
    from ray import data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    data.DataContext.get_current().enable_progress_bars = False
    blocks = min(len(parts), _MOST_BLOCKS)
    return data.from_items([asdict(part) for part in parts], override_num_blocks=blocks).map(
        _Actor,  # type: ignore[arg-type]  # a class, of which Ray makes the actors
        fn_constructor_args=arguments,
        compute=data.ActorPoolStrategy(size=min(actors.count, len(parts)), max_tasks_in_flight_per_actor=2),
        num_cpus=actors.cpus,
        num_gpus=actors.gpus or None,
    )


class _Tries:
    """Counts how often each part was begun, for as long as the job lives."""

    def __init__(self) -> None:
        self._counts = Counter[tuple[int, int]]()

    def begin(self, file: int, index: int) -> int:
        """Once more; which time it is."""
        self._counts[file, index] += 1
        return self._counts[file, index]


class _Actor:
    """Holds a model, and does a part at a time."""

    def __init__(
        self,
        tries: Any,
        bundle: Path,
        target: str,
        task: Task,
        slots: int,
        capacity: int | None,
        threads: int | None,
        native: bool | None,
    ) -> None:
        self._tries, self._runner = tries, Runner(load(bundle, target, threads, native=native), task, slots, capacity)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """A part, and what is written of it beside it."""
        import ray

        part = _part(row)
        if ray.get(self._tries.begin.remote(part.file, part.index)) > TRIES:
            last = part.first_line + part.lines - 1
            raise FovealError(
                f"lines {part.first_line} to {last} of {part.path} were begun {TRIES} times, and the process died each "
                "time; see Ray's log for why (memory, most often), and begin the job again: what is done is kept"
            )
        (done,) = self._runner.run([part])
        return {**row, "output": done.output}


def _part(row: dict[str, Any]) -> Part:
    return Part(**{field.name: row[field.name] for field in fields(Part)})
