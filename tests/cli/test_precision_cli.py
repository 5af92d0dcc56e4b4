"""Precision on the command line: calibrate, build, eval, and convert straight to a precision."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from broken_bundles import with_altered_tensor
from precisions import CACHE, Precise, PrecisionZoo, bytes_model, needs_int8_caches, write_text
from specimens import Zoo, random_ids, random_model

from foveal import open_bundle
from foveal.cli.values import parse_share
from foveal.errors import ConfigError
from foveal.export.cpu.products import KERNELS
from foveal.models.checkpoint import save_checkpoint
from foveal.precision import Plan, read_plan, write_plan

Run = Callable[..., tuple[int, str, str]]
QKV = "1/stack/layers/0/attention/qkv"


def flat(text: str) -> str:
    """Without the line ends of a terminal."""
    return " ".join(text.split())


def rows(text: str) -> list[list[str]]:
    """The words of every line."""
    return [line.split() for line in text.splitlines()]


@pytest.fixture
def specimen(precise: PrecisionZoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Precise:
    """A bundle to work on, in the current directory, which holds nothing else."""
    monkeypatch.chdir(tmp_path)
    return precise["vanilla"]


def test_build_says_what_every_product_became(foveal: Run, specimen: Precise, tmp_path: Path) -> None:
    """A line for each stage, precision and kernel; int8 where nothing else is asked for."""
    code, out, err = foveal("build", specimen.full.path, "small", "--calibration", specimen.text, "--cache", CACHE)
    assert code == 0
    assert re.search(r"^small: int8, 0\.\d MB, engines for cpu$", out, re.MULTILINE)
    table = rows(out)
    kernel = open_bundle("small").sidecar("cpu", "1").products[0].kernel
    caches = open_bundle("small").sidecar("cpu", "1").cache_dtype
    assert ["stage", "asked", "obtained", "kernel", "caches", "products"] in table
    assert ["1", "int8", "int8", kernel, caches, "9"] in table
    assert "build: " in err
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_tokens_to_calibrate_on_are_as_many_in_all_verbs(foveal: Run, specimen: Precise, tmp_path: Path) -> None:
    """`--max-tokens` of convert, build and calibrate: the same words, the same default, and the same text is read."""
    save_checkpoint(specimen.model, tmp_path / "checkpoint")
    to_convert = ("checkpoint", "a", "--tokenizer", "bytes", "--precision", "int8", "--calibration", specimen.text)
    lines: dict[str, tuple[str | Path, ...]] = {
        "convert": to_convert,
        "build": (specimen.full.path, "b", "--calibration", specimen.text),
        "calibrate": (specimen.full.path, "--text", specimen.text),
    }
    for windows, (verb, line) in enumerate(lines.items(), start=5):
        code, _, err = foveal(verb, *line, "--max-tokens", windows * 96 + 1)
        assert code == 0, err
        assert re.search(rf"^{verb}: calibrating on {windows * 96} tokens, 0 of {windows}, \d+ s$", err, re.MULTILINE)
        words = flat(foveal(verb, "--help")[1].replace("│", ""))
        assert "Calibrate on at most so many tokens, spread over the text; on all if not given." in words


def test_a_plan_that_takes_nothing_from_text(foveal: Run, specimen: Precise) -> None:
    """A planner may choose one: text that is passed along is not read, which is said."""
    write_plan(Path("plan.json"), Plan(stages={"1": "fp32"}))
    code, _, err = foveal(
        "build", specimen.full.path, "small", "--plan", "plan.json", "--calibration", "text that is not there"
    )
    assert code == 0
    assert "plan.json takes nothing from text for target cpu: --calibration is not read" in flat(err)
    assert "calibrating" not in err


def test_build_leaves_out_what_it_is_told_to(foveal: Run, specimen: Precise) -> None:
    """The head, the tables and the caches are choices."""
    choices = ("--no-head", "--embedding", "--cache", "fp32")
    code, out, _ = foveal("build", specimen.full.path, "small", "--precision", "w4", *choices)
    assert code == 0
    assert [line[:3] for line in rows(out) if line and line[0] == "1"] == [["1", "w4", "w4"], ["1", "fp32", "fp32"]]
    assert open_bundle("small").manifest.plan == Plan(default="w4", head=False, embedding=True, cache="fp32")


def test_build_gives_reasons(foveal: Run, precise: PrecisionZoo, tmp_path: Path) -> None:
    """Of every product that is not what was asked."""
    code, out, _ = foveal("build", precise["resampled"].full.path, tmp_path / "b", "--precision", "w4")
    assert code == 0
    assert "1.pre/stack/layers/0/attention/out: fp32, not w4: 20 rows are no multiple of 16, the smallest block" in out


def test_build_from_a_plan(foveal: Run, specimen: Precise, tmp_path: Path) -> None:
    """What the plan says of the head, tables and caches holds unless the command says otherwise."""
    plan = Plan(default="w8", products={QKV: "fp32"}, head=False, embedding=True, cache="fp32")
    write_plan(tmp_path / "plan.json", plan)
    assert foveal("build", specimen.full.path, "small", "--plan", "plan.json")[0] == 0
    assert open_bundle("small").manifest.plan == plan
    assert foveal("build", specimen.full.path, "small", "--plan", "plan.json", "--head", "--no-embedding")[0] == 0
    assert open_bundle("small").manifest.plan == Plan(default="w8", products={QKV: "fp32"}, cache="fp32")


def test_build_s_errors(foveal: Run, specimen: Precise, tmp_path: Path) -> None:
    """One line each, exit code 1, and nothing is written."""
    full = specimen.full.path
    for arguments, reason in (
        (("--precision", "int8"), "foveal: int8 needs text to calibrate on, got none; give files that are like what the model"),
        (("--precision", "int3"), 'foveal: unknown precision "int3"; expected one of fp32, fp16, int8, w8, w4'),
        (("--precision", "w8", "--cache", "fp8"), 'foveal: unknown cache "fp8"; expected one of auto, fp32'),
        (("--target", "tensorrt-rtx"), "to add engines for tensorrt-rtx to"),
        (("--plan", "p.json"), "foveal: no plan at p.json: No such file or directory; write one with `foveal calibrate BUNDLE"),
        (("--plan", "p.json", "--precision", "w8"), "foveal: got --precision w8 and --plan p.json, expected one of them"),
    ):
        code, out, err = foveal("build", full, "small", *arguments)
        assert (code, out) == (1, "")
        assert reason in flat(err)
        assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_an_engine_that_is_not_what_was_asked_has_its_own_exit_code(
    foveal: Run, specimen: Precise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4, and no bundle."""
    monkeypatch.setitem(KERNELS, "w8", ("SomethingBetter",))
    code, _, err = foveal("build", specimen.full.path, "small", "--precision", "w8")
    assert code == 4
    assert f"does not run these products as asked: {QKV} (asked w8, kernel" in flat(err)
    assert list(tmp_path.iterdir()) == []


