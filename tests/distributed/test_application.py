"""What replicas, actors and a cluster are asked for, looked at before anything is started."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from foveal.distributed.actors import Actors
from foveal.distributed.application import Scale, _autoscaling
from foveal.distributed.cluster import foveal_error, require_room
from foveal.errors import ConfigError, InputError


def test_a_number_of_replicas_or_a_range() -> None:
    """As they are asked for; one if not."""
    assert Scale.of(None, None, None) == Scale(replicas=1)
    assert Scale.of(3, None, None, cpus=0.5, queued=8) == Scale(replicas=3, cpus=0.5, queued=8)
    between = Scale.of(None, 2, 5)
    assert between == Scale(replicas=None, least=2, most=5)
    assert _autoscaling(between, 16) == {"min_replicas": 2, "max_replicas": 5, "target_ongoing_requests": 16}
    assert Scale.of(None, None, 4).least == 1


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ((2, 1, 3), "got a number of replicas beside a least or a most"),
        ((None, 2, None), "without the most"),
        ((0, None, None), "got 0 replicas"),
        ((None, 3, 2), "got between 3 and 2 replicas"),
    ],
)
def test_numbers_of_replicas_that_can_not_be(asked: tuple[int | None, ...], reason: str) -> None:
    """Each in a line."""
    with pytest.raises(ConfigError, match=reason):
        Scale.of(*asked)


def test_an_application_of_a_config_file(tmp_path: Path) -> None:
    """As KubeRay makes it; what it does not know is refused, and so is what can't be."""
    pytest.importorskip("ray")
    from foveal.distributed.deploy import build

    more = {"max_body": 1000, "page": False, "chat_template": "/models/chat.jinja", "chat_ends": ["</s>"]}
    made = build({"bundles": ["m=/models/m.bundle"], "slots": 4, "min_replicas": 1, "max_replicas": 3, "cpus": 0.5, **more})
    deployment = made._bound_deployment
    bundles, options, settings, _ = deployment.init_args
    assert bundles == {"m": Path("/models/m.bundle")}
    assert (options.slots, settings.session_header) == (4, "x-session-id")
    assert (settings.max_body, settings.page) == (1000, False)
    assert (options.chat_template, options.chat_ends) == (Path("/models/chat.jinja"), ["</s>"])
    assert deployment.ray_actor_options["num_cpus"] == 0.5
    assert deployment._deployment_config.autoscaling_config.max_replicas == 3
    for args, reason in (
        ({"bundles": ["m"], "slot": 4}, "unknown field `slot`"),
        ({"bundles": "m"}, "Expected `array`"),
        ({"bundles": ["m"], "private_metrics": True}, "does nothing without tokens"),
        ({"bundles": ["m"], "replicas": 1, "max_replicas": 2}, "beside a least or a most"),
    ):
        with pytest.raises(ConfigError, match=reason):
            build(args)


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
