"""A set of models that train in turns, level whenever they stop, and cool on copies."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import msgspec
import pytest
import torch

from foveal import CheckpointError, ConfigError
from foveal.bench import trained_set
from foveal.bench.trained_set import TrainedSet, copy_to_cool, read_set, trainers
from foveal.json_files import decode
from foveal.models import SHIPPED_BYTES
from foveal.models.checkpoint import read_config
from foveal.models.config import ModelConfig
from foveal.models.train import TrainReport, TrainSettings, batch_at

SETTINGS = TrainSettings(steps=1000, batch=2, context=16, warmup_steps=2, eval_every=4, cooldown=0.2)


def config(hierarchy: str) -> ModelConfig:
    """A model of bytes."""
    return ModelConfig(
        hierarchy=hierarchy, vocab_size=256, dim=16, heads=2, head_dim=8, ff_dim=16, max_positions=16, positions="rotary"
    )


MODELS = {"flat": config("1@1"), "deep": config("1@1 1@4 1@1")}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Some text."""
    (tmp_path / "t.txt").write_text("the sea and the ship and the storm\n" * 40)
    return tmp_path / "t.txt"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A set of two models that has not begun."""
    return write_set(tmp_path / "runs", SETTINGS)


def write_set(runs: Path, settings: TrainSettings, models: dict[str, ModelConfig] = MODELS) -> Path:
    """The directory, with a `set.json`."""
    runs.mkdir(exist_ok=True)
    (runs / "set.json").write_bytes(msgspec.json.encode(TrainedSet(models=models, settings=settings)))
    return runs


def train(runs: Path, text: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    """As the script does; the number of threads is the tests'."""
    monkeypatch.setattr(trained_set, "use_threads", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["trained_set", "train", str(runs), "--text", str(text), "--valid", str(text), *more])
    trained_set.main()


def curve(run: Path) -> list[int]:
    """The steps that were evaluated."""
    return [point.step for point in decode((run / "training.json").read_bytes(), TrainReport).curve]