def test_calibrate_shows_what_the_text_covers(foveal: Run, specimen: Precise, tmp_path: Path) -> None:
    """Rows by stage and phase. The result stays in the bundle's reports; no plan is written without a budget."""
    shutil.copytree(specimen.full.path, "full")
    shutil.rmtree("full/reports")
    code, out, _ = foveal("calibrate", "full", "--text", specimen.text, "--threads", "1")
    tokens = specimen.text.stat().st_size
    assert code == 0
    assert f"{tokens:,} tokens, 9 matrix products, percentile" in out
    assert ["1", f"{tokens:,}", "1", f"{tokens:,}"] in rows(out)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    (report,) = Path("full/reports").iterdir()
    assert report.name.startswith("calibration-")


def test_calibrate_as_json(foveal: Run, specimen: Precise) -> None:
    """Coverage, and the threshold of every product."""
    command = ("calibrate", specimen.full.path, "--text", specimen.text, "--threads", "1", "--json")
    code, out, _ = foveal(*command)
    found = json.loads(out)
    assert code == 0
    assert found["thresholds"] == {name: specimen.calibration.threshold(name) for name in specimen.calibration.products}
    assert found["coverage"] == {"1": {"0": specimen.text.stat().st_size}}
    code, out, _ = foveal(*command, "--method", "minmax", "--max-tokens", "600")
    wide = json.loads(out)
    assert (code, wide["tokens"]) == (0, 576)  # whole windows of 96
    assert wide["key"] != found["key"]


