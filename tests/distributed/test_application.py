"""What replicas, actors and a cluster are asked for, looked at before anything is started."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from foveal.cli.on_ray import scale_of
from foveal.distributed.actors import Actors
from foveal.distributed.application import Scale, _autoscaling
from foveal.distributed.cluster import foveal_error, require_room
from foveal.errors import ConfigError, InputError


def test_a_number_of_replicas_or_a_range() -> None:
    """As they are asked for; one if not."""
    assert scale_of(None, None, None, 1, 0, 64, 30) == Scale(replicas=1)
    assert scale_of(3, None, None, 0.5, 0, 8, 5) == Scale(replicas=3, cpus=0.5, queued=8, drain_seconds=5)
    between = scale_of(None, 2, 5, 1, 0, 64, 30)
    assert between == Scale(replicas=None, least=2, most=5)
    assert _autoscaling(between, 16) == {"min_replicas": 2, "max_replicas": 5, "target_ongoing_requests": 16}
    assert scale_of(None, None, 4, 1, 0, 64, 30).least == 1


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ((2, 1, 3), "got --replicas beside --min-replicas"),
        ((None, 2, None), "--min-replicas takes --max-replicas"),
        ((0, None, None), "got 0 replicas"),
        ((None, 3, 2), "got between 3 and 2 replicas"),
    ],
)
def test_numbers_of_replicas_that_can_not_be(asked: tuple[int | None, ...], reason: str) -> None:
    """Each in a line."""
    with pytest.raises(ConfigError, match=reason):
        scale_of(*asked, 1, 0, 64, 30)


@pytest.mark.parametrize("wrong", [{"cpus": -1}, {"gpus": -0.5}, {"count": 0}])
def test_actors_that_can_not_be(wrong: dict[str, float]) -> None:
    """As replicas."""
    with pytest.raises(ConfigError, match="expected at least"):
        Actors(**wrong)


def test_what_a_cluster_has_no_room_for_is_refused() -> None:
    """Ray would wait for it for ever."""
    ray = SimpleNamespace(cluster_resources=lambda: {"CPU": 2.0})
    require_room(ray, 4, 0.5, 0, "replicas")
    with pytest.raises(ConfigError, match="3 replicas of 1 CPU each take 3, the cluster has 2; ask for fewer"):
        require_room(ray, 3, 1, 0, "replicas")
    with pytest.raises(ConfigError, match="1 replicas of 1 GPU each take 1, the cluster has 0"):
        require_room(ray, 1, 1, 1, "replicas")


def test_errors_come_back_as_they_were() -> None:
    """From wherever Ray wrapped them."""
    inner = InputError("temperature is -1")
    outer = RuntimeError("a task failed")
    outer.cause = inner  # type: ignore[attr-defined]  # as Ray's have it
    assert foveal_error(outer) is inner
    around = ValueError("again")
    around.__cause__ = outer
    assert foveal_error(around) is inner
    assert str(foveal_error(OSError("no more"))) == "Ray: no more"