def test_whoever_is_behind_goes_first(runs: Path, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of time all stop at the same step; the next call goes on with whom a kill left behind."""
    train(runs, text, monkeypatch, "--minutes", "1e-9")
    assert [curve(runs / name) for name in MODELS] == [[4], [4]]
    trainers(runs, [text], [text])[1].run(until_step=9)  # and is killed
    with pytest.raises(CheckpointError, match="are not level: .*'deep': 9"):
        copy_to_cool(runs, runs.with_name("cooled"))
    train(runs, text, monkeypatch, "--minutes", "1e-9")
    assert [curve(runs / name) for name in MODELS] == [[4, 8, 12], [4, 8, 9, 12]]


def test_copies_cool_and_the_runs_go_on(runs: Path, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is trained so far is the same as in a run whose end was known from the beginning, and the set is as it was."""
    train(runs, text, monkeypatch, "--minutes", "1e-9")
    train(runs, text, monkeypatch, "--minutes", "1e-9")
    before = {path: path.read_bytes() for path in sorted(runs.rglob("*")) if path.is_file()}
    cooled = runs.with_name("cooled")
    monkeypatch.setattr(sys, "argv", ["trained_set", "cool", str(runs), str(cooled)])
    trained_set.main()
    train(cooled, text, monkeypatch)
    assert read_set(cooled).settings.steps == 10
    assert {path: path.read_bytes() for path in before} == before
    known = write_set(runs.with_name("known"), msgspec.structs.replace(SETTINGS, steps=10))
    train(known, text, monkeypatch)
    for name in MODELS:
        assert curve(cooled / name) == [4, 8, 10]
        there, asked = (weights(place / name) for place in (cooled, known))
        assert there.keys() == asked.keys()
        assert all(torch.equal(there[key], asked[key]) for key in asked)
    train(runs, text, monkeypatch, "--minutes", "1e-9")
    assert [curve(runs / name) for name in MODELS] == [[4, 8, 12], [4, 8, 12]]


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Of the state that a run goes on with."""
    state: dict[str, torch.Tensor] = torch.load(run / "resume.pt", weights_only=True)["model"]
    return state


def test_batches_are_the_same_for_all(runs: Path, text: Path) -> None:
    """Whatever the model is, and in whatever order they train."""
    flat, deep = trainers(runs, [text], [text])
    assert [run.out.name for run in (flat, deep)] == list(MODELS)
    for step in (0, 7):
        assert torch.equal(*(batch_at(step, run.train_ids, run.settings) for run in (flat, deep)))


def test_what_is_no_set(runs: Path) -> None:
    """Is said in one sentence: it is missing, malformed, empty, or ends nowhere but at its end."""
    with pytest.raises(ConfigError, match=r"set\.json is not a set of models to train: .*No such file"):
        read_set(runs / "elsewhere")
    (runs / "set.json").write_text('{"models": {}, "settings": {"steps": "many"}}')
    with pytest.raises(ConfigError, match="is not a set of models to train: Expected `int`"):
        read_set(runs)
    with pytest.raises(ConfigError, match="has no models"):
        read_set(write_set(runs, SETTINGS, {}))
    with pytest.raises(ConfigError, match="has no cooldown, expected a share of the steps"):
        read_set(write_set(runs, msgspec.structs.replace(SETTINGS, cooldown=None)))


def test_what_can_not_cool(runs: Path, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is overwritten, and nothing cools that has not begun, or already does."""
    with pytest.raises(CheckpointError, match="holds no run: resume.pt is not there; train it first"):
        copy_to_cool(runs, runs.with_name("cooled"))
    short = write_set(runs.with_name("short"), msgspec.structs.replace(SETTINGS, steps=4))
    train(short, text, monkeypatch)
    with pytest.raises(CheckpointError, match="are at step 4 of 4, expected one before their cooldown"):
        copy_to_cool(short, runs.with_name("cooled"))
    assert not runs.with_name("cooled").exists()
    with pytest.raises(CheckpointError, match="runs is there already; train it, or choose another directory"):
        copy_to_cool(short, runs)


def test_what_runs_came_to(
    runs: Path, text: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A column for each, as its training.json and config.json have it; printed, or in a document."""
    train(runs, text, monkeypatch, "--minutes", "1e-9")
    capsys.readouterr()
    checkpoints = [str(runs / name) for name in MODELS]
    monkeypatch.setattr(sys, "argv", ["trained_set", "show", *checkpoints])
    trained_set.main()
    table = capsys.readouterr().out.splitlines()
    assert table[0] == "|  | flat | deep |"
    assert "| hierarchy | `1@1` | `1@1 1@4 1@1` |" in table
    reports = [decode((runs / name / "training.json").read_bytes(), TrainReport) for name in MODELS]
    bits = " | ".join(f"**{report.curve[-1].valid_bits_per_byte:.4f}**" for report in reports)
    assert table[-1] == f"| validation, **bits per byte** | {bits} |"
    assert "| steps; tokens | 4; 0.00 M | 4; 0.00 M |" in table
    page = tmp_path / "page.md"
    page.write_text("<!-- figures: trained-set --><!-- end: trained-set -->")
    monkeypatch.setattr(sys, "argv", ["trained_set", "show", *checkpoints, "--document", str(page)])
    trained_set.main()
    assert table[2] in page.read_text()
    (runs / "flat" / "training.json").unlink()
    with pytest.raises(CheckpointError, match=r"training\.json is not the report of a run: .*; name directories that training"):
        trained_set.main()


def test_the_set_of_the_docs_is_that_of_the_shipped_models() -> None:
    """docs/training.md has the file, and nothing is left out."""
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    shown = decode(re.findall(r"```json\n(.*?)```", page, re.DOTALL)[0], TrainedSet)
    for name, config in shown.models.items():
        checkpoint = SHIPPED_BYTES[f"bytes_1k_{name}"]
        report = decode((checkpoint / "training.json").read_bytes(), TrainReport)
        assert read_config(checkpoint) == config
        assert report.settings == msgspec.structs.replace(shown.settings, steps=report.curve[-1].step)
