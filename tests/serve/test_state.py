"""A server says how it is: to those who watch over it, to Prometheus, and to its page."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving import Site, opened_site

from foveal.runtime.model import Model
from foveal.serve.logs import JsonLines


def values(site: Site) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """What `/metrics` says, by name and labels."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(site.client.get("/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def test_models_are_listed_as_openai_lists_them(site: Site) -> None:
    """All, and one."""
    listed = site.client.get("/v1/models").json()
    assert listed["object"] == "list"
    assert [one["id"] for one in listed["data"]] == ["m"]
    assert site.client.get("/v1/models/m").json() == listed["data"][0]


def test_status_tells_what_there_is_to_do(site: Site, model: Model) -> None:
    """Of every model."""
    site.complete(prompt="It was", max_tokens=6, session="status")
    (found,) = site.client.get("/status").json()["models"]
    assert found["id"] == "m"
    assert found["stages"] == [{"name": spec.name, "stride": spec.stride} for spec in model.specs]
    assert (found["slots"], found["queue"], found["running"], found["waiting"]) == (4, 8, 0, 0)
    assert found["fires"].keys() == {spec.name for spec in model.specs}
    assert found["sessions"] >= 1
    assert found["tokens"] >= 6


def test_metrics_count_what_happened(model: Model) -> None:
    """Tokens and times by firing, ends by reason, answers by route and status; another server's are its own."""
    with opened_site(model, store=True) as site, opened_site(model) as other:
        site.complete(prompt="It was", max_tokens=9, session="a")
        site.complete(prompt="It was", session="a", position=3)
        site.client.get("/v1/models/nothing")
        found = values(site)
        own = (("model", "m"),)
        assert found["foveal_tokens_total"][own] == 9
        assert found["foveal_time_to_first_token_seconds_count"][own] == 1
        assert sum(found["foveal_inter_token_seconds_count"].values()) == 8
        names = {spec.name for spec in model.specs}
        assert {dict(labels)["fired"] for labels in found["foveal_inter_token_seconds_count"]} <= names
        assert {dict(labels)["stage"] for labels in found["foveal_fires_total"]} == names
        assert found["foveal_texts_total"][("model", "m"), ("reason", "length")] == 1
        assert found["foveal_store_misses_total"][own] == 1
        assert found["foveal_store_hits_total"][own] == 1
        assert found["foveal_slots"][own] == 4
        answers = found["foveal_http_responses_total"]
        assert answers[("route", "/v1/completions"), ("status", "200")] == 1
        assert answers[("route", "/v1/completions"), ("status", "409")] == 1
        assert answers[("route", "/v1/models/{model:path}"), ("status", "404")] == 1
        assert values(other)["foveal_tokens_total"][own] == 0


def test_a_server_that_is_about_to_end_is_alive_and_not_ready(model: Model) -> None:
    """It takes nothing new, and says when to ask again; what it knows can still be asked for."""
    with opened_site(model) as site:
        assert site.client.get("/ready").status_code == 200
        site.server.state.is_draining = True
        assert site.client.get("/health").status_code == 200
        assert site.client.get("/ready").status_code == 503
        answer = site.complete(prompt="a")
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert site.client.get("/v1/models").status_code == 200


def test_a_server_whose_engines_failed_is_not_alive(model: Model) -> None:
    """So that whoever watches starts it again."""
    with opened_site(model) as site:
        site.served.service.close()
        assert site.client.get("/health").status_code == 503
        assert site.client.get("/ready").status_code == 503
        assert site.complete(prompt="a").status_code == 503


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is logged, as lines of JSON."""
    stream = io.StringIO()
    handler, logger = logging.StreamHandler(stream), logging.getLogger("foveal.serve")
    handler.setFormatter(JsonLines())
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_requests_are_logged_without_what_they_say(site: Site, lines: io.StringIO) -> None:
    """One line each, with counts and times."""
    answer = site.complete(prompt="a secret", max_tokens=4, seed=1, session="name", user="someone")
    site.complete(prompt="a secret", temperature=-1)
    first, second = map(json.loads, lines.getvalue().splitlines())
    assert (first["event"], first["path"], first["model"], first["status"]) == ("request", "/v1/completions", "m", 200)
    assert (first["prompt_tokens"], first["new_tokens"], first["finish_reason"]) == (8, 4, "length")
    assert 0 < first["first_token_s"] <= first["seconds"]
    assert first["request"] == answer.headers["x-request-id"]
    assert second["status"] == 400
    for word in ("secret", 'name"', "someone", answer.json()["choices"][0]["text"]):
        assert word not in lines.getvalue()


def test_ids_of_requests_are_the_clients_if_they_are_plain(site: Site) -> None:
    """Others are made up, as is one that is missing."""

    def id_of(given: str | None) -> str:
        headers = {} if given is None else {"x-request-id": given}
        return str(site.client.get("/health", headers=headers).headers["x-request-id"])

    assert id_of("abc-1.2:3") == "abc-1.2:3"
    for given in (None, "", "a b", 'a"b', "a" * 129):
        assert id_of(given) not in ("", given)
    assert id_of(None) != id_of(None)


def test_the_description_names_every_route(site: Site) -> None:
    """With the fields of requests, for clients that are generated from it."""
    found = site.client.get("/openapi.json").json()
    assert {"/v1/completions", "/v1/models", "/v1/sessions/{session}", "/metrics"} <= found["paths"].keys()
    assert "temperature" in found["components"]["schemas"]["CompletionRequest"]["properties"]
    text = json.dumps(found)
    for name in set(text.split('"#/components/schemas/')[1:]):
        assert name.split('"')[0] in found["components"]["schemas"]