@needs_int8_caches
def test_calibrate_with_a_budget_writes_a_plan_that_build_reads(foveal: Run, specimen: Precise, tmp_path: Path) -> None:
    """Where it is asked to; and a picture only if it is asked for."""
    plan, picture = tmp_path / "plans" / "p.json", tmp_path / "pareto.svg"
    command = ("calibrate", specimen.full.path, "--text", specimen.text, "--budget", "5%", "--threads", "1", "--plan", plan)
    code, out, _ = foveal(*command)
    assert code == 0
    words = flat(out)
    assert re.search(r"unit.* fp32 int8 w8 w4 plan", words)
    assert re.search(r"all, measured [\d.]+ [+-]0\.000%", words)
    assert f"foveal build {specimen.full.path} OUT --plan {plan} --calibration ..." in words
    assert "per token on 1 threads" in words
    assert [path.name for path in tmp_path.iterdir()] == ["plans"]
    for name, precision in read_plan(plan).products.items():
        assert any(line[:1] == [name] and line[-1] == precision for line in rows(out))
    code, out, _ = foveal(*command, "--json", "--no-head", "--plot", picture)
    found = json.loads(out)
    assert (code, found["budget"], found["plan"]["head"]) == (0, 0.05, False)
    assert found["chosen"]["loss"] <= 0.05
    assert picture.read_text().startswith("<?xml")
    assert foveal("build", specimen.full.path, "small", "--plan", plan, "--calibration", specimen.text)[0] == 0


def test_calibrate_s_errors(foveal: Run, specimen: Precise, tmp_path: Path) -> None:
    """One line each, exit code 1, and no plan."""
    full, few = specimen.full.path, write_text(tmp_path / "few.txt", words=10)
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    for arguments, reason in (
        (("--text", "none.txt"), "no text at none.txt: expected a text file, or a directory with *.txt files"),
        (("--text", empty), "the text is empty"),
        (("--text", few), 'stage "1" saw'),
        (("--text", few, "--budget", "1%"), "the text has"),
        (("--text", specimen.text, "--budget", "little"), 'the budget is "little", expected a share such as 1% or 0.01'),
        (("--text", specimen.text, "--budget", "-1%"), "the budget is -0.01, expected a share of at least 0"),
        (("--text", specimen.text, "--method", "guess"), 'method is "guess", expected one of minmax, percentile, entropy'),
        (("--text", specimen.text, "--percentile", "30"), "percentile is 30.0, expected more than 50 and at most 100"),
    ):
        code, out, err = foveal("calibrate", full, *arguments, "--threads", "1")
        assert (code, out) == (1, ""), err
        assert reason in flat(err)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.txt", "few.txt"]


@pytest.mark.parametrize(("text", "share"), [("1%", 0.01), ("0.5%", 0.005), ("0.01", 0.01), ("0", 0.0), ("1e-3", 0.001)])
def test_shares(text: str, share: float) -> None:
    """In per cent or as they are."""
    assert parse_share(text) == pytest.approx(share)
    with pytest.raises(ConfigError, match='the budget is "1 per cent", expected a share such as 1% or 0.01'):
        parse_share("1 per cent")


def test_eval_shows_quality(foveal: Run, specimen: Precise, tmp_path: Path) -> None:
    """Alone, against the fp32 bundle, and as JSON; nothing is written."""
    small = specimen.build(Plan(default="w8", cache="fp32"))
    command = ("eval", small.path, "--text", specimen.text, "--limit", "3", "--window", "64", "--threads", "1")
    code, out, _ = foveal(*command)
    assert code == 0
    tokens = 2 * 63 + specimen.text.stat().st_size % 64 - 1  # of the first, the middle and the last window, which is short
    assert re.search(
        rf"\(w8\): \d+\.\d{{4}} bits per byte, \d+\.\d{{4}} ± \d+\.\d{{4}} nats per token, {tokens} tokens", flat(out)
    )
    assert "against" not in out.splitlines()[0]
    code, out, _ = foveal(*command, "--against", specimen.full.path)
    assert code == 0
    change, share = r"[+-]\d+\.\d{3}% ± \d+\.\d{3}%", r"\d+\.\d\d% ± \d+\.\d\d%"
    figures = rf"{change} bits per byte, KL \d\.\d\de-\d\d ± \d\.\de-\d\d nats, same likeliest token {share}"
    assert re.search(f"against {re.escape(str(specimen.full.path))} .*: {figures}", flat(out))
    assert "occurrences per million" in out
    code, out, _ = foveal(*command, "--against", specimen.full.path, "--json")
    found = json.loads(out)
    assert (code, found["quality"]["tokens"], found["quality"]["precision"], found["probes"]) == (0, tokens, "w8", [])
    assert abs(found["quality"]["bits_per_byte_change"]) < 0.1
    assert 0 < found["quality"]["kl_nats"] < 0.5
    assert list(tmp_path.iterdir()) == []


