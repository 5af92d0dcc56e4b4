"""TensorRT engines on the command line: build them, and look into them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from precisions import CACHE, PrecisionZoo

from foveal import open_bundle
from foveal.contract import Limits
from foveal.precision import Plan, write_plan

pytest.importorskip("tensorrt_rtx")
Run = Callable[..., tuple[int, str, str]]
RTX = ("--target", "tensorrt-rtx")


def flat(text: str) -> str:
    """Without the line ends of a terminal."""
    return " ".join(text.split())


@pytest.fixture
def here(precise: PrecisionZoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle to work on, in the current directory, which holds nothing else, and an engine cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FOVEAL_CACHE", str(tmp_path.parent / f"{tmp_path.name}-cache"))
    return Path(shutil.copytree(precise["vanilla"].build(Plan(default="int8", cache=CACHE)).path, "b"))


def test_engines_are_added_and_shown(foveal: Run, here: Path) -> None:
    """A line for each stage: how long, how large, what a decode step runs, and what became of the products."""
    code, out, err = foveal("build", here, *RTX)
    assert code == 0
    assert re.search(r"^b: int8, \d\.\d MB, engines for tensorrt-rtx$", out, re.MULTILINE)
    assert re.search(r"^ stage +build, s +engine, MB +memory, MB +kernels of a decode step +products *$", out, re.MULTILINE)
    assert re.search(r"^ 1 +\d+\.\d +\d\.\d +\d+ +\d+ Float, \d+ Int8 +9 int8 *$", out, re.MULTILINE)
    assert "build: " in err
    assert list(open_bundle(here).manifest.engines) == ["cpu", "tensorrt-rtx"]


def test_options_arrive(foveal: Run, here: Path) -> None:
    """In the sidecar, as they were given."""
    sizes = ("--max-batch", "2", "--capacity", "64", "--max-prefill", "16")
    code, _, _ = foveal("build", here, *RTX, *sizes, "--compute-capability", "8.6", "--compute-capability", "8.9")
    sidecar = open_bundle(here).sidecar("tensorrt-rtx", "1")
    assert code == 0
    assert sidecar.limits == Limits(batch=2, capacity=64, prefill=16)
    assert sidecar.build is not None
    assert sidecar.build.compute_capabilities == ("8.6", "8.9")


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        ((*RTX, "--precision", "w4"), 1, "b is int8, asked for is w4, which is another bundle; say where"),
        ((*RTX, "--no-head"), 1, "--no-head makes another bundle; say where to write it: foveal build BUNDLE OUT"),
        (
            (*RTX, "--compute-capability", "8.7"),
            1,
            'does not build for compute capability "8.7"; expected 7.5, 8.0, 8.6',
        ),
        ((*RTX, "--capacity", "1000"), 1, "capacity 1000 is more than the model has positions: 96"),
        ((*RTX, "--timing-cache", "times"), 1, "it has no timing cache; leave it out"),
        ((*RTX, "--error-on-miss"), 4, 'the engine cache has no engine for stage "1"'),
        ((*RTX, "--strip-weights"), 4, "or without --strip-weights"),
        (("--max-batch", "2"), 1, 'engine options are for GPUs, got them for target "cpu"'),
    ],
)
def test_what_can_not_be(options: tuple[str, ...], code: int, reason: str, foveal: Run, here: Path) -> None:
    """One sentence and the right exit code; the bundle is as it was."""
    before = (here / "manifest.json").read_bytes()
    got, _, err = foveal("build", here, *options)
    assert got == code
    assert reason in flat(err)
    assert (here / "manifest.json").read_bytes() == before


def test_a_plan_and_a_target(foveal: Run, here: Path, precise: PrecisionZoo) -> None:
    """Both in one call, from an fp32 bundle."""
    write_plan(Path("plan.json"), Plan(default="w8", head=False))
    code, out, _ = foveal("build", precise["vanilla"].full.path, "c", "--plan", "plan.json", *RTX)
    assert code == 0
    assert "1 fp32" in out
    assert "8 w8" in out
    assert list(open_bundle("c").manifest.engines) == ["tensorrt-rtx"]


def test_layers_are_shown(foveal: Run, here: Path) -> None:
    """Every kernel of both profiles, with what it reads and writes; only of bundles that have some."""
    code, _, err = foveal("inspect", here, "--layers")
    assert code == 1
    assert "b has no TensorRT engines; add them: foveal build b --target tensorrt-rtx" in flat(err)
    foveal("build", here, *RTX)
    code, out, _ = foveal("inspect", here, "--layers")
    assert code == 0
    assert re.search(r"tensorrt-rtx, stage 1: network of .*4 KV_CACHE_UPDATE", flat(out))
    for profile in ("decode", "prefill"):
        found = re.findall(
            rf"^{profile} +gemm +1 Int8 +1 Int8, 2 Float +1 Float +chosen later +(1/\S+)/MatMul ", out, re.MULTILINE
        )
        assert set(found) == {product.product for product in open_bundle(here).sidecar("tensorrt-rtx", "1").products}
    without = foveal("inspect", here)[1]
    assert "9 int8" in without
    assert "chosen later" not in without
