"""`foveal generate`: text and ids in, text and ids out, as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from specimens import Zoo

from foveal import SamplingParams, load
from foveal.bundle import Bundle
from foveal.cli.console import progress
from foveal.cli.console import write as write_out
from foveal.export import convert_model


@pytest.fixture(scope="module")
def bytes_bundle(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A model that reads bytes, in a folder whose name is like markup."""
    from specimens import random_model

    return convert_model(
        random_model("1@1", vocab_size=256), tmp_path_factory.mktemp("b") / "[bold] :a: [x]", tokenizer="bytes"
    )


SHORT = ("--max-new-tokens", "4", "--temperature", "0", "--threads", "1")


def test_ids_in_and_out(foveal, zoo: Zoo, tmp_path: Path) -> None:
    """As numbers and as a file; the prompt comes first, as with text."""
    path = zoo["vanilla"].bundle.path
    new = list(load(path, threads=1).generate_ids([1, 2, 3], SamplingParams(temperature=0, max_new_tokens=4)))
    expected = " ".join(map(str, [1, 2, 3, *new])) + "\n"
    np.save(tmp_path / "ids.npy", np.asarray([1, 2, 3]))
    for given in ("1 2 3", "[1, 2, 3]", tmp_path / "ids.npy"):
        code, out, err = foveal("generate", path, "--ids", given, *SHORT)
        assert (code, out) == (0, expected)
        assert err == "ended (length): 4 new tokens, as --max-new-tokens says\n"


def test_advice_is_in_the_words_of_the_command(foveal, zoo: Zoo) -> None:
    """Each in one line."""
    path = zoo["vanilla"].bundle.path
    for arguments, reason in (
        ((path, "text"), 'has no tokenizer, so it takes ids only: --ids "17 4 99", or --ids FILE'),
        ((path,), "got neither of a prompt and --ids, expected one of them"),
        ((path, "text", "--ids", "1"), "got both of a prompt and --ids, expected one of them"),
        ((path, "--ids", "one"), '--ids: "one" is no id'),
        ((path, "--ids", "99"), "outside the vocabulary; expected 0 <= id < 41"),
        ((path, "--ids", ""), "the prompt is empty"),
        ((path, "--ids", "1", "--output", "song"), '--output is "song", expected text or ids'),
    ):
        code, out, err = foveal("generate", *arguments, "--threads", "1")
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert reason in err


def test_text_is_printed_as_it_is(foveal, bytes_bundle: Bundle) -> None:
    """What looks like an emoji's name or markup is music, or whatever else was meant."""
    prompt = "|:a:| [bold]x[/bold] [/] é日🙂\t"
    model = load(bytes_bundle.path, threads=1)
    text = "".join(model.generate(prompt, max_new_tokens=4, temperature=0))
    code, out, _ = foveal("generate", bytes_bundle.path, prompt, *SHORT)
    assert (code, out) == (0, f"{prompt}{text}\n")


def test_paths_are_printed_as_they_are(foveal, bytes_bundle: Bundle, tmp_path: Path) -> None:
    """By commands that work and by those that do not."""
    (tmp_path / "[red]t.txt").write_text("the sea " * 40)
    code, out, _ = foveal("inspect", bytes_bundle.path)
    assert (code, out.startswith(f"{bytes_bundle.path}: ")) == (0, True)
    code, out, _ = foveal("eval", bytes_bundle.path, "--text", tmp_path / "[red]t.txt", "--threads", "1")
    assert (code, out.startswith(f"{bytes_bundle.path} (fp32): ")) == (0, True)
    code, _, err = foveal("eval", bytes_bundle.path, "--text", tmp_path / "[/red] none", "--threads", "1")
    assert code == 1
    assert str(tmp_path / "[/red] none") in err


def test_eval_of_ids(foveal, zoo: Zoo, tmp_path: Path) -> None:
    """Per token, as nobody knows the bytes."""
    np.save(tmp_path / "ids.npy", np.arange(80) % 41)
    code, out, _ = foveal("eval", zoo["vanilla"].bundle.path, "--text", tmp_path / "ids.npy", "--threads", "1")
    assert code == 0
    assert "nats per token" in out
    assert "bits per byte" not in out


def test_an_output_that_can_not_hold_the_text(monkeypatch: pytest.MonkeyPatch, bytes_bundle: Bundle) -> None:
    """One line, and the way out."""
    command = [sys.executable, "-m", "foveal.cli", "generate", str(bytes_bundle.path), "é", *SHORT]
    done = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert done.stderr.startswith(b"foveal: the output is ascii, which can't hold '\\xe9'; set PYTHONUTF8=1")


def test_whoever_stops_reading_sees_no_traceback(bytes_bundle: Bundle) -> None:
    """A pipe that closes ends the command."""
    command = [sys.executable, "-m", "foveal.cli", "generate", str(bytes_bundle.path), "x" * 60, "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as reader:
        reader.stdout.close()  # type: ignore[union-attr]
        assert b"Traceback" not in reader.stderr.read()  # type: ignore[union-attr]


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_an_output_that_is_closed(bytes_bundle: Bundle, closed: str) -> None:
    """What would go there goes nowhere; the rest is as it is."""
    command = f'"$0" -m foveal.cli generate "$1" x --max-new-tokens 1 --temperature 0 --threads 1 {closed}'
    done = subprocess.run(["sh", "-c", command, sys.executable, bytes_bundle.path], capture_output=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith(b"x") is not closed.startswith(">")
    assert done.stderr.startswith(b"ended (length)") is (closed == ">&-")


def test_ctrl_c_is_exit_code_130(foveal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it comes, and without a traceback."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("foveal.cli.app", interrupted)
    assert foveal("doctor") == (130, "", "")


def test_progress_is_lines_where_nobody_can_see_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first at once, others every ten seconds, the last at the end."""
    now = [0.0]
    monkeypatch.setattr("foveal.cli.console.time.monotonic", lambda: now[0])
    with progress("train") as report:
        for step in range(1, 31):
            now[0] += 1.0
            report(f"[loss] {5 - step / 10:.1f}", step, 30)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "train: [loss] 4.9, 1 of 30, 1 s"
    assert [line.split(", ")[1] for line in lines] == ["1 of 30", "11 of 30", "21 of 30", "30 of 30"]


def test_the_beginning_of_a_part_is_told_at_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """However recent the last line is; not again while that part stands at its beginning."""
    monkeypatch.setattr("foveal.cli.console.time.monotonic", lambda: 1.0)
    with progress("convert") as report:
        for doing, done in (
            ("exporting", 1),
            ("calibrating", 0),
            ("calibrating", 1),
            ("compiling: 10%", 0),
            ("compiling: 20%", 0),
        ):
            report(doing, done, 9)
    told = [line.split(", ")[0] for line in capsys.readouterr().err.splitlines()]
    assert told == ["convert: exporting", "convert: calibrating", "convert: compiling: 10%", "convert: compiling: 20%"]


def test_nothing_is_kept_back(capsys: pytest.CaptureFixture[str]) -> None:
    """Pieces show as they come."""
    write_out("|:a:|")
    assert capsys.readouterr().out == "|:a:|"
