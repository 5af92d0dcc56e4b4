"""The command line, as a user types it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from specimens import GOLDEN, Zoo
from typer.testing import CliRunner

from foveal import cli
from foveal.cli import inspect as inspect_module
from foveal.models.checkpoint import save_checkpoint


def test_every_verb_explains_itself() -> None:
    """`--help` works, and one flag has one spelling."""
    verbs = [
        "convert",
        "calibrate",
        "build",
        "check",
        "eval",
        "export-triton",
        "verify",
        "compare",
        "bisect",
        "inspect",
        "report",
        "forecast",
        "generate",
        "score",
        "serve",
        "bench",
        "plan",
        "train",
        "doctor",
        "demo",
        "push",
    ]
    for verb in verbs:
        result = CliRunner().invoke(cli.app, [verb, "--help"])
        assert result.exit_code == 0, result.output
    commands = cli.app.registered_commands
    names = {command.name or command.callback.__name__ for command in commands if command.callback}
    assert names | {group.name for group in cli.app.registered_groups} == set(verbs)


def test_convert_verify_generate(foveal, tmp_path: Path) -> None:
    """From a lucidrains checkpoint to text, and the exit code of a bundle that is another model."""
    checkpoint, bundle = GOLDEN / "s4_naive_attn", tmp_path / "b"
    code, out, _ = foveal("convert", checkpoint, bundle, "--tokenizer", "bytes")
    assert code == 0
    assert 'lucidrains hourglass "2@1 3@4 2@1", stages 1.pre, 4, 1.post' in out
    code, out, _ = foveal("verify", bundle, "--checkpoint", checkpoint)
    assert code == 0
    assert "the cpu system, random chunks" in out
    code, out, _ = foveal("verify", bundle, "--checkpoint", checkpoint, "--json")
    assert (code, json.loads(out)["checks"][0]["where"]) == (0, None)
    code, out, _ = foveal("generate", bundle, "It was", "--max-new-tokens", "8", "--seed", "1", "--threads", "1")
    assert code == 0
    assert out.startswith("It was")
    code, _, err = foveal("verify", bundle, "--checkpoint", GOLDEN / "s3_linear_noattn")
    assert code == 2
    assert "is another model than" in err


def test_convert_to_a_dialect(foveal, tmp_path: Path) -> None:
    """The name is passed on, and one that is none lists those that are."""
    code, _, err = foveal("convert", GOLDEN / "s4_naive_attn", tmp_path / "b", "--dialect", "latin")
    assert code == 1
    assert 'unknown dialect "latin"; expected one of modern, classic' in err.replace("\n", " ")


def test_verification_that_fails_has_its_own_exit_code(foveal, zoo: Zoo, tmp_path: Path) -> None:
    """And says where."""
    model = zoo["vanilla"].model
    save_checkpoint(model, tmp_path / "c", torch.float16)  # fp16 weights are not the weights that were converted
    code, out, err = foveal("verify", zoo["vanilla"].bundle.path, "--checkpoint", tmp_path / "c")
    assert code == 2
    assert 'the weights of the ONNX graph of stage "1"' in err.replace("\n", " ")
    assert "equal" in out  # the split into stages still is


def test_inspect_draws_the_timeline(foveal, zoo: Zoo) -> None:
    """Stages, strides, caches, and who fires when."""
    path = zoo["nested"].bundle.path
    code, out, _ = foveal("inspect", path, "--tokens", "17")
    assert code == 0
    lines = {line.split()[0]: line.split()[1] for line in out.splitlines() if line.endswith(("#", "."))}
    assert lines["1.pre"] == "#" * 17
    assert lines["8"] == "#.......#.......#"
    code, out, _ = foveal("inspect", path, "--json", "--tokens", "17")
    description = json.loads(out)
    assert (code, description["timeline"]["8"]) == (0, [0, 8, 16])
    assert description["stages"][2]["spec"]["inputs"][0]["count"] == 4
    assert callable(inspect_module)


def test_inspect_says_what_a_token_reads_and_takes(foveal, zoo: Zoo) -> None:
    """Bytes by stage; with --profile also the time, by stage and operator; as text and as JSON."""
    path = zoo["nested"].bundle.path
    code, out, _ = foveal("inspect", path, "--profile")
    assert code == 0
    assert re.search(r"read per token, MB +fires +weights +cache at 48 +at 96", out)
    assert re.search(r"Each GB/s of memory bandwidth allows at most [\d.,e+]+ tokens/s behind 48 tokens", out)
    assert re.search(r"cpu, \d+ tokens one by one on \d+ threads?, per token", out)
    assert re.search(r"^ +MatMul +\d+ +[\d.]+ +[\d.]+% *$", out, re.MULTILINE)
    code, out, _ = foveal("inspect", path, "--profile", "--target", "cpu", "--json")
    description = json.loads(out)
    stages = [stage["spec"]["name"] for stage in description["stages"]]
    assert (code, [stage["name"] for stage in description["reads_per_token"]["cpu"]]) == (0, stages)
    assert [stage["name"] for stage in description["profile"]["stages"]] == stages
    assert "profile" not in json.loads(foveal("inspect", path, "--json")[1])
    code, _, err = foveal("inspect", path, "--profile", "--target", "tensorrt")
    assert (code, "has no engines for tensorrt; add them: foveal build" in err) == (1, True)


def test_bench_prints_and_saves(foveal, zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few steps are an incomplete benchmark: exit code 5, and the file is written all the same."""
    monkeypatch.setattr("foveal.bench.bandwidth.MemoryReader.gb_s", lambda _reader: 20.0)
    arguments = ("--prompt-tokens", "8", "--new-tokens", "8", "--rounds", "1", "--threads", "1")
    code, out, _err = foveal("bench", zoo["vanilla"].bundle.path, *arguments, "--save", tmp_path / "r.json")
    assert code == 5
    assert "too few for p99" in out.replace("\n", " ")
    assert json.loads((tmp_path / "r.json").read_text())["models"][0]["samples"]["token"] == list(range(8, 16))
    code, out, _ = foveal("bench", "--hierarchy", "1@1", "--dim", "16", "--heads", "2", "--ff-dim", "16", "--json", *arguments)
    assert (code, json.loads(out)["models"][0]["hierarchy"]) == (5, "1@1")


