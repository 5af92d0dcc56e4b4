"""deploy/kubernetes/, by Kubernetes' own schemas; there is no cluster here."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest
import yaml
from dockerfiles import DEPLOY
from served_options import drain_seconds, options_of, unknown_options

VERSIONS = ("1.29", "1.32", "1.37")
MANIFESTS = [
    one for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")) for one in yaml.safe_load_all(path.read_text("utf-8"))
]
(DEPLOYMENT,) = [one for one in MANIFESTS if one["kind"] == "Deployment"]
POD: dict[str, Any] = DEPLOYMENT["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]


def name_of(manifest: dict[str, Any]) -> str:
    """For people."""
    return f"{manifest['kind']} {manifest['metadata']['name']}"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", MANIFESTS, ids=name_of)
def test_kubernetes_knows_all_of_it(manifest: dict[str, Any], version: str) -> None:
    """Strictly: a field that its schema has not is refused."""
    kubernetes_validate.validate(manifest, version, strict=True)


def test_the_schemas_refuse_what_is_no_field() -> None:
    """Else the test above would show nothing."""
    wrong = {**DEPLOYMENT, "spec": {**DEPLOYMENT["spec"], "replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_its_parts_fit_together() -> None:
    """Labels, ports, claims and volumes are named alike wherever they are named."""
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    (service,) = [one for one in MANIFESTS if one["kind"] == "Service"]
    assert service["spec"]["selector"] == DEPLOYMENT["spec"]["selector"]["matchLabels"] == labels
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= {port["name"] for port in CONTAINER["ports"]}
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == {volume["name"] for volume in POD["volumes"]}
    claims = {one["metadata"]["name"] for one in MANIFESTS if one["kind"] == "PersistentVolumeClaim"}
    used = {volume["persistentVolumeClaim"]["claimName"] for volume in POD["volumes"] if "persistentVolumeClaim" in volume}
    assert used == claims


def test_the_server_is_given_what_it_knows_and_what_is_mounted() -> None:
    """Every option is one of `foveal serve`, every path below a mount, and the probes ask where it listens."""
    options = options_of(CONTAINER["args"])
    assert unknown_options(options) == set()
    mounts = [mount["mountPath"] for mount in CONTAINER["volumeMounts"]]
    paths = [CONTAINER["args"][0], options["--token-file"], options["--store"]]
    assert all(any(path.startswith(f"{mount}/") for mount in mounts) for path in paths)
    assert [str(port["containerPort"]) for port in CONTAINER["ports"]] == [options["--port"]]
    annotations = DEPLOYMENT["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == options["--port"]
    probes = {name: CONTAINER[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startupProbe": "/ready",
        "readinessProbe": "/ready",
        "livenessProbe": "/health",
    }
    assert {probe["port"] for probe in probes.values()} == {CONTAINER["ports"][0]["name"]}


def test_it_waits_longer_for_the_server_than_the_server_for_its_clients() -> None:
    """First it waits until nobody is sent there any more; both count."""
    before = float(CONTAINER["lifecycle"]["preStop"]["exec"]["command"][1])
    assert POD["terminationGracePeriodSeconds"] >= before + drain_seconds(CONTAINER["args"]) + 10


def test_one_replica_has_the_store_at_a_time() -> None:
    """Another one is refused the store, so the old one ends before the new one begins."""
    assert DEPLOYMENT["spec"]["replicas"] == 1
    assert DEPLOYMENT["spec"]["strategy"] == {"type": "Recreate"}


def test_it_can_do_little() -> None:
    """What the restricted pod security standard asks for, and a root that is not written to."""
    assert POD["securityContext"]["runAsNonRoot"]
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not POD["automountServiceAccountToken"]