def test_eval_probes_and_draws_if_asked_to(foveal: Run, specimen: Precise, tmp_path: Path) -> None:
    """The shuffled-context probe, of both bundles."""
    small = specimen.build(Plan(default="w8", cache="fp32"))
    command = ("eval", small.path, "--text", specimen.text, "--limit", "4", "--window", "64", "--threads", "1")
    code, out, _ = foveal(*command, "--probe", "--against", specimen.full.path)
    assert code == 0
    assert flat(out).count("the first half of 4 windows of 64 tokens shuffled") == 2
    code, out, _ = foveal(*command, "--plot", tmp_path / "probe.svg", "--json")
    probes = json.loads(out)["probes"]
    assert (code, [probe["precision"] for probe in probes]) == (0, ["w8"])
    assert [path.name for path in tmp_path.iterdir()] == ["probe.svg"]


def test_eval_s_errors(foveal: Run, specimen: Precise, tmp_path: Path) -> None:
    """One line each, exit code 1."""
    for arguments, reason in (
        (("--text", "none.txt"), "no text at none.txt"),
        (("--text", specimen.text, "--window", "97"), "the window is 97 tokens, expected 2 to 96, the model's context"),
        (("--text", specimen.text, "--window", "1"), "the window is 1 tokens, expected 2 to 96"),
        (("--text", specimen.text, "--against", tmp_path), "is not a bundle"),
        (("--text", specimen.text, "--target", "tpu"), 'unknown target "tpu"'),
    ):
        code, out, err = foveal("eval", specimen.full.path, *arguments, "--threads", "1")
        assert (code, out) == (1, ""), err
        assert reason in flat(err)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_eval_of_logits_that_are_no_numbers_fails(foveal: Run, value: float, specimen: Precise, tmp_path: Path) -> None:
    """One line, exit code 1, nothing on stdout: not even JSON with a nan in it. So does the probe."""
    engine = specimen.full.manifest.engines["cpu"]["1"]

    def ruin(weight: np.ndarray) -> None:
        weight[...] = value

    def last_norm(graph: ir.Model) -> str:
        return next(name for name in graph.graph.initializers if name.endswith("exit.norm.bias"))

    broken = with_altered_tensor(specimen.full, engine, tmp_path / "broken", last_norm, ruin)
    common = ("--text", specimen.text, "--limit", "2", "--threads", "1")
    for arguments in (
        (broken.path,),
        (broken.path, "--json"),
        (specimen.full.path, "--against", broken.path),
        (broken.path, "--probe"),
    ):
        code, out, err = foveal("eval", *arguments, *common)
        assert (code, out) == (1, ""), err
        assert f"{broken.path} gives logits that are infinite or NaN on this text, expected numbers" in flat(err)


