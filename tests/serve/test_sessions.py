"""A session goes on where it stood, says so if it does not, and belongs to the client that began it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from serving import Site, error_of, opened_site

from foveal.runtime.model import Model
from foveal.serve.settings import ServeSettings

ANNA, BERT = ({"authorization": f"Bearer {name}"} for name in ("anna's", "bert's"))


def test_a_session_goes_on_where_it_stood(site: Site, model: Model) -> None:
    """Two requests give what one does; the first's tokens are not computed again."""
    whole = "".join(model.generate("It was", max_new_tokens=20, temperature=0))
    first = site.complete(prompt="It was", session="going-on", position=0, max_tokens=8, temperature=0).json()
    assert first["choices"][0]["foveal"]["session"] == {"id": "going-on", "position": 14}
    second = site.complete(prompt="", session="going-on", position=14, max_tokens=12, temperature=0).json()
    assert first["choices"][0]["text"] + second["choices"][0]["text"] == whole
    assert second["usage"]["prompt_tokens_details"] == {"cached_tokens": 14}
    assert second["usage"]["prompt_tokens"] == 14
    assert second["choices"][0]["foveal"]["restored_tokens"] == 14


def test_a_stream_says_where_its_session_stands_at_its_end(site: Site) -> None:
    """Also to those who ask for nothing else."""
    chunks = site.chunks(prompt="It was", session="streamed", max_tokens=4)
    assert [chunk.get("foveal") for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["foveal"]["session"] == {"id": "streamed", "position": 10}


def test_another_position_is_a_conflict_that_says_where_the_session_stands(site: Site) -> None:
    """Also before a stream; and a session that is not there stands nowhere."""
    site.complete(prompt="It was", session="expected", max_tokens=4)
    for streams in (False, True):
        error = site.refusal(409, prompt="a", session="expected", position=3, stream=streams)
        assert (error["code"], error["param"], error["position"]) == ("session_lost", "position", 10)
        assert '"expected"' in error["message"]
        assert site.refusal(409, prompt="a", session="never", position=3, stream=streams)["position"] is None


def test_a_session_can_be_asked_for_and_dropped(site: Site) -> None:
    """Then it is not there any more."""
    site.complete(prompt="It was", session="asked", max_tokens=4)
    assert site.client.get("/v1/sessions/asked").json() == {"id": "asked", "model": "m", "position": 10}
    assert site.client.get("/v1/sessions/asked?model=m").status_code == 200
    error_of(site.client.get("/v1/sessions/asked?model=n"), 404)
    assert site.client.delete("/v1/sessions/asked").json() == {"id": "asked", "model": "m", "position": None, "deleted": True}
    assert error_of(site.client.get("/v1/sessions/asked"), 404)["code"] == "session_not_found"
    error_of(site.client.delete("/v1/sessions/asked"), 404)
    error_of(site.client.get("/v1/sessions/-"), 400)
    error_of(site.client.get("/v1/sessions/..%2Fm"), 404)


def test_a_session_that_another_request_is_at_is_busy(site: Site) -> None:
    """Names in messages are the client's own."""
    key = "open:busy"
    site.served.service.sessions.begin(key, None)
    try:
        error = site.refusal(409, prompt="a", session="busy")
        assert error["code"] == "session_busy"
        assert "open:" not in error["message"]
        assert error_of(site.client.delete("/v1/sessions/busy"), 409)["code"] == "session_busy"
    finally:
        site.served.service.sessions.end(key)


@pytest.fixture(scope="module")
def guarded(model: Model) -> Iterator[Site]:
    """With two clients."""
    with opened_site(model, ServeSettings(tokens=("anna's", "bert's")), store=True) as site:
        yield site


def test_clients_have_sessions_of_their_own(guarded: Site) -> None:
    """The same name is another session for another token."""
    body = {"model": "m", "prompt": "It was", "session": "mine", "position": 0, "max_tokens": 4}
    for who in (ANNA, BERT):
        answer = guarded.client.post("/v1/completions", json=body, headers=who)
        assert answer.status_code == 200, answer.text
        assert guarded.client.get("/v1/sessions/mine", headers=who).json()["position"] == 10
    assert guarded.client.delete("/v1/sessions/mine", headers=ANNA).status_code == 200
    error_of(guarded.client.get("/v1/sessions/mine", headers=ANNA), 404)
    assert guarded.client.get("/v1/sessions/mine", headers=BERT).status_code == 200


def test_without_a_store_sessions_are_refused(model: Model) -> None:
    """With what it takes."""
    with opened_site(model) as site:
        assert "keeps no sessions" in site.refusal(400, prompt="a", session="a")["message"]
        error_of(site.client.get("/v1/sessions/a"), 400)


def test_prompts_that_begin_alike_are_read_once(model: Model) -> None:
    """The counts say how many tokens were kept."""
    with opened_site(model, store=True, keeps_prefixes=True) as site:
        assert site.complete(prompt="a" * 60, max_tokens=2).json()["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
        usage = site.complete(prompt="a" * 60 + "b", max_tokens=2).json()["usage"]
        assert usage["prompt_tokens"] == 61
        assert usage["prompt_tokens_details"]["cached_tokens"] == 60
