"""deploy/compose.yaml, by the compose specification's own schema; no engine runs here."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from dockerfiles import DEPLOY, ROOT, instructions
from served_options import drain_seconds, options_of, unknown_options

COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]


def schema() -> Any:
    """That of the specification, as check-jsonschema ships it; the package itself is not imported."""
    package = importlib.util.find_spec("check_jsonschema")
    assert package is not None, "check-jsonschema is not installed; it is in the extra dev"
    assert package.submodule_search_locations
    file = Path(package.submodule_search_locations[0]) / "builtin_schemas" / "vendor" / "compose-spec.json"
    return json.loads(file.read_text(encoding="utf-8"))


def test_the_specification_knows_all_of_it() -> None:
    """The schema refuses keys that it has not."""
    rules = schema()
    jsonschema.validate(COMPOSE, rules)
    wrong = {**COMPOSE, "services": {"foveal": {**SERVICES["foveal"], "read_onyl": True}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, rules)


@pytest.mark.parametrize("name", SERVICES)
def test_what_it_builds_is_there(name: str) -> None:
    """Context and Dockerfile, from this folder; its secret's file is made by whoever runs it, and named in .gitignore."""
    build = SERVICES[name]["build"]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert f"deploy/{Path(COMPOSE['secrets']['foveal-token']['file']).name}" in ignored


@pytest.mark.parametrize("name", SERVICES)
def test_the_server_is_given_what_it_knows_and_what_is_mounted(name: str) -> None:
    """Every option is one of `foveal serve`, every path below a mount; the port that is published is its own."""
    service = SERVICES[name]
    options = options_of(service["command"])
    assert unknown_options(options) == set()
    mounts = [volume["target"] for volume in service["volumes"]] + ["/run/secrets"]
    paths = [service["command"][0], options["--token-file"], options["--store"]]
    assert all(any(path.startswith(f"{mount}/") for mount in mounts) for path in paths)
    assert [port.split(":")[-1] for port in service["ports"]] == [options["--port"]]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    exposed = [one.rest for one in instructions(ROOT / service["build"]["dockerfile"]) if one.word == "EXPOSE"]
    assert exposed == [options["--port"]]


@pytest.mark.parametrize("name", SERVICES)
def test_it_waits_longer_for_the_server_than_the_server_for_its_clients(name: str) -> None:
    """Else the server is killed while it writes sessions."""
    service = SERVICES[name]
    assert int(service["stop_grace_period"].removesuffix("s")) >= drain_seconds(service["command"]) + 10


@pytest.mark.parametrize("name", SERVICES)
def test_it_can_do_little(name: str) -> None:
    """It writes to its volume and to memory, and gains nothing."""
    service = SERVICES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")
