"""`--draft` of `foveal generate` and `foveal serve`: the same text, and what drafts came to on stderr."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jobs import bytes_bundle, records
from specimens import Zoo
from store import Store

from foveal.bundle import Bundle

GREEDY = ("--max-new-tokens", "40", "--temperature", "0", "--threads", "1")
PROMPT = "abcabcabcabc"


@pytest.fixture(scope="module")
def bundle(store: Store) -> Bundle:
    """Two scales, of bytes."""
    return bytes_bundle(store)


def test_the_text_is_the_same(foveal, bundle: Bundle) -> None:
    """By n-grams and by a model; stderr says how many came, and what that is in tokens per call."""
    code, expected, plain = foveal("generate", bundle.path, PROMPT, *GREEDY)
    assert code == 0
    assert "drafts" not in plain
    for draft, tokens in (("ngrams", "7"), (bundle.path, "3")):
        code, out, err = foveal("generate", bundle.path, PROMPT, *GREEDY, "--draft", draft, "--draft-tokens", tokens)
        assert (code, out) == (0, expected)
        assert err.startswith(plain.strip() + "; drafts: ")
        assert err.endswith(" tokens per call\n")
    assert "100% of" in err  # it drafts for itself


def test_of_several_texts_and_as_json(foveal, bundle: Bundle) -> None:
    """Each has its own; JSON has them only with drafts."""
    many = ("generate", bundle.path, PROMPT, *GREEDY, "--n", "3", "--seed", "1", "--temperature", "1")
    _, expected, _ = foveal(*many)
    code, out, err = foveal(*many, "--draft", bundle.path)
    assert (code, out) == (0, expected)
    assert err.count("tokens per call") == 3
    for n in ("1", "2"):
        _, plain, _ = foveal("generate", bundle.path, PROMPT, *GREEDY, "--json", "--n", n)
        _, drafted, _ = foveal("generate", bundle.path, PROMPT, *GREEDY, "--json", "--n", n, "--draft", bundle.path)
        without, found = json.loads(plain), json.loads(drafted)
        assert [choice.pop("speculation").keys() for choice in found["choices"]] == [{"calls", "drafted", "accepted"}] * int(n)
        assert found == without


def test_files_are_the_same_and_the_job_goes_on_with_other_drafts(foveal, bundle: Bundle, tmp_path: Path) -> None:
    """They are no part of what the job is."""
    prompts = tmp_path / "p.txt"
    prompts.write_text("abcabc\nxyzxyz\naaaa\n", encoding="utf-8")
    files = ("generate", bundle.path, "--files", prompts, *GREEDY)
    assert foveal(*files, "--out", tmp_path / "plain")[0] == 0
    for draft in ("ngrams", bundle.path):
        assert foveal(*files, "--out", tmp_path / "drafted", "--draft", draft)[0] == 0
        assert records(tmp_path / "drafted" / "p.txt.jsonl") == records(tmp_path / "plain" / "p.txt.jsonl")


def test_a_line_has_no_draft_of_its_own(foveal, bundle: Bundle, tmp_path: Path) -> None:
    """A file of prompts opens no model."""
    prompts = tmp_path / "p.jsonl"
    prompts.write_text('{"prompt": "abc", "draft": "ngrams"}\n', encoding="utf-8")
    assert foveal("generate", bundle.path, "--files", prompts, *GREEDY, "--out", tmp_path / "out")[0] == 0
    assert 'no setting "draft" of a line' in records(tmp_path / "out" / "p.jsonl")[0]["error"]


def test_what_can_not_be_is_said_in_one_line(foveal, bundle: Bundle, zoo: Zoo, tmp_path: Path) -> None:
    """Of `generate` and of `serve`, before anything is served."""
    for verb in (("generate", bundle.path, PROMPT, *GREEDY), ("serve", bundle.path, "--threads", "1", "--port", "0")):
        for options, words in (
            (("--draft", "nowhere"), '--draft is "nowhere", where there is no bundle'),
            (("--draft", tmp_path), "is not a bundle|manifest.json"),
            (("--draft", zoo["vanilla"].bundle.path), "needs the same tokenizer|another tokenizer"),
            (("--draft-tokens", "4"), "--draft-tokens does nothing here: it takes --draft"),
            (("--draft", "ngrams", "--draft-tokens", "0"), "draft_tokens is 0, expected 1 to 1,024"),
        ):
            code, _, err = foveal(*verb, *options)
            assert (code, err.strip().count("\n")) == (1, 0), err
            assert any(word in err for word in words.split("|")), err
    code, _, err = foveal("serve", bundle.path, "--threads", "1", "--draft", "none", "--draft-tokens", "4")
    assert (code, "--draft-tokens does nothing here" in err) == (1, True)
