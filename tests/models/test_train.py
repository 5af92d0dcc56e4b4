"""The trainer: it learns, it resumes to the step, and it refuses what makes no sense."""

from __future__ import annotations

import math
import random
from pathlib import Path

import msgspec
import pytest
import torch
from specimens import random_model

from foveal import CheckpointError, ConfigError
from foveal.models.compute import multiply_adds_per_token
from foveal.models.config import ModelConfig, head_dim_of
from foveal.models.dynamic.model import Dynamic
from foveal.models.readers.loading import load_model
from foveal.models.text import encode, read_texts, train_tokenizer
from foveal.models.train import Trainer, TrainReport, TrainSettings, learning_rate, tokenizer_for

CONFIG = ModelConfig(hierarchy="1@1 1@4 1@1", vocab_size=300, dim=32, heads=2, head_dim=16, ff_dim=64, max_positions=32)
SETTINGS = TrainSettings(steps=40, batch=4, context=32, warmup_steps=5, eval_every=20)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Fifty kilobytes of sentences in random order."""
    words = ["the sea", "a ship", "the old captain", "sailed", "slept", "sang of", "feared", "the storm", "at night", "again"]
    rng = random.Random(0)
    lines = (" ".join(rng.choices(words, k=7)) + ".\n" for _ in range(900))
    (tmp_path / "text.txt").write_text("".join(lines))
    return tmp_path / "text.txt"


def trainer(text: Path, out: Path, settings: TrainSettings = SETTINGS) -> Trainer:
    """A trainer on the text."""
    return Trainer(CONFIG, settings, tokenizer_for([text], 300, None), [text], [text], out)


def test_the_loss_falls_and_the_checkpoint_is_whole(text: Path, tmp_path: Path) -> None:
    """The directory is a checkpoint with a tokenizer, a curve and the settings."""
    report = trainer(text, tmp_path / "run").run()
    assert [point.step for point in report.curve] == [20, 40]
    assert report.curve[1].valid_loss_nats < report.curve[0].valid_loss_nats < 5.5
    assert msgspec.json.decode((tmp_path / "run" / "training.json").read_bytes(), type=TrainReport) == report
    loaded = load_model(tmp_path / "run")
    assert loaded.tokenizer_path == tmp_path / "run" / "tokenizer.json"


def test_a_resumed_run_is_the_uninterrupted_one(text: Path, tmp_path: Path) -> None:
    """Stopped after a saved state, the second half sees the same data and ends with the same weights."""

    class Stop(Exception):
        pass

    def stop_at_25(step: int, _loss: float) -> None:
        if step == 25:
            raise Stop

    whole = trainer(text, tmp_path / "whole")
    whole.run()
    with pytest.raises(Stop):
        trainer(text, tmp_path / "halves").run(stop_at_25)
    resumed = trainer(text, tmp_path / "halves")
    assert resumed.step == 20
    resumed.run()
    for expected, got in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        torch.testing.assert_close(got, expected)


def test_other_settings_do_not_continue_a_run(text: Path, tmp_path: Path) -> None:
    """They would make a curve that never was."""
    trainer(text, tmp_path / "run").run()
    with pytest.raises(
        CheckpointError, match=r"holds a run with other settings: .*batch is \d+ there, 2 was asked for.*; use them"
    ):
        trainer(text, tmp_path / "run", TrainSettings(steps=50, batch=2, context=32))
    before = (tmp_path / "run" / "tokenizer.json").read_bytes()
    wider = msgspec.structs.replace(CONFIG, ff_dim=2 * CONFIG.ff_dim)
    with pytest.raises(
        CheckpointError, match=rf"ff_dim is {CONFIG.ff_dim} there, {wider.ff_dim} was asked for; use them again"
    ):
        Trainer(wider, SETTINGS, tokenizer_for([text], 280, None), [text], [text], tmp_path / "run")
    assert (tmp_path / "run" / "tokenizer.json").read_bytes() == before


def test_a_model_is_not_trained_over(text: Path, tmp_path: Path) -> None:
    """Someone's checkpoint or bundle stays as it is, and so does a model whose run can't go on."""
    trainer(text, tmp_path / "run").run(minutes=1e-9)
    (tmp_path / "run" / "resume.pt").unlink()
    for name in ("manifest.json", "config.json", "model.safetensors"):
        place = tmp_path / name.partition(".")[0]
        place.mkdir()
        (place / name).write_text("precious")
        with pytest.raises(CheckpointError, match=f"holds {name}, but no resume.pt of a run to go on with; choose another"):
            trainer(text, place)
        assert [file.read_text() for file in place.iterdir()] == ["precious"]
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="holds config.json, but no resume.pt"):
        trainer(text, tmp_path / "run")
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before


def test_another_tokenizer_does_not_continue_a_run(text: Path, tmp_path: Path) -> None:
    """Its ids would be other words to the same model; that of the run goes on with other text."""
    trainer(text, tmp_path / "run").run(minutes=1e-9)
    (tmp_path / "other.txt").write_text(text.read_text().upper())
    before = (tmp_path / "run" / "tokenizer.json").read_bytes()
    with pytest.raises(CheckpointError, match="holds a run with another tokenizer, as one of other text is; go on with --tok"):
        trainer(tmp_path / "other.txt", tmp_path / "run")
    assert (tmp_path / "run" / "tokenizer.json").read_bytes() == before
    same = tokenizer_for([tmp_path / "other.txt"], 300, tmp_path / "run" / "tokenizer.json")
    assert Trainer(CONFIG, SETTINGS, same, [tmp_path / "other.txt"], [text], tmp_path / "run").step == 1


def test_a_tokenizer_that_is_given(text: Path, tmp_path: Path) -> None:
    """Truncation and padding are switched off; what is no tokenizer is said in one line."""
    cutting = train_tokenizer(read_texts([text]), 300)
    cutting.enable_truncation(8)
    cutting.enable_padding(length=4096)
    cutting.save(str(tmp_path / "cutting.json"))
    whole, read = train_tokenizer(read_texts([text]), 300), tokenizer_for([text], 300, tmp_path / "cutting.json")
    assert encode(read, read_texts([text])).tolist() == encode(whole, read_texts([text])).tolist()
    (tmp_path / "none.json").write_text("{}")
    for name in ("none.json", "missing.json"):
        with pytest.raises(ConfigError, match=f"{name} is not a tokenizer.json: ") as caught:
            tokenizer_for([text], 300, tmp_path / name)
        assert "\n" not in str(caught.value)


def test_minutes_end_a_run_that_can_go_on(text: Path, tmp_path: Path) -> None:
    """What was learned is kept at the step where they ended."""
    begun = trainer(text, tmp_path / "run").run(minutes=1e-9)
    assert [point.step for point in begun.curve] == [1]
    assert trainer(text, tmp_path / "run").step == 1
    with pytest.raises(ConfigError, match="got 0 minutes, expected more than 0"):
        trainer(text, tmp_path / "run").run(minutes=0)


def test_a_run_until_a_step(text: Path, tmp_path: Path) -> None:
    """It is evaluated and kept there; learning rates are those of the whole run, and so are the weights at its end."""
    whole = trainer(text, tmp_path / "whole")
    whole.run()
    begun = trainer(text, tmp_path / "run")
    assert [point.step for point in begun.run(until_step=10).curve] == [10]
    begun.run(until_step=10)
    assert [point.step for point in trainer(text, tmp_path / "run").run(until_step=99).curve] == [10, 20, 40]
    for name, got in load_model(tmp_path / "run").model.state_dict().items():
        torch.testing.assert_close(got, load_model(tmp_path / "whole").model.state_dict()[name])


def test_a_kill_between_the_curve_and_the_state(text: Path, tmp_path: Path) -> None:
    """The point that was written before it comes again, and once."""
    trainer(text, tmp_path / "run").run(until_step=20)
    before = (tmp_path / "run" / "resume.pt").read_bytes()
    trainer(text, tmp_path / "run").run()
    (tmp_path / "run" / "resume.pt").write_bytes(before)
    assert [point.step for point in trainer(text, tmp_path / "run").run().curve] == [20, 40]


def test_text_shorter_than_a_context(text: Path, tmp_path: Path) -> None:
    """Both numbers are named."""
    short = tmp_path / "short.txt"
    short.write_text("the sea")
    with pytest.raises(ConfigError, match="the validation text has .* tokens, expected more than the context of 32"):
        Trainer(CONFIG, SETTINGS, tokenizer_for([text], 300, None), [text], [short], tmp_path / "run")


def test_a_text_without_a_character(text: Path, tmp_path: Path) -> None:
    """It has no tokens."""
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(ConfigError, match="the training text has 0 tokens, expected more than the context of 32"):
        Trainer(CONFIG, SETTINGS, tokenizer_for([text], 300, None), [tmp_path / "empty.txt"], [text], tmp_path / "run")


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        *((name, 0, f"{name} must be at least 1, got 0") for name in ("steps", "batch", "context", "eval_every")),
        *(
            ("learning_rate", value, "the learning rate is .*, expected more than 0")
            for value in (0.0, -1.0, math.nan, math.inf)
        ),
        *(("cooldown", value, f"the cooldown is {value}, expected a share") for value in (0.0, 1.5, math.nan)),
        ("seed", -1, "the seed is -1, expected 0 to"),
    ],
)
def test_settings_that_train_nothing(setting: str, value: float, message: str) -> None:
    """Before anything is read."""
    with pytest.raises(ConfigError, match=message):
        TrainSettings(**{"steps": 1, setting: value})


@pytest.mark.parametrize(
    ("dim", "heads", "message"),
    [(16, 0, "at least 1, got 0"), (16, -2, "at least 1, got -2"), (10, 4, "divide the width 10, got 4")],
)
def test_heads_that_do_not_divide_a_width(dim: int, heads: int, message: str) -> None:
    """A width of another size would be had without a word."""
    with pytest.raises(ConfigError, match=f"heads must (be )?{message}"):
        head_dim_of(dim, heads)


def test_a_loss_that_is_not_finite_ends_a_run(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was kept before stays as it is."""
    losses = iter([5.0] * 25 + [math.nan])
    monkeypatch.setattr(Trainer, "_train_step", lambda _: next(losses))
    with pytest.raises(CheckpointError, match="the loss is nan at step 26: .* with a lower learning rate"):
        trainer(text, tmp_path / "run").run()
    assert trainer(text, tmp_path / "run").step == 20


