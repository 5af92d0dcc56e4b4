"""Looking for what differs on the command line: compare and bisect."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from broken_bundles import with_wrong_weight
from precisions import Precise, PrecisionZoo, needs_opset_24

from foveal.precision import Plan

Run = Callable[..., tuple[int, str, str]]


def flat(text: str) -> str:
    """Without the line ends of a terminal."""
    return " ".join(text.split())


@pytest.fixture
def specimen(precise: PrecisionZoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Precise:
    """A bundle to look at, from an empty directory."""
    monkeypatch.chdir(tmp_path)
    return precise["resampled"]


@needs_opset_24
def test_compare_shows_every_stage_and_the_system(foveal: Run, specimen: Precise) -> None:
    """By default the engines for the CPU with what the graphs say."""
    code, out, _ = foveal("compare", specimen.full.path)
    assert code == 0
    assert flat(out).startswith(f"{specimen.full.path} (fp32, cpu) against {specimen.full.path} (fp32, portable)")
    assert re.search(r"^ 2 +token by token +31 +\d\.\de-\d\d +\d\.\de-\d\d +none *$", out, re.MULTILINE)
    assert re.search(r"^ the system +random chunks +61 ", out, re.MULTILINE)
    assert "Tolerance: 1e-04" in out


def test_compare_names_the_stage_and_the_layer(foveal: Run, specimen: Precise, tmp_path: Path) -> None:
    """Exit code 2; the message says how to look inside, which names the layer."""
    full, product = specimen.full, "2/stack/layers/0/feed_forward/up"
    engine = with_wrong_weight(full, full.manifest.engines["cpu"]["2"], tmp_path / "engine", product)
    code, out, err = foveal("compare", full.path, "--other", engine.path)
    assert code == 2
    assert "differs from" in flat(err)
    assert ': stage "2", token 0, row 0, token by token; largest error' in flat(err)
    assert "look inside with --stage 2 --cuts" in flat(err)
    assert "token 0, row 0" in out
    graph = with_wrong_weight(full, "stages/2.onnx", tmp_path / "graph", product)
    code, out, err = foveal("compare", full.path, "--other", graph.path, "--stage", "2", "--cuts", "--json")
    found = json.loads(out)
    assert code == 2
    assert (found["inside"], found["tokens"], found["system"]) == ("2", 61, [])
    failed = [row["name"] for row in found["stages"] if row["where"]]
    assert failed[0] == "2/stack/layers/0/feed_forward"
    assert ": 2/stack/layers/0/feed_forward, token 0, row 0, token by token; largest error" in flat(err)


def test_compare_says_that_other_precisions_do_not_fail(foveal: Run, specimen: Precise) -> None:
    """Unless a tolerance is given."""
    small = specimen.build(Plan(default="w8", cache="fp32"))
    command = ("compare", specimen.full.path, "--other", small.path, "--text", specimen.text, "--tokens", "24")
    code, out, _ = foveal(*command)
    assert code == 0
    assert "No tolerance, as other precisions differ on purpose: nothing passes or fails without --tolerance" in flat(out)
    code, _, err = foveal(*command, "--tolerance", "1e-5")
    assert code == 2
    assert "expected at most 1e-05" in flat(err)


def test_compare_s_errors(foveal: Run, specimen: Precise) -> None:
    """One line each, exit code 1."""
    for arguments, reason in (
        (("--stage", "2"), "--cuts looks inside one stage, and --stage says which; give both or neither"),
        (("--cuts",), "--cuts looks inside one stage, and --stage says which; give both or neither"),
        (("--targets", "cpu"), "got one bundle and 1 target(s), expected two systems"),
        (("--targets", "cpu,tensorrt"), "has no engines for tensorrt, only for: cpu; add them: foveal build"),
        (("--targets", "portable,cpu", "--provider", "cpu"), 'provider "cpu" is for target cuda'),
    ):
        code, out, err = foveal("compare", specimen.full.path, *arguments)
        assert (code, out) == (1, "")
        assert reason in flat(err)


def test_bisect_shows_what_it_tried(foveal: Run, specimen: Precise, tmp_path: Path) -> None:
    """Trials and their losses, the first to break the budget, and its stage's products alone; nothing is left behind."""
    command = ("bisect", specimen.full.path, "--precision", "w8", "--text", specimen.text, "--limit", "2", "--threads", "1")
    code, out, _ = foveal(*command, "--measure", "kl", "--budget", "0")
    assert code == 0
    assert re.search(r"^ everything +\d+ +\d\.\d\de-\d\d nats +breaks it *$", out, re.MULTILINE)
    product = "1.pre/stack/layers/0/attention/qkv"
    assert f"The first to break the budget of 0.00e+00 nats is {product}, of stage 1.pre; alone it loses" in flat(out)
    assert "Each product of stage 1.pre alone in w8:" in out
    code, out, _ = foveal(*command, "--measure", "kl", "--budget", "0", "--json")
    found = json.loads(out)
    assert (code, found["stage"], found["product"], found["measure"]) == (0, "1.pre", product, "kl")
    assert list(tmp_path.iterdir()) == []


def test_bisect_says_that_nothing_breaks_it(foveal: Run, specimen: Precise) -> None:
    """With what everything loses."""
    command = ("bisect", specimen.full.path, "--precision", "w8", "--text", specimen.text, "--limit", "2", "--threads", "1")
    code, out, _ = foveal(*command, "--budget", "5%")
    assert code == 0
    assert re.search(r"Nothing breaks the budget of \+5\.000%: everything in w8 loses [+-]0\.\d{3}%", flat(out))
    code, _, err = foveal(*command, "--budget", "much")
    assert code == 1
    assert 'the budget is "much", expected a share such as 1% or 0.01' in flat(err)
