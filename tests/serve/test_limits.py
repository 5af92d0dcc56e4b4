"""What a server does not take: bodies that are too large, clients that it does not know, more than it has room for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from served import Hold
from serving import Site, error_of, opened_site

from foveal import ConfigError, FovealWarning
from foveal.runtime.model import Model
from foveal.runtime.service.stream import ThreadStream
from foveal.serve.bearers import read_tokens
from foveal.serve.settings import ServeSettings

BODY = b'{"model": "m", "prompt": "a", "max_tokens": 2}'


@pytest.fixture(scope="module")
def strict(model: Model) -> Iterator[Site]:
    """With limits on everything, and a token."""
    settings = ServeSettings(
        tokens=("a token", "another"),
        max_body=200,
        max_prompt=10,
        max_output=5,
        max_texts=4,
        max_prompts=2,
        opens_metrics=False,
    )
    with opened_site(model, settings) as site:
        site.client.headers["authorization"] = "Bearer another"
        yield site


def test_a_body_that_is_too_large_is_refused(strict: Site) -> None:
    """By what it says of its length, or when so much has come and not after all has."""
    error = error_of(
        strict.client.post("/v1/completions", content=BODY + b" " * 200, headers={"content-type": "application/json"}), 413
    )
    assert error["code"] == "body_too_large"
    given = 0

    def parts() -> Iterator[bytes]:
        nonlocal given
        for _ in range(10):
            given += 1
            yield b" " * 100

    answer = strict.client.post("/v1/completions", content=parts(), headers={"content-type": "application/json"})
    error_of(answer, 413)


def test_limits_on_prompts_and_texts(strict: Site) -> None:
    """Each says what is allowed."""
    assert strict.refusal(400, prompt="a" * 11)["code"] == "context_length_exceeded"
    assert "1 to 4" in strict.refusal(400, prompt="a", n=5)["message"]
    assert "at most 2" in strict.refusal(400, prompt=["a"] * 3)["message"]
    assert "0 to 5" in strict.refusal(400, prompt="a", max_tokens=6)["message"]
    assert strict.complete(prompt="a").json()["usage"]["completion_tokens"] == 5


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer wrong", "Basic another", "another", "Bearer another, a token", "Bearer \xe9"]
)
def test_without_a_token_that_is_known_nothing_is_told(strict: Site, value: str) -> None:
    """Not even which models there are, or what there is not."""
    headers = {"authorization": value.encode("latin-1"), "content-type": "application/json"}
    for method, path in (
        ("POST", "/v1/completions"),
        ("GET", "/v1/models"),
        ("GET", "/status"),
        ("GET", "/nothing"),
        ("GET", "/metrics"),
    ):
        answer = strict.client.request(method, path, content=BODY, headers=headers)
        assert error_of(answer, 401)["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_whether_it_works_is_told_to_all(strict: Site) -> None:
    """For those who watch over it."""
    for path in ("/health", "/ready"):
        assert strict.client.get(path, headers={"authorization": ""}).status_code == 200


def test_any_of_the_tokens_will_do(strict: Site) -> None:
    """The word before it in any case."""
    for value in ("Bearer a token", "bearer another"):
        assert strict.client.get("/v1/models", headers={"authorization": value}).status_code == 200


def test_when_there_is_no_room_clients_are_told_when_to_come_back(model: Model) -> None:
    """With 429, also before a stream; texts of one request that find no room leave none behind."""
    holds = Hold(2), Hold(2)
    with opened_site(model, slots=1, queue=1) as site:
        running = [site.served.service.submit("a", max_new_tokens=100, logits_hook=hold) for hold in holds]
        holds[0].wait()
        for streams in (False, True):
            answer = site.complete(prompt="a", stream=streams)
            assert error_of(answer, 429)["code"] == "rate_limit_exceeded"
            assert int(answer.headers["retry-after"]) >= 1
        _end(running[0], holds[0])
        holds[1].wait()
        assert site.refusal(429, prompt=["a", "b"])
        _end(running[1], holds[1])
        assert site.complete(prompt=["a", "b"]).status_code == 200


def _end(stream: ThreadStream, hold: Hold) -> None:
    """Cancel a text that is held, and read it to its end."""
    stream.cancel()
    hold.release()
    for _ in stream:
        pass


def test_a_text_ends_when_its_time_is_over(model: Model) -> None:
    """With what it has; nobody may ask for more than the server's limit."""
    with opened_site(model, ServeSettings(timeout=1e-6)) as site:
        found = site.complete(prompt="a", max_tokens=100, max_seconds=10, foveal=True).json()["choices"][0]
        assert found["foveal"]["finish_reason"] == "deadline"


@pytest.mark.parametrize("field", ["max_prompt", "max_output", "max_body", "timeout", "max_texts"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "1", True])
def test_limits_are_numbers_above_zero(field: str, value: object) -> None:
    """Anything else is refused when the server starts."""
    with pytest.raises(ConfigError, match=field):
        ServeSettings(**{field: value})


def test_tokens_come_from_a_file_and_the_environment(tmp_path) -> None:
    """One a line, with notes; twice is once."""
    file = tmp_path / "tokens"
    file.write_text("# who\none\n\n  two \none\n")
    file.chmod(0o600)
    assert read_tokens(file, {"FOVEAL_TOKENS": "three one"}) == ("three", "one", "two")
    assert read_tokens(None, {}) == ()
    for text in ("", "# nothing\n", "a b\n", "é\n"):
        file.write_text(text)
        with pytest.raises(ConfigError, match="token"):
            read_tokens(file, {})
    with pytest.raises(ConfigError, match="FOVEAL_TOKENS"):
        read_tokens(None, {"FOVEAL_TOKENS": " "})
    file.write_text("one\n")
    file.chmod(0o644)
    with pytest.warns(FovealWarning, match="chmod 600"):
        read_tokens(file, {})