def test_no_text(tmp_path: Path) -> None:
    """A path that is not there, a directory without texts."""
    with pytest.raises(ConfigError, match=r"no text at .*: expected a text file, or a directory with \*\.txt files"):
        read_texts([tmp_path / "none.txt"])
    with pytest.raises(ConfigError, match="no text at"):
        read_texts([tmp_path])


def test_a_tokenizer_larger_than_the_vocabulary(text: Path, tmp_path: Path) -> None:
    """Ids without an embedding would follow."""
    path = tmp_path / "tokenizer.json"
    path.write_text(train_tokenizer(read_texts([text]), 300).to_str())
    with pytest.raises(ConfigError, match="the tokenizer has ids up to 299, the model's vocabulary 256 tokens"):
        tokenizer_for([text], 256, path)


def test_the_tokenizer_encodes_anything(text: Path) -> None:
    """Byte-level: text it never saw comes back as it was."""
    tokenizer = train_tokenizer(read_texts([text]), 300)
    strange = "\tÆsop’s 🦊\n日本\n"
    assert tokenizer.decode(encode(tokenizer, [strange]).tolist()) == strange


def test_bytes_are_tokens(text: Path) -> None:
    """Each is its own id, whatever it is part of, and two texts lie one after the other as they are."""
    tokenizer = tokenizer_for([text], 256, "bytes")
    strange = "\tÆsop’s 🦊\n日本\x00\x7f\n"
    ids = list(strange.encode())
    assert tokenizer.encode(strange, add_special_tokens=False).ids == ids
    assert tokenizer.decode(ids) == strange
    assert encode(tokenizer, [strange, "é"]).tolist() == [*ids, 0xC3, 0xA9]
    with pytest.raises(ConfigError, match="the tokenizer has ids up to 255, the model's vocabulary 200 tokens"):
        tokenizer_for([text], 200, "bytes")


