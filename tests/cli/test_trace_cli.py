"""`foveal generate --trace`: the text as it is without, and a file that is whole, however the text ended."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from jobs import bytes_bundle
from store import Store

from foveal.bundle import Bundle
from foveal.cli.interrupts import interrupts_wait

SETTINGS = ("--max-new-tokens", "24", "--seed", "1", "--threads", "1")


@pytest.fixture(scope="module")
def bundle(store: Store) -> Bundle:
    """Two scales, of bytes."""
    return bytes_bundle(store)


def slices(trace: Path, name: str) -> int:
    """So many of a name."""
    return sum(event["ph"] == "X" and event["name"] == name for event in json.loads(trace.read_bytes())["traceEvents"])


@pytest.mark.parametrize("more", [(), ("--json",), ("--output", "ids"), ("--draft", "ngrams")], ids=" ".join)
def test_the_output_is_the_same(foveal, bundle: Bundle, tmp_path: Path, more: tuple[str, ...]) -> None:
    """In every form; the trace has all tokens."""
    trace = tmp_path / "t.json"
    given = ("generate", bundle.path, "abcabcabc", *SETTINGS, *more)
    assert foveal(*given, "--trace", trace)[:2] == foveal(*given)[:2]
    assert slices(trace, "sample") == 24


def test_what_is_cut_off_is_kept(foveal, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By Ctrl-C in the middle: the command ends as it does without a trace, and the file has what was generated until then."""
    pieces = []

    def write(text: str) -> None:
        pieces.append(text)
        if len(pieces) == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["foveal.cli.generate"], "write", write)
    trace = tmp_path / "t.json"
    assert foveal("generate", bundle.path, "abc", *SETTINGS, "--trace", trace)[0] == 130
    assert slices(trace, "sample") >= slices(trace, "decode") + 1 >= 5


def test_ctrl_c_waits_until_the_file_is_written() -> None:
    """And is not forgotten."""
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts_wait():
        os.kill(os.getpid(), signal.SIGINT)
        done.append(True)
    assert done


def test_a_place_that_takes_no_file_is_refused_before_the_text(foveal, bundle: Bundle, tmp_path: Path) -> None:
    """In one line."""
    code, out, err = foveal("generate", bundle.path, "abc", *SETTINGS, "--trace", tmp_path)
    assert (code, out) == (1, "")
    assert str(tmp_path) in err


@pytest.mark.parametrize("prompt", ["", "a" * 100_000], ids=["empty", "too long"])
def test_a_prompt_that_is_refused_leaves_the_file_as_it_is(foveal, bundle: Bundle, tmp_path: Path, prompt: str) -> None:
    """Of a trace of before nothing is lost, and none is made."""
    trace, other = tmp_path / "t.json", tmp_path / "new.json"
    trace.write_text("before")
    for path in (trace, other):
        code, out, err = foveal("generate", bundle.path, prompt, *SETTINGS, "--trace", path)
        assert (code, out) == (1, "")
        assert "wrote" not in err
    assert trace.read_text() == "before"
    assert not other.exists()
