"""examples/04_files.py: a line for each file, whatever happened to the job before."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import foveal

PROMPTS = {"a.txt": "It was late, and", "b.txt": "The sea", "c.txt": "Once upon a time", "d.txt": "He said", "e.txt": "She was"}
Run = Callable[..., int]


@pytest.fixture
def prompts(tmp_path: Path) -> list[str]:
    """Files of prompts."""
    for name, text in PROMPTS.items():
        (tmp_path / name).write_text(text)
    return [str(tmp_path / name) for name in PROMPTS]


@pytest.fixture
def job(example: Callable[[str], ModuleType], bundle: Path, tmp_path: Path) -> Run:
    """Run the job; its exit code."""

    def run(*arguments: str) -> int:
        common = [
            "--bundle",
            str(bundle),
            "--threads",
            "1",
            "--slots",
            "2",
            "--tokens",
            "9",
            "--out",
            str(tmp_path / "out.jsonl"),
        ]
        try:
            example("04_files").main([*arguments, *common])
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    return run


def lines(folder: Path) -> list[dict[str, Any]]:
    """What was written."""
    return [json.loads(line) for line in (folder / "out.jsonl").read_text(encoding="utf-8").splitlines()]


def test_each_file_gets_what_the_model_goes_on_with(
    job: Run, prompts: list[str], model: foveal.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As alone, and a line as soon as it is whole."""
    assert job(*prompts) == 0
    found = {line["file"]: line for line in lines(tmp_path)}
    assert set(found) == set(prompts)
    for file in prompts:
        text = "".join(model.generate(PROMPTS[Path(file).name], max_new_tokens=9, temperature=0.6, seed=1))
        assert (found[file]["text"], found[file]["tokens"], found[file]["finish_reason"]) == (text, 9, "length")
    assert capsys.readouterr().err == "5 written, 0 were there, 0 errors\n"


def test_a_job_that_was_killed_goes_on_where_it_was(
    job: Run, prompts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line that was cut short is written again; the others stay as they are, and all are those of an unbroken job."""
    job(*prompts)
    out = tmp_path / "out.jsonl"
    whole = out.read_text(encoding="utf-8")
    out.write_text(whole[: len(whole) * 2 // 3], encoding="utf-8")
    there = whole[: len(whole) * 2 // 3].count("\n")
    capsys.readouterr()
    assert job(*prompts) == 0
    assert capsys.readouterr().err == f"{5 - there} written, {there} were there, 0 errors\n"
    assert sorted(out.read_text(encoding="utf-8").splitlines()) == sorted(whole.splitlines())
    assert job(*prompts) == 0
    assert capsys.readouterr().err == "0 written, 5 were there, 0 errors\n"


def test_other_settings_and_other_content_are_other_lines(job: Run, prompts: list[str], tmp_path: Path) -> None:
    """Nothing that was made in another way is taken for it."""
    job(*prompts[:2])
    job(*prompts[:2], "--seed", "2")
    Path(prompts[0]).write_text("It was early, and")
    job(*prompts[:2])
    assert [line["file"] for line in lines(tmp_path)].count(prompts[0]) == 3
    assert len({line["key"] for line in lines(tmp_path)}) == 5


def test_files_that_can_t_be_continued_do_not_stop_the_job(job: Run, prompts: list[str], tmp_path: Path) -> None:
    """Each gets a line that says why, once, and is tried again by the next run."""
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "long.txt").write_text("word " * 600)
    bad = [str(tmp_path / name) for name in ("empty.txt", "bytes.txt", "long.txt", "missing.txt")]
    assert job(bad[0], *prompts[:1], *bad[1:], *prompts[1:2]) == 1
    errors = {line["file"]: line["error"] for line in lines(tmp_path) if "error" in line}
    for file, said in zip(bad, ("is empty", "not UTF-8", "room for 512", "No such file"), strict=True):
        assert said in errors[file]
    Path(bad[0]).write_text("It was")
    assert job(*bad[:1], *prompts[:2]) == 0
    assert sorted(line["file"] for line in lines(tmp_path)) == sorted([*prompts[:2], bad[0]])


def test_a_file_of_something_else_is_not_written_over(job: Run, prompts: list[str], tmp_path: Path) -> None:
    """It may be somebody's only copy."""
    (tmp_path / "out.jsonl").write_text("my diary\n")
    with pytest.raises(foveal.InputError, match="not of this job: 'my diary'"):
        job(*prompts)
    assert (tmp_path / "out.jsonl").read_text() == "my diary\n"
