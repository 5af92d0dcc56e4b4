"""Every setting of a generation as an option, and what `--json`, `--n` and `foveal score` print."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from specimens import GOLDEN, Goldens, Zoo
from store import Store
from typer.testing import CliRunner

import foveal as library
from foveal import SamplingParams, load
from foveal.bundle import Bundle
from foveal.cli.generation_options import GenerationOptions, takes_generation_options
from foveal.errors import FovealError
from foveal.runtime.generation.settings import NAMES


@pytest.fixture(scope="module")
def bundle(goldens: Goldens) -> Bundle:
    """A golden checkpoint of 256 ids, read as bytes; 128 positions."""
    return goldens["s4_naive_attn"]


def settings_of(line: str) -> dict[str, Any]:
    """What a verb that generates makes of options."""
    app, found = typer.Typer(), list[GenerationOptions]()

    @app.command()
    @takes_generation_options
    def verb(options: GenerationOptions, other: int = 3) -> None:
        assert other == 3
        found.append(options)

    done = CliRunner().invoke(app, shlex.split(line))
    assert done.exit_code == 0, done.output
    return found[0].settings()


def test_they_are_all_there() -> None:
    """Each setting but those that are Python's own, with the same defaults, for any verb."""
    made = settings_of("")
    assert NAMES - set(made) == {"constraint", "logits_hook"}
    assert set(made) <= NAMES
    params = SamplingParams()
    for name in set(made) & set(params.__dataclass_fields__):
        assert made[name] == getattr(params, name), name


def test_what_they_become(tmp_path: Path) -> None:
    """By the names and in the types of Python."""
    (tmp_path / "s.json").write_text('{"type": "null"}', encoding="utf-8")
    (tmp_path / "g.lark").write_text('start: "a"', encoding="utf-8")
    made = settings_of(
        "--frequency-penalty 0.5 --presence-penalty -0.5 --logit-bias 17=-5 --logit-bias 3=-inf --min-tokens 2 --end 9 --end x "
        "--max-seconds 1.5 --logprobs 2 --prompt-logprobs 0 --end-rule piece --stop a --stop b --seed 7"
    )
    expected = {
        "frequency_penalty": 0.5,
        "presence_penalty": -0.5,
        "logit_bias": {17: -5.0, 3: -float("inf")},
        "min_tokens": 2,
        "end": [9, "x"],
        "max_seconds": 1.5,
        "logprobs": 2,
        "prompt_logprobs": 0,
        "end_rules": ("piece",),
        "stop": ("a", "b"),
        "seed": 7,
    }
    assert {name: made[name] for name in expected} == expected
    assert settings_of(f"--json-schema {tmp_path / 's.json'}")["json_schema"] == '{"type": "null"}'
    assert settings_of('--json-schema \'{"type": "null"}\'')["json_schema"] == '{"type": "null"}'
    assert settings_of("--json-schema true")["json_schema"] == "true"
    assert settings_of(f"--grammar {tmp_path / 'g.lark'}")["grammar"] == 'start: "a"'
    assert settings_of("--regex a+")["regex"] == "a+"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("--logit-bias 17", '--logit-bias is "17", expected ID=BIAS, such as 17=-5, or 17=-inf'),
        ("--logit-bias a=1", '--logit-bias is "a=1", expected ID=BIAS'),
        ("--logit-bias 17=-inf --logit-bias 17=3", "--logit-bias names 17 twice, expected one bias for each token"),
        ("--json-schema=", "the JSON schema is no JSON"),
        ("--logit-bias 1=nan", "logit_bias of 1 is nan"),
        ("--frequency-penalty nan", "frequency_penalty is nan"),
        ("--min-tokens 200", "min_tokens is 200, expected at least 0 and at most max_new_tokens, 128"),
        ("--max-seconds 0", "max_seconds is 0.0, expected more than 0"),
        ("--logprobs -1", "logprobs is -1, expected at least 0"),
        ("--json-schema none.json", "--json-schema none.json can't be read: No such file"),
        ("--grammar none.lark", "--grammar none.lark can't be read: No such file"),
        ("--json-schema '{'", "the JSON schema is no JSON"),
        ("--regex (", "regex"),
        ("--regex a --json-schema true", "got json_schema and regex, expected at most one of them"),
    ],
)
def test_what_they_refuse(line: str, reason: str) -> None:
    """Before anything is loaded, in one line."""
    with pytest.raises(FovealError, match=reason.replace("(", r"\(").replace("{", r"\{")) as caught:
        settings_of(line)
    assert "\n" not in str(caught.value)


