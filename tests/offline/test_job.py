"""A job over files: each line of the input has one line in the output, however often the job is killed and begun again."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jobs import prompts, records

from foveal import Model
from foveal.errors import ConfigError, FovealError, InputError
from foveal.offline.here import here
from foveal.offline.inputs import Part
from foveal.offline.job import Execute, Job
from foveal.offline.runner import Done
from foveal.offline.tasks import Task
from foveal.runtime.scoring import append_scored

GREEDY = Task("generate", {"max_new_tokens": 4, "temperature": 0})
SCORE = Task("score", {})


@pytest.fixture
def job(model: Model, tmp_path: Path) -> Job:
    """23 lines in two files, in parts of 4."""
    files = [prompts(tmp_path / "a.txt", 9), prompts(tmp_path / "b.txt", 14)]
    return Job(model.bundle, files, tmp_path / "out", GREEDY, part_lines=4)


def run(job: Job, model: Model) -> dict[str, Any]:
    """In this process."""
    return job.run(here(model, job.task, slots=3, capacity=job.capacity))


def test_each_text_is_that_of_generate(job: Job, model: Model) -> None:
    """In the order of the lines, and counted."""
    totals = run(job, model)
    for name, count in (("a", 9), ("b", 14)):
        found = records(job.out / f"{name}.txt.jsonl")
        assert [(one["id"], one["line"]) for one in found] == [(number, number) for number in range(1, count + 1)]
        for one in found:
            text = model.generate(f"{name} {one['id']}", **job.task.settings)
            assert ("".join(text), text.finish_reason, text.count) == (one["text"], one["finish_reason"], one["tokens"])
            assert one["prompt_tokens"] == len(f"{name} {one['id']}")
    assert totals["total"] | {"prompt_tokens": 0} == {
        "lines": 23,
        "errors": 0,
        "prompt_tokens": 0,
        "texts": 23,
        "tokens": 92,
        "finish_reasons": {"length": 23},
    }
    assert totals["files"]["a.txt.jsonl"]["lines"] == 9
    assert json.loads((job.out / "summary.json").read_bytes()) == totals


def test_errors_are_written_where_the_text_would_be(job: Job, model: Model, tmp_path: Path) -> None:
    """And the other lines go on."""
    (tmp_path / "c.jsonl").write_text(
        "\n".join(
            [
                '{"prompt": "It was"}',
                '{"prompt": "", "id": "empty"}',
                '{"prompt": "It was", "temperature": -1}',
                "no JSON",
                json.dumps({"prompt": "x" * 97}),
                '{"prompt": "It was", "max_new_tokens": 2}',
            ]
        )
    )
    totals = run(replace(job, files=[tmp_path / "c.jsonl"]), model)
    found = records(job.out / "c.jsonl")
    reasons = (None, "the prompt is empty", "temperature is -1", "expected an object", "97 tokens", None)
    for one, reason in zip(found, reasons, strict=True):
        assert ("error" in one) == (reason is not None)
        assert (reason or "") in one.get("error", "")
    assert (found[1]["id"], found[4]["error_type"], found[5]["tokens"]) == ("empty", "CapacityError", 2)
    assert (totals["total"]["lines"], totals["total"]["errors"]) == (6, 4)


def test_several_texts_of_a_prompt(job: Job, model: Model, tmp_path: Path) -> None:
    """Each as `generate` gives it with a seed that is larger by one."""
    (tmp_path / "c.jsonl").write_text('{"prompt": "It was", "seed": 5, "temperature": 1, "n": 3, "logprobs": 1}\n')
    run(replace(job, files=[tmp_path / "c.jsonl"]), model)
    (found,) = records(job.out / "c.jsonl")
    texts = ["".join(model.generate("It was", max_new_tokens=4, seed=5 + k)) for k in range(3)]
    assert [one["text"] for one in found["choices"]] == texts
    assert [len(one["logprobs"]) for one in found["choices"]] == [4, 4, 4]


def test_ids_in_the_place_of_text(job: Job, model: Model) -> None:
    """If they are asked for, as of a model without a tokenizer."""
    run(replace(job, task=replace(GREEDY, as_ids=True)), model)
    found = records(job.out / "a.txt.jsonl")
    assert found[2]["ids"] == list(model.generate_ids("a 3", model.request([0], GREEDY.settings).params))
    assert "text" not in found[2]


def test_scores_are_those_of_a_session(job: Job, model: Model, tmp_path: Path) -> None:
    """And bits per byte count the first token, of which nothing says how likely it is, as the others on average."""
    (tmp_path / "c.jsonl").write_text('{"prompt": "It was a sea"}\n{"prompt": [7]}\n{"prompt": "a", "seed": 1}\n')
    totals = run(replace(job, files=[tmp_path / "a.txt", tmp_path / "c.jsonl"], task=SCORE), model)
    first, single, refused = records(job.out / "c.jsonl")
    scored, _ = append_scored(model.session(), model.prompt_ids("It was a sea"), 0)
    nats = -sum(one.logprob for one in scored)
    assert (first["tokens"], first["scored"], first["bytes"]) == (12, 11, 12)
    assert first["nats"] == pytest.approx(nats, rel=1e-5)
    assert first["bits_per_byte"] == pytest.approx(nats / 11 / math.log(2), rel=1e-5)
    assert (single["scored"], single["bits_per_byte"], single["bytes"]) == (0, None, None)
    assert '"seed" does nothing where text is scored' in refused["error"]
    total = totals["total"]
    assert (total["lines"], total["errors"], total["unscored"]) == (12, 1, 1)
    nats = first["nats"] + sum(one["nats"] for one in records(job.out / "a.txt.jsonl"))
    assert total["bits_per_byte"] == pytest.approx(nats / total["scored"] / math.log(2))


def test_empty_files_have_empty_outputs(job: Job, model: Model, tmp_path: Path) -> None:
    """As any other number of lines."""
    (tmp_path / "c.txt").touch()
    assert run(replace(job, files=[tmp_path / "c.txt"]), model)["total"]["lines"] == 0
    assert records(job.out / "c.txt.jsonl") == []


def test_a_job_that_is_done_does_nothing(job: Job, model: Model) -> None:
    """And says what it came to."""
    totals = run(job, model)
    assert job.run(refuse) == totals


def refuse(_parts: Sequence[Part], _on_line: Callable[[], None]) -> Iterator[Done]:
    """No part is expected."""
    raise AssertionError


class StopError(Exception):
    """A crash."""


def stopping(execute: Execute, after: int, done: list[Part]) -> Execute:
    """Crash once so many parts were handed over, and note which."""

    def broken(parts: Sequence[Part], on_line: Callable[[], None]) -> Iterator[Done]:
        for count, one in enumerate(execute(parts, on_line)):
            if count == after:
                raise StopError
            done.append(one.part)
            yield one

    return broken


@pytest.mark.parametrize("after", [0, 3, 6])
def test_a_job_goes_on_where_it_was_stopped(job: Job, model: Model, tmp_path: Path, after: int) -> None:
    """Parts that are written are not done again, and the outputs are those of a job that was not stopped."""
    whole = replace(job, out=tmp_path / "whole")
    totals, done = run(whole, model), list[Part]()
    with pytest.raises(StopError):
        job.run(stopping(here(model, GREEDY), after, done))
    assert job.run(stopping(here(model, GREEDY), 99, done)) == totals
    assert len({(part.file, part.index) for part in done}) == len(done) == 7
    for name in ("a.txt.jsonl", "b.txt.jsonl"):
        assert (job.out / name).read_bytes() == (whole.out / name).read_bytes()


def test_parts_that_are_done_twice_are_written_once(job: Job, model: Model) -> None:
    """As when their answer was lost on the way."""

    def twice(parts: Sequence[Part], on_line: Callable[[], None]) -> Iterator[Done]:
        for one in here(model, GREEDY)(parts, on_line):
            yield one
            yield one

    assert job.run(twice)["total"]["lines"] == 23
    assert [one["line"] for one in records(job.out / "b.txt.jsonl")] == list(range(1, 15))


KILLED = """
import os, signal, sys
from pathlib import Path
import foveal
from foveal.offline import job as jobs, folder
from foveal.offline.here import here
from foveal.offline.tasks import Task
bundle, out, calls, *files = sys.argv[1:]
left, write = [int(calls)], os.write
def dying(descriptor, data):
    left[0] -= 1
    if not left[0]:
        write(descriptor, bytes(data)[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    return write(descriptor, data)
os.write = dying
task = Task("generate", {"max_new_tokens": 4, "temperature": 0})
model = foveal.load(bundle, threads=1)
jobs.Job(model.bundle, [Path(file) for file in files], Path(out), task, part_lines=4).run(here(model, task))
"""


@pytest.mark.parametrize("calls", [1, 3, 6])
def test_a_process_killed_in_the_middle_of_a_line(job: Job, model: Model, tmp_path: Path, calls: int) -> None:
    """Nothing of what it had half written is taken for an answer, and nothing of it stays."""
    arguments = [model.bundle.path, job.out, calls, *job.files]
    killed = subprocess.run([sys.executable, "-c", KILLED, *map(str, arguments)], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert run(job, model)["total"]["lines"] == 23
    assert [one["line"] for one in records(job.out / "a.txt.jsonl")] == list(range(1, 10))
    assert [one["line"] for one in records(job.out / "b.txt.jsonl")] == list(range(1, 15))
    assert sorted(os.listdir(job.out)) == [".foveal-job", "a.txt.jsonl", "b.txt.jsonl", "summary.json"]
    assert sorted(os.listdir(job.out / ".foveal-job")) == ["job.json", "lock"]


def test_another_job_is_not_mixed_with_it(job: Job, model: Model, tmp_path: Path) -> None:
    """Whatever is different is said."""
    with pytest.raises(StopError):
        job.run(stopping(here(model, GREEDY), 2, []))
    (tmp_path / "c.txt").write_text("one\n")
    for other, reason in (
        (
            replace(job, task=Task("generate", {"max_new_tokens": 5, "temperature": 0})),
            "setting max_new_tokens was 4, is now 5",
        ),
        (replace(job, task=SCORE), "kind was 'generate', is now 'score'"),
        (replace(job, part_lines=5), "part_lines was 4, is now 5"),
        (replace(job, files=[*job.files, tmp_path / "c.txt"]), "it had 2 files, there are now 3"),
    ):
        with pytest.raises(ConfigError, match=reason):
            run(other, model)
    prompts(tmp_path / "b.txt", 15)
    with pytest.raises(ConfigError, match="size of .*b.txt was"):
        run(job, model)


def test_what_others_wrote_is_left_alone(job: Job, model: Model, tmp_path: Path) -> None:
    """Outputs that are no outputs of this job, inputs, and folders that another process works in."""
    job.out.mkdir()
    (job.out / "b.txt.jsonl").write_text("mine")
    with pytest.raises(ConfigError, match="is there already and is not of this job"):
        run(job, model)
    assert (job.out / "b.txt.jsonl").read_text() == "mine"
    (tmp_path / "c.jsonl").write_text("{}")
    with pytest.raises(ConfigError, match="would take the place of an input"):
        run(replace(job, files=[tmp_path / "c.jsonl"], out=tmp_path), model)
    (tmp_path / "other").mkdir()
    shutil.copy(tmp_path / "a.txt", tmp_path / "other" / "a.txt")
    with pytest.raises(ConfigError, match="would both be written to"):
        run(replace(job, files=[tmp_path / "a.txt", tmp_path / "other" / "a.txt"], out=tmp_path / "two"), model)


def test_a_folder_is_one_process_s_at_a_time(job: Job, model: Model) -> None:
    """The other one is told."""

    def meanwhile(parts: Sequence[Part], on_line: Callable[[], None]) -> Iterator[Done]:
        with pytest.raises(ConfigError, match="another process works on"):
            run(job, model)
        yield from here(model, GREEDY)(parts, on_line)

    assert job.run(meanwhile)["total"]["errors"] == 0


def test_settings_that_no_line_can_follow_end_the_job(job: Job, model: Model) -> None:
    """Rather than being an error of every line."""
    with pytest.raises(InputError, match="temperature is -1"):
        replace(job, task=Task("generate", {"temperature": -1}))
    with pytest.raises(InputError, match="expected 0 <= id < 256"):
        run(replace(job, task=Task("generate", {"end": 999})), model)
    with pytest.raises(ConfigError, match="part_lines is 0"):
        replace(job, part_lines=0)


def test_engines_that_fail_again_and_again_end_the_job(job: Job, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """And once they work, the job goes on."""
    from foveal.runtime.batches.batch import Batch

    def fail(*_: object) -> None:
        raise FovealError("no power")

    with monkeypatch.context() as patch:
        patch.setattr(Batch, "step", fail)
        with pytest.raises(FovealError, match="no power"):
            run(job, model)
    assert run(job, model)["total"]["errors"] == 0


def test_progress_counts_lines(job: Job, model: Model) -> None:
    """Of the whole job, those of before included."""
    told = list[tuple[str, int, int]]()
    with pytest.raises(StopError):
        job.run(stopping(here(model, GREEDY), 2, []))
    job.run(here(model, GREEDY), lambda *one: told.append(one))
    assert told[0][2] == 23
    assert 0 < told[0][1] < 23
    assert told[-1] == ("lines", 23, 23)
    assert [one[1] for one in told] == sorted(one[1] for one in told)
