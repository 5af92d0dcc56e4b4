"""`/openapi.json` says what the server does: requests that are made up from it, or against it, are answered as it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from serving import Site, opened_site

from foveal.runtime.model import Model
from foveal.serve.chat_template import ChatTemplate
from foveal.serve.settings import ServeSettings

GENERATING = ("/v1/completions", "/v1/chat/completions")
OTHER = ("/v1/models", "/v1/models/{model}", "/v1/sessions/{session}", "/health", "/ready", "/status", "/metrics")
CONFIG = Path(__file__).with_name("schemathesis.toml")
TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}{% endfor %}"
quick = settings(derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def described(model: Model) -> Iterator[Site]:
    """A server that has all that may be described: sessions, chats and tokens."""
    limits = ServeSettings(max_output=4, tokens=("right",), opens_metrics=False, page=False)
    with opened_site(model, limits, store=True, template=ChatTemplate(TEMPLATE)) as site:
        yield site


def schema_of(site: Site) -> schemathesis.BaseSchema:
    headers = {"Authorization": "Bearer right"}
    config = schemathesis.Config.from_path(CONFIG)
    return schemathesis.openapi.from_asgi("/openapi.json", site.app, config=config, headers=headers)


def test_all_routes_are_described(described: Site) -> None:
    """And no others."""
    assert sorted(schema_of(described)) == sorted((*GENERATING, *OTHER))


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
@pytest.mark.parametrize("path", [*GENERATING, *OTHER])
def test_what_is_described_holds(described: Site, path: str, mode: schemathesis.GenerationMode) -> None:
    """schemathesis finds nothing, in requests that fit the description and in others."""
    for operation in schema_of(described)[path].values():
        if mode is schemathesis.GenerationMode.NEGATIVE and not (operation.body or operation.path_parameters):
            continue  # whatever is sent, there is nothing that could be wrong with it

        @settings(quick, max_examples=40 if path in GENERATING else 10)
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: schemathesis.Case) -> None:
            case.call_and_validate(headers={"Authorization": "Bearer right"})

        check()