SHORT = ("--threads", "1", "--seed", "5", "--max-new-tokens", "6")


def test_json_of_one_text(foveal, bundle: Bundle) -> None:
    """What Python gives, by its names."""
    code, out, err = foveal("generate", bundle.path, "It was", *SHORT, "--json", "--logprobs", "2", "--prompt-logprobs", "1")
    assert (code, err) == (0, "")
    found = json.loads(out)
    model = load(bundle, threads=1)
    text = model.generate("It was", seed=5, max_new_tokens=6, logprobs=2, prompt_logprobs=1)
    assert found["prompt"] == "It was"
    assert found["prompt_ids"] == list(b"It was")
    assert [one["token"] for one in found["prompt_logprobs"]] == list(b"t was")
    (choice,) = found["choices"]
    assert choice["text"] == "".join(text)
    assert (choice["index"], choice["ids"], choice["finish_reason"]) == (0, text.ids, "length")
    assert [one["logprob"] for one in choice["logprobs"]] == pytest.approx([one.logprob for one in text.logprobs], abs=1e-6)
    assert {len(one["top"]) for one in choice["logprobs"]} == {2}


def test_several_texts(foveal, bundle: Bundle) -> None:
    """Each under a line of its own; those of seeds that grow by 1; as ids too, and as JSON."""
    model = load(bundle, threads=1)
    texts = [model.generate("It was", seed=5 + k, max_new_tokens=6) for k in range(3)]
    written = ["".join(text) for text in texts]
    code, out, err = foveal("generate", bundle.path, "It was", *SHORT, "--n", "3")
    assert (code, out) == (0, "".join(f"=== {k + 1} of 3 ===\nIt was{text}\n" for k, text in enumerate(written)))
    assert err.splitlines() == [f"{k + 1} of 3: ended (length): 6 new tokens, as --max-new-tokens says" for k in range(3)]
    code, out, _ = foveal("generate", bundle.path, "It was", *SHORT, "--n", "3", "--output", "ids", "--json")
    found = json.loads(out)
    assert [choice["ids"] for choice in found["choices"]] == [text.ids for text in texts]
    assert {choice["text"] for choice in found["choices"]} == {None}
    assert (found["prompt"], found["prompt_logprobs"], found["choices"][0]["logprobs"]) == (None, None, None)
    code, out, err = foveal("generate", bundle.path, "It was", *SHORT, "--n", "0")
    assert (code, out, err) == (1, "", "foveal: n is 0, expected 1 to 10,000: texts of each prompt\n")


def test_every_reason_has_its_words(foveal, bundle: Bundle, tmp_path: Path) -> None:
    """On stderr."""
    for options, reason in (
        (("--regex", "[a-z]{2}"), "ended (complete): the constraint allows nothing more"),
        (("--max-seconds", "1e-9"), "ended (deadline): the 1e-09 seconds of --max-seconds are over"),
        (("--stop", "e", "--stop", "a", "--regex", "[ea]+"), "ended (stop): a text of --stop came"),
        (("--end", "97", "--logit-bias", "97=1000"), "ended (end token): a token of --end came"),
    ):
        code, _, err = foveal("generate", bundle.path, "It was", *SHORT, *options)
        assert (code, err) == (0, f"{reason}\n"), options


