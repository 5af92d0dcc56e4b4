"""Time per token against bits per byte: which bundles are the frontier, in a table and a picture."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from foveal import ConfigError
from foveal.bench import quality_and_time
from foveal.bench.decode import DecodeSamples
from foveal.bench.environment import read_environment
from foveal.bench.quality_and_time import candidates, read_text
from foveal.bench.result import BENCH_SCHEMA_VERSION, BenchResult, ModelResult, Samples, latency_of
from foveal.calibration.quality import Quality

MS = {("flat", "fp32"): 2.0, ("deep", "fp32"): 3.0, ("flat", "int8"): 1.0, ("deep", "int8"): 2.0}
BITS = {("flat", "fp32"): 2.2, ("deep", "fp32"): 2.0, ("flat", "int8"): 2.3, ("deep", "int8"): 2.1}
"""By bundle: of those that take 2 ms one is better, so that the other is beaten."""


def model_result(name: str, precision: str, ms: float) -> ModelResult:
    """Four steps, whose mean is `ms` and whose median half of it."""
    steps = [int(ms * share * 1e6) for share in (0.5, 0.5, 0.5, 2.5)]
    fired = [False, False, False, True]
    samples = DecodeSamples(ttft_ns=[1], itl_ns=steps, tokens=[0, 1, 2, 3], fired=fired, round_tokens_per_s=[1000 / ms])
    return ModelResult(
        name=name,
        runtime="foveal",
        hierarchy="1@1 1@4 1@1" if name == "deep" else "1@1",
        precision=precision,
        layers=1,
        parameters=1,
        layer_equivalents=1.0,
        threads=1,
        latency=latency_of(samples, 1),
        fires={},
        copied_bytes_per_step=None,
        host_us_per_step=None,
        stages=[],
        memory=None,
        roofline=None,
        samples=Samples(ttft_ns=[], itl_ns=steps, token=[], stage_ns={}),
    )


def bench_result(status: str = "complete") -> BenchResult:
    """All bundles in one run."""
    document = {
        "schema_version": BENCH_SCHEMA_VERSION,
        "command": "foveal bench all",
        "environment": read_environment(),
        "prompt_tokens": 1,
        "new_tokens": 2,
        "rounds": 1,
        "seed": 0,
        "batch": 1,
        "status": status,
        "problems": [] if status == "complete" else ["rounds differ"],
        "models": [model_result(*key, ms) for key, ms in MS.items()],
    }
    return msgspec.convert(msgspec.to_builtins(document), BenchResult)


def quality(name: str, precision: str, bits: float | None) -> Quality:
    """Bytes: a token is one, and 0.01 nats are 0.0144 bits."""
    return Quality(
        bundle=f"some/where/{name}",
        precision=precision,
        target="cpu",
        window=4,
        tokens=9,
        nats_per_token=(bits or 1) * 0.6931471805599453,
        nats_half_width=0.01,
        bits_per_byte=bits,
    )


def evaluations(directory: Path, more: float = 0.0) -> list[Path]:
    """A file for each bundle, as `foveal eval --json` prints it."""
    files = []
    for (name, precision), bits in BITS.items():
        files.append(directory / f"{more}-{name}-{precision}.json")
        files[-1].write_bytes(msgspec.json.encode({"quality": quality(name, precision, bits + more), "probes": []}))
    return files


def test_the_frontier_is_what_no_other_beats(tmp_path: Path) -> None:
    """Slower and better is on it, slower and worse, or as slow and worse, is not."""
    found = candidates(bench_result(), [read_text("valid", evaluations(tmp_path))])
    assert [one.ms for one in found] == list(MS.values())
    assert {(one.measured.name, one.measured.precision) for one in found if one.on_frontier} == set(MS) - {("flat", "fp32")}


def test_a_table_and_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Printed, or put into a document; drawn twice it is the same file; what was doubtful is said."""
    (tmp_path / "bench.json").write_bytes(msgspec.json.encode(bench_result("noisy")))
    valid, test = (list(map(str, evaluations(tmp_path, more))) for more in (0.0, 0.5))
    given = ["x", str(tmp_path / "bench.json"), "--text", "valid", *valid, "--text", "test", *test]
    for name in ("a.svg", "b.svg"):
        monkeypatch.setattr(sys, "argv", [*given, "--picture", str(tmp_path / name)])
        quality_and_time.main()
    table = capsys.readouterr().out
    assert "| deep | `1@1 1@4 1@1` | int8 | - | 2.1000 ± 0.0144 | 2.6000 ± 0.0144 | 2.000 | 1.000 | - | 500 | yes |" in table
    assert "(noisy: rounds differ)" in table
    picture = (tmp_path / "a.svg").read_text()
    assert picture == (tmp_path / "b.svg").read_text()
    for label in ("flat, fp32", "deep, int8", "beaten by none", "time per token, ms", "valid, bits per byte"):
        assert f">{label}<" in picture
    page = tmp_path / "page.md"
    for mark, more in (("quality-and-time", []), ("far", ["--mark", "far"])):
        page.write_text(f"# Page\n\n<!-- figures: {mark} -->\nold\n<!-- end: {mark} -->\n")
        monkeypatch.setattr(sys, "argv", [*given, "--document", str(page), *more])
        quality_and_time.main()
        assert "| flat | `1@1` |" in page.read_text()
        assert "old" not in page.read_text()
    assert capsys.readouterr().out == ""


def test_what_does_not_fit_together(tmp_path: Path) -> None:
    """A bundle without an evaluation, two evaluations of one, no bits per byte, or another file."""
    files = evaluations(tmp_path)
    with pytest.raises(ConfigError, match="deep in int8 was timed, but not evaluated on test"):
        candidates(bench_result(), [read_text("valid", files), read_text("test", files[:-1])])
    with pytest.raises(ConfigError, match="two evaluations of flat in fp32 on the text valid; expected one for each"):
        read_text("valid", [*files, files[0]])
    with pytest.raises(ConfigError, match="no evaluations on the text valid; name files"):
        read_text("valid", [])
    files[0].write_bytes(msgspec.json.encode({"quality": quality("flat", "fp32", None)}))
    with pytest.raises(ConfigError, match="has no bits per byte: some/where/flat has no tokenizer"):
        read_text("valid", files)
    files[0].write_text("{}")
    with pytest.raises(ConfigError, match="is not what `foveal eval BUNDLE --json` prints: Object missing required field"):
        read_text("valid", files)