def test_convert_straight_to_a_precision(foveal: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text is asked for before the export; then one command does it all."""
    monkeypatch.chdir(tmp_path)
    text = write_text(tmp_path / "text.txt")
    save_checkpoint(bytes_model("1@1"), tmp_path / "checkpoint", torch.float32)
    command = ("convert", "checkpoint", "small", "--tokenizer", "bytes", "--precision", "int8")
    code, out, err = foveal(*command)
    assert (code, out) == (1, "")
    assert "int8 needs text to calibrate on, got none" in flat(err)
    assert not Path("small").exists()
    if CACHE == "fp32":  # this onnxruntime keeps no int8 caches
        write_plan(tmp_path / "plan.json", Plan(default="int8", cache="fp32"))
        command = ("convert", "checkpoint", "small", "--tokenizer", "bytes", "--plan", "plan.json")
    code, out, _ = foveal(*command, "--calibration", text)
    assert code == 0
    assert 'small: foveal vanilla "1@1", stages 1' in out
    assert "engines for cpu in int8" in flat(out)
    assert ["1", "int8", "int8"] in [line[:3] for line in rows(out)]
    assert open_bundle("small").manifest.precision == "int8"
    assert {path.name for path in tmp_path.iterdir()} <= {"checkpoint", "small", "text.txt", "plan.json"}


def test_calibration_by_files_of_ids(foveal: Run, zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model without tokenizer gets to int8 by ids alone, from a bundle or a checkpoint, and is measured on ids."""
    monkeypatch.chdir(tmp_path)
    full, ids, small = zoo["vanilla"].bundle, random_ids(1, 600)[0], random_model("1@1")
    np.save("ids.npy", ids)
    ids.astype("<u2").tofile("ids.bin")
    save_checkpoint(small, tmp_path / "checkpoint", torch.float32)
    plan = ("--precision", "int8")
    if CACHE == "fp32":  # this onnxruntime keeps no int8 caches
        write_plan(tmp_path / "plan.json", Plan(default="int8", cache="fp32"))
        plan = ("--plan", "plan.json")
    assert foveal("build", full.path, "arrays", *plan, "--calibration", "ids.npy")[0] == 0
    assert foveal("build", full.path, "numbers", *plan, "--calibration", "ids.bin")[0] == 0
    assert foveal("convert", "checkpoint", "whole", *plan, "--calibration", "ids.npy")[0] == 0
    for name in ("arrays", "numbers", "whole"):
        made = open_bundle(name)
        assert made.manifest.precision == "int8"
        assert {product.obtained for product in made.sidecar("cpu", "1").products} == {"int8"}
        against = () if name == "whole" else ("--against", full.path)
        code, out, _ = foveal("eval", name, "--text", "ids.npy", *against, "--threads", "1", "--json")
        quality = json.loads(out)["quality"]
        assert (code, quality["tokens"] > 500, quality["bits_per_byte"]) == (0, True, None)
        assert name == "whole" or 0 < quality["kl_nats"] < 0.5
    one, other = (open_bundle(name).file("engines/cpu/1.onnx.data").read_bytes() for name in ("arrays", "numbers"))
    assert one == other  # the same ids, the same ranges


def test_files_of_ids_that_calibrate_nothing(foveal: Run, zoo: Zoo, tmp_path: Path) -> None:
    """Ids that the model has not, none at all, floats, and text where there is no tokenizer: one line with the file's name."""
    full = zoo["vanilla"].bundle.path
    for name, ids, reason in (
        ("high.npy", np.array([1, 41]), "high.npy hold 41, which is outside the vocabulary; expected 0 <= id < 41"),
        ("low.npy", np.array([-1, 1]), "low.npy hold -1, which is outside the vocabulary"),
        ("none.npy", np.array([], np.int64), "the text is empty"),
        ("floats.npy", np.array([1.0, 2.0]), "floats.npy have dtype float64, expected integers"),
        ("rows.npy", np.ones((2, 9), np.int64), "rows.npy have shape [2, 9], expected one sequence"),
    ):
        np.save(tmp_path / name, ids)
        code, out, err = foveal("build", full, tmp_path / "out", "--precision", "int8", "--calibration", tmp_path / name)
        assert (code, out) == (1, ""), err
        assert reason in flat(err)
    (tmp_path / "t.txt").write_text("the sea")
    code, _, err = foveal("build", full, tmp_path / "out", "--precision", "int8", "--calibration", tmp_path / "t.txt")
    assert (code, "has no tokenizer, so it can't read text" in flat(err)) == (1, True), err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "option", "place", "message"),
    [
        ("eval", "--plot", "x.txt", 'the picture is "x.txt", expected a name that ends in .svg, .png'),
        ("eval", "--plot", "a.txt/x.svg", "something is there already; choose another path"),
        ("calibrate", "--plot", "noise", 'the picture is "noise", expected'),
        ("calibrate", "--plan", "folder", "it is a directory, expected a file"),
        ("bench", "--save", "folder", "it is a directory, expected a file"),
        ("bench", "--save", "a.txt/r.json", "something is there already; choose another path"),
        ("compare", "--save-inputs", "a.txt", "something is there already; choose another path"),
    ],
)
def test_where_a_result_can_not_go_is_said_before_the_work(
    foveal: Run, specimen: Precise, command: str, option: str, place: str, message: str
) -> None:
    """In one line, with nothing measured first."""
    Path("folder").mkdir()
    Path("a.txt").write_text("a file")
    more = {"eval": ["--text", specimen.text], "calibrate": ["--text", specimen.text, "--budget", "1%"]}.get(command, [])
    code, out, err = foveal(command, specimen.full.path, *more, option, place)
    assert (code, out) == (1, "")
    assert message in err
    assert len(err.splitlines()) == 1