def test_ends_of_the_models_own(foveal, store: Store) -> None:
    """Named by inspect, and by why it ended; a name that there is not comes with those that there are."""

    family = GOLDEN.parent / "golden_families" / "notagen_tiny"
    made = store.once("cli/notagen", lambda directory: library.convert(family, directory / "b"))
    path = made / "b"
    code, out, _ = foveal("inspect", path)
    assert code == 0
    period = load(path, threads=1).manifest.model.end_rules[0].period
    assert f"end rule patch: a patch of {period} is complete or a patch contains 2\n" in out
    assert "end rule piece: a patch begins with 1, 2\n" in out
    prompt = " ".join(["1"] * period)
    code, out, err = foveal(
        "generate", path, "--ids", prompt, "--end-rule", "patch", "--threads", "1", "--logit-bias", "2=-inf"
    )
    assert (code, len(out.split())) == (0, 2 * period)
    assert err == f"ended (end rule): patch: a patch of {period} is complete or a patch contains 2\n"
    code, _, err = foveal("generate", path, "--ids", prompt, "--end-rule", "song", "--threads", "1")
    assert (code, err.count("\n")) == (1, 1)
    assert "the model has no end rule 'song'; it has patch: " in err


def test_score(foveal, bundle: Bundle, tmp_path: Path) -> None:
    """As a table and as JSON; of text, of ids and of files of both."""
    model = load(bundle, threads=1)
    expected = library.score(model, "It was", 2)
    code, out, _ = foveal("score", bundle.path, "It was", "--top", "2", "--threads", "1")
    assert code == 0
    rows = out.splitlines()
    assert rows[0].split() == ["token", "id", "logprob", "rank", "likeliest"]
    assert rows[2].split()[:4] == ["'t'", "116", f"{expected.logprobs[0].logprob:.4f}", str(expected.logprobs[0].rank)]
    assert rows[-1] == (
        f"{expected.bits_per_byte:.4f} bits per byte, perplexity {expected.perplexity:.4g}, "
        f"log probability {expected.logprob:.4f} of 5 tokens"
    )
    (tmp_path / "t.txt").write_text("It was", encoding="utf-8")
    (tmp_path / "t.ids").write_text("73 116 32 119 97 115", encoding="utf-8")
    for given in (
        ["It was"],
        ["--file", tmp_path / "t.txt"],
        ["--ids", "73 116 32 119 97 115"],
        ["--file", tmp_path / "t.ids"],
    ):
        code, out, _ = foveal("score", bundle.path, *given, "--top", "2", "--threads", "1", "--json")
        found = json.loads(out)
        assert (code, found["ids"], found["stride"]) == (0, list(b"It was"), None)
        assert found["logprob"] == pytest.approx(expected.logprob)
        assert len(found["logprobs"][0]["top"]) == 2
    code, out, _ = foveal("score", bundle.path, "x" * 200, "--stride", "100", "--threads", "1")
    assert out.splitlines()[-1].endswith("of 199 tokens, in windows of 128 that begin 100 apart")


def test_what_score_refuses(foveal, bundle: Bundle, zoo: Zoo, tmp_path: Path) -> None:
    """In one line."""
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    for given, reason in (
        ([], "got 0 of a text, --ids and --file, expected one of them: what to score"),
        (["x", "--ids", "1"], "got 2 of a text, --ids and --file"),
        (["x"], "the text has 1 tokens, expected at least two"),
        (["xyz", "--top", "-1"], "top is -1, expected at least 0"),
        (["xyz", "--stride", "0"], "stride is 0, expected 1 to 127"),
        (["xyz", "--stride", "9"], "--stride does nothing here: it takes a text longer than the context of 128 tokens"),
        (["--file", tmp_path / "none.txt"], "can't be read: No such file"),
        (["--file", tmp_path / "latin.txt"], "expected UTF-8 text, or ids in *.npy, *.bin, *.ids"),
        (["--ids", "1 x"], '--ids: "x" is no id'),
    ):
        code, out, err = foveal("score", bundle.path, *given, "--threads", "1")
        assert (code, out, err.count("\n")) == (1, "", 1), given
        assert reason in err


def test_an_end_of_more_digits_than_an_id_has_is_a_token() -> None:
    """As any text that is no id: the tokenizer says that it has none of this name."""
    assert settings_of(f"--end {'1' * 5000} --end 17")["end"] == ["1" * 5000, 17]