def test_train_and_resume(foveal, tmp_path: Path) -> None:
    """The same command goes on where it stopped."""
    text = tmp_path / "text.txt"
    text.write_text("the sea and the ship and the storm. " * 200)
    sizes = ("--dim", "16", "--heads", "2", "--vocab-size", "270", "--hierarchy", "1@1 1@2 1@1", "--context", "16")
    command = (
        "train",
        tmp_path / "run",
        "--text",
        text,
        "--valid",
        text,
        *sizes,
        "--steps",
        "4",
        "--eval-every",
        "2",
        "--threads",
        "1",
    )
    code, out, _ = foveal(*command)
    assert code == 0
    assert "bits per byte" in out
    assert foveal(*command)[0] == 0
    code, _, err = foveal(*command, "--positions", "sideways")
    assert code == 1
    assert 'positions is "sideways", expected one of learned, rotary' in err.replace("\n", " ")


def test_doctor(foveal) -> None:
    """What is there, and the line that installs what is not."""
    code, out, _ = foveal("doctor", "--json")
    findings = {finding["package"]: finding for finding in json.loads(out)["findings"]}
    assert code == 0
    assert findings["onnxruntime"]["version"]
    assert findings["onnxruntime"]["mend"] is None
    assert {"fastapi", "ray", "llguidance"} <= findings.keys()
    missing = [finding for finding in findings.values() if finding["version"] is None]
    assert all(finding["mend"].startswith(("pip install '.[", "pip install ./native")) for finding in missing)
    assert foveal("doctor")[0] == 0


def test_an_error_is_one_line_and_no_traceback(tmp_path: Path) -> None:
    """Through the real entry point."""
    command = [sys.executable, "-m", "foveal.cli", "inspect", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"foveal: {tmp_path} is not a bundle")
    assert "Traceback" not in done.stderr


def test_bench_refuses_two_bundles_of_one_name_before_models_are_made(foveal, zoo: Zoo) -> None:
    """Nor is a number of threads looked for."""
    path = zoo["nested"].bundle.path
    for words in (("bench",), ("bench", "sweep", "--context", "8")):
        code, out, err = foveal(*words, path, path)
        assert (code, out) == (1, "")
        assert f"2 bundles are called {path.name}, and figures go by name; rename all but one" in " ".join(err.split())
