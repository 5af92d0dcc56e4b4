"""`/v1/chat/completions`: a template makes a prompt of messages, and the answer is a message."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Site, chunks_of, error_of, opened_site

from foveal import ConfigError
from foveal.runtime.model import Model
from foveal.serve.chat_template import ChatTemplate, find_template
from foveal.serve.requests import Message, TextPart

SOURCE = (
    "{% for message in messages %}<{{ message.role[0] }}>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)
HELLO = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def chatty(model: Model) -> Iterator[Site]:
    """A model that has a template, and no token that ends its messages."""
    with opened_site(model, template=ChatTemplate(SOURCE), store=True) as site:
        yield site


def ask(site: Site, **fields: Any) -> httpx.Response:
    return site.client.post("/v1/chat/completions", json={"model": "m", "messages": HELLO, **fields})


def test_a_message_is_what_follows_the_templates_prompt(chatty: Site, model: Model) -> None:
    """As OpenAI writes it."""
    found = ask(chatty, seed=1, max_tokens=12).json()
    assert found["object"] == "chat.completion"
    choice = found["choices"][0]
    expected = "".join(model.generate("<u>Hi\n<a>", seed=1, max_new_tokens=12))
    assert choice["message"] == {"role": "assistant", "content": expected, "refusal": None}
    assert choice["finish_reason"] == "length"
    assert found["usage"]["prompt_tokens"] == len("<u>Hi\n<a>")


def test_a_streamed_message_begins_with_its_role(chatty: Site) -> None:
    """Each of several does."""
    whole = ask(chatty, seed=1, max_tokens=12, n=2).json()
    answer = ask(chatty, seed=1, max_tokens=12, n=2, stream=True, stream_options={"include_usage": True})
    chunks = chunks_of(answer.text)
    texts, roles = ["", ""], [0, 0]
    for chunk in chunks[:-1]:
        assert chunk["object"] == "chat.completion.chunk"
        choice = chunk["choices"][0]
        texts[choice["index"]] += choice["delta"].get("content", "")
        roles[choice["index"]] += "role" in choice["delta"]
    assert texts == [choice["message"]["content"] for choice in whole["choices"]]
    assert roles == [1, 1]
    assert chunks[-1]["usage"] == whole["usage"]


def test_without_a_limit_a_message_is_as_long_as_there_is_room(chatty: Site) -> None:
    """As OpenAI's are; both names of the limit will do."""
    assert ask(chatty, foveal=True).json()["choices"][0]["foveal"]["finish_reason"] == "capacity"
    for name in ("max_tokens", "max_completion_tokens"):
        assert ask(chatty, **{name: 3}).json()["usage"]["completion_tokens"] == 3
    error_of(ask(chatty, max_tokens=3, max_completion_tokens=4), 400)


def test_log_probabilities_of_messages(chatty: Site) -> None:
    """With the bytes of each token."""
    content = ask(chatty, seed=1, max_tokens=5, logprobs=True, top_logprobs=3).json()["choices"][0]["logprobs"]["content"]
    assert len(content) == 5
    for one in content:
        assert len(one["top_logprobs"]) == 3
        assert one["logprob"] <= one["top_logprobs"][0]["logprob"]
        assert isinstance(one["bytes"], list)


def test_a_message_ends_at_the_templates_end(model: Model) -> None:
    """And at those that the request names."""
    text = "".join(model.generate("<u>Hi\n<a>", temperature=0, max_new_tokens=12))
    end = next(letter for letter in text[1:] if letter.isascii())
    with opened_site(model, template=ChatTemplate(SOURCE, ends=[end])) as site:
        choice = ask(site, temperature=0).json()["choices"][0]
        assert choice["message"]["content"] == text[: text.index(end)]
        assert choice["finish_reason"] == "stop"


REFUSED: dict[str, dict[str, Any]] = {
    "no messages": {"messages": []},
    "a message without a role": {"messages": [{"content": "Hi"}]},
    "an image": {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
    "tools": {"tools": [{"type": "function", "function": {"name": "f"}}]},
    "a field of completions": {"prompt": "a"},
    "likeliest tokens without log probabilities": {"top_logprobs": 2},
    "too many": {"logprobs": True, "top_logprobs": 21},
    "no tokens": {"max_tokens": 0},
    "half a pair": {"messages": [{"role": "user", "content": 1}]},
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_a_chat_cannot_have_is_refused(chatty: Site, kind: str) -> None:
    """And not left out silently."""
    error_of(ask(chatty, **REFUSED[kind]), 400)


def test_a_model_without_a_template_says_so(site: Site) -> None:
    """With where to ask instead."""
    error = error_of(ask(site), 400)
    assert error["code"] == "no_chat_template"
    assert "/v1/completions" in error["message"]


def test_parts_of_a_message_are_joined_and_what_the_template_refuses_is_told() -> None:
    """By its own words."""
    template = ChatTemplate(
        "{% if messages|length > 1 %}{{ raise_exception('one at a time') }}{% endif %}{{ messages[0].content }}"
    )
    assert template.prompt([Message("user", [TextPart("text", "a"), TextPart("text", "b")])]) == "ab"
    with pytest.raises(Exception, match="one at a time"):
        template.prompt([Message("user", "a")] * 2)


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ 1 / 0 }}",
        "{{ nothing.at.all }}",
        "{% for _ in range(10 ** 9) %}{% endfor %}",
    ],
)
def test_a_template_can_do_nothing_but_write(source: str) -> None:
    """It comes with a checkpoint, which may be anybody's."""
    with pytest.raises(Exception, match="does not take these messages"):
        ChatTemplate(source).prompt([Message("user", "a")])


def test_a_bundles_own_template_and_end_are_found(tmp_path: Path) -> None:
    """A file of its own goes before the configuration's, and one that is given before both."""
    assert find_template(tmp_path) is None
    config = {
        "chat_template": "{{ bos_token }}config",
        "bos_token": "<s>",
        "eos_token": {"content": "</s>"},
        "model_max_length": 1e30,
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    found = find_template(tmp_path)
    assert found is not None
    assert (found.prompt([]), found.ends) == ("<s>config", ("</s>",))
    config["chat_template"] = [{"name": "tools", "template": "tools"}, {"name": "default", "template": "one of several"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert (found := find_template(tmp_path)) is not None
    assert found.prompt([]) == "one of several"
    (tmp_path / "chat_template.jinja").write_text("file")
    assert (found := find_template(tmp_path)) is not None
    assert found.prompt([]) == "file"
    (tmp_path / "own.jinja").write_text("own")
    assert (found := find_template(tmp_path, tmp_path / "own.jinja", ["<end>"])) is not None
    assert (found.prompt([]), found.ends) == ("own", ("<end>",))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", b"{"),
        ("tokenizer_config.json", b"[]"),
        ("chat_template.jinja", b"\xff"),
        ("chat_template.jinja", b"{% if %}"),
    ],
)
def test_a_template_that_cannot_be_read_says_so(tmp_path: Path, name: str, content: bytes) -> None:
    """When the server starts."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError):
        find_template(tmp_path)
