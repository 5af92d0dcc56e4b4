"""`hf:owner/name@revision/path#entry`, as huggingface_hub reads what follows `hf://`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from huggingface_hub.utils import parse_hf_uri

from foveal import ConfigError
from foveal.hub.names import HubName, hub_name

NAMES = {
    "owner/name": HubName("owner/name"),
    "owner/name@v1.0": HubName("owner/name", "v1.0"),
    "owner/name/a/b.pt": HubName("owner/name", None, "a/b.pt"),
    "o-1/n_2.x@main/a": HubName("o-1/n_2.x", "main", "a"),
    "owner/name@refs/pr/7": HubName("owner/name", "refs/pr/7"),
    "owner/name@refs/pr/7/a": HubName("owner/name", "refs/pr/7", "a"),
    "owner/name@feature%2Fx/a": HubName("owner/name", "feature/x", "a"),
}


@pytest.mark.parametrize("text", NAMES)
def test_parts(text: str) -> None:
    """They are what huggingface_hub says they are; a Path of it is the same."""
    found = NAMES[text]
    theirs = parse_hf_uri(f"hf://{text}")
    assert (theirs.id, theirs.revision, theirs.path_in_repo) == (found.repository, found.revision, found.path)
    assert hub_name(f"hf:{text}") == hub_name(Path(f"hf:{text}")) == hub_name(Path(f"hf://{text}")) == found


def test_one_of_several_models() -> None:
    """As of a file on the disk."""
    assert hub_name("hf:owner/name/run.pt#ema") == HubName("owner/name", None, "run.pt", "ema")
    assert hub_name("hf:owner/name#ema") == HubName("owner/name", entry="ema")


def test_written_as_they_are_read() -> None:
    """With the commit in the place of the revision."""
    name = HubName("owner/name", "main", "a/run.pt", "ema")
    assert hub_name(str(name)) == name
    assert name.at("c0ffee") == "hf:owner/name@c0ffee/a/run.pt#ema"


@pytest.mark.parametrize("path", ["model.bundle", "/hf:owner/name", "owner/name", "./a", Path("a/hf:b"), None])
def test_everything_else_is_a_path(path: object) -> None:
    """On this machine."""
    assert hub_name(path) is None


@pytest.mark.parametrize(
    "text", ["hf:", "hf:gpt2", "hf:owner/", "hf:owner/name@", "hf:ow ner/name", "hf:owner/name/../x", "hf:a/b//c"]
)
def test_names_that_are_none(text: str) -> None:
    """They are refused, with the form."""
    with pytest.raises(ConfigError, match=re.escape(text) + r".*expected .*"):
        hub_name(text)