def test_a_model_of_bytes_that_learns_when_to_fire(text: Path, tmp_path: Path) -> None:
    """Its middle fires at the wanted rate on text that it was not trained on, and the checkpoint says so."""
    config = msgspec.structs.replace(
        CONFIG, architecture="dynamic", hierarchy="1@1 1@~4 1@1", vocab_size=256, positions="rotary"
    )
    settings = msgspec.structs.replace(SETTINGS, steps=120, eval_every=60, cooldown=0.25)
    report = Trainer(config, settings, tokenizer_for([text], 256, "bytes"), [text], [text], tmp_path / "run").run()
    assert report.curve[-1].valid_loss_nats < report.curve[0].valid_loss_nats < math.log(256)
    assert report.curve[-1].valid_bits_per_byte == pytest.approx(report.curve[-1].valid_loss_nats / math.log(2))
    model = load_model(tmp_path / "run").model
    assert isinstance(model, Dynamic)
    ids = torch.from_numpy(encode(tokenizer_for([text], 256, "bytes"), read_texts([text]))[:3200].reshape(100, 32))
    assert 0.15 < model.boundaries(ids).float().mean() < 0.35


def test_a_cooldown() -> None:
    """The rate stays, and falls along a line: so far a run does not depend on how long it will be."""
    short, long = (TrainSettings(steps=steps, warmup_steps=10, learning_rate=1.0, cooldown=0.25) for steps in (100, 200))
    assert [learning_rate(step, short) for step in (0, 10, 75, 80, 90)] == pytest.approx([0.1, 1.0, 1.0, 0.8, 0.4])
    assert learning_rate(100, short) == pytest.approx(0.01)
    assert [learning_rate(step, short) for step in range(75)] == [learning_rate(step, long) for step in range(75)]


def test_the_schedule() -> None:
    """Up linearly, down to a tenth."""
    settings = TrainSettings(steps=100, warmup_steps=10, learning_rate=1.0)
    assert learning_rate(0, settings) == pytest.approx(0.1)
    assert learning_rate(10, settings) == pytest.approx(1.0)
    assert learning_rate(100, settings) == pytest.approx(0.1)


def test_arithmetic_per_token() -> None:
    """Counted by hand for two layers: projections, feed-forward, half a context of attention, the head."""
    model = random_model("2@1")  # width 24, 3 heads of 8, feed-forward 32, vocabulary 41
    layer = 4 * 24 * 24 + 2 * 24 * 32 + 24 * 96
    assert multiply_adds_per_token(model, 96) == 2 * layer + 24 * 41


def test_coarse_layers_cost_by_their_stride() -> None:
    """Eight layers at a quarter cost two, and their attention sees a quarter of the rows."""
    fine, coarse = (multiply_adds_per_token(random_model(h), 0) for h in ("2@1 0@4 2@1", "2@1 8@4 2@1"))
    layer = 4 * 24 * 24 + 2 * 24 * 32
    assert coarse - fine == 2 * layer
