"""`make gpu-check` itself: run where there is no GPU, on the graphs of `cuda` and the CPU, and with nothing to run on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from gpu_page import page_of, sentence_of
from gpu_report import Check, Figure, GpuCheck, status_of
from gpu_subjects import SUBJECTS, Subject
from precisions import needs_opset_24
from store import Store

from foveal.bench.environment import read_environment
from foveal.runtime.preflight.gpus import Gpu
from foveal.runtime.preflight.machine import Machine

ROOT = Path(__file__).parent.parent
MACHINE = Machine(system="Linux-aarch64", gpus=(Gpu("Orin (nvgpu)", "8.7"),), driver="540.4.0", cuda="12.6")


def gpu_check(report: Path, store: Store, *arguments: str) -> tuple[int, str, GpuCheck]:
    """Run the command on a machine that shows no GPU: exit code, what it printed, and the JSON."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "tests/gpu",
        "-ra",
        "-p",
        "no:cacheprovider",
        "--report",
        str(report),
        *arguments,
    ]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "FOVEAL_EXAMPLES": "8", "FOVEAL_TESTS_STORE": str(store.directory)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    return done.returncode, done.stdout, msgspec.json.decode((report / "gpu-check.json").read_bytes(), type=GpuCheck)


def test_without_a_gpu_it_says_so_and_what_is_skipped(tmp_path: Path, store: Store) -> None:
    """In one sentence; every check of every target is skipped with the reason, and nothing has failed."""
    code, printed, result = gpu_check(tmp_path, store)
    assert (code, result.status) == (0, "nothing checked")
    assert "Nothing was checked: this machine has no NVIDIA GPU that CUDA sees." in printed
    assert result.subjects == {str(subject): "this machine has no NVIDIA GPU that CUDA sees" for subject in SUBJECTS}
    assert {check.outcome for check in result.checks} == {"skipped"}
    assert all(check.reason == result.subjects[check.subject] for check in result.checks)
    page = (tmp_path / "gpu-check.md").read_text()
    assert "| tensorrt-rtx | " in page
    assert "not run: this machine has no NVIDIA GPU that CUDA sees |" in page
    assert all(check.name in page for check in result.checks)


@needs_opset_24
def test_every_check_runs_on_what_needs_no_gpu(tmp_path: Path, store: Store) -> None:
    """One golden checkpoint: all that is asked of engines on a GPU, asked of the same graphs on the CPU."""
    code, printed, result = gpu_check(tmp_path, store, "--on", "cuda:cpu", "-k", "s3_linear")
    assert code == 0, printed
    assert (result.status, result.subjects) == ("passed", {"cuda:cpu": None})
    assert {(check.model, check.precision, check.outcome) for check in result.checks} == {
        ("s3_linear_noattn", "fp32", "passed")
    }
    found = {(check.name, figure.of, figure.name): figure for check in result.checks for figure in check.figures}
    exact = [figure for figure in found.values() if figure.name.startswith("largest")]
    assert len(exact) >= 10
    assert all(0 <= figure.value < 1e-5 for figure in exact)  # type: ignore[operator]
    state = found["engines load and say whether they work in place", "", "state"]
    assert (state.value, state.unit) == ("in place", "")
    assert found["every firing set is recorded when a session opens", "", "recorded"].value == 0
    page = (tmp_path / "gpu-check.md").read_text()
    assert page == page_of(result)
    assert "checks, all passed |\n" in page
    assert "#### cuda:cpu: greedy text is the cpus" in page


def result_of(*checks: Check) -> GpuCheck:
    """A run on an Orin."""
    return GpuCheck(
        command="pytest tests/gpu",
        environment=read_environment(),
        machine=MACHINE,
        subjects={"tensorrt": None, "cuda:cuda": "this onnxruntime has no CUDAExecutionProvider"},
        tolerances={"fp32": 1e-4},
        status=status_of(checks, is_finished=True),
        checks=checks,
    )


def check(outcome: str, **changes: object) -> Check:
    """Of the TensorRT engines of a model."""
    usual = {"name": "a check", "subject": "tensorrt", "model": "zoo nested", "precision": "fp16", "seconds": 1.0}
    return Check(**{**usual, "outcome": outcome, **changes})  # type: ignore[arg-type]


def test_what_failed_comes_first() -> None:
    """With the model, the precision and the reason; cells can't break the table."""
    result = result_of(check("passed"), check("failed", reason="got | expected"), check("skipped", reason="no engines"))
    page = page_of(result)
    assert result.status == "failed"
    assert sentence_of(result) == "Checked tensorrt on Orin (nvgpu) (8.7): 1 passed, 1 failed, 1 skipped."
    assert "| tensorrt |  | Orin (nvgpu) (8.7) | run on " in page
    assert "2 checks, **1 failed** |" in page
    assert "| tensorrt | a check | zoo nested | fp16 | got / expected |" in page
    assert page.index("#### What failed") < page.index("#### What was skipped")
    assert "| cuda:cuda |  |  | not run: this onnxruntime has no CUDAExecutionProvider |" in page


def test_figures_have_units_and_rows() -> None:
    """A row for each thing measured, a column for each figure; zero is a figure."""
    figures = (
        Figure(name="build", value=12.34, unit="s", of="1.pre"),
        Figure(name="engine", value=0.0, unit="MB", of="1.pre"),
        Figure(name="build", value=1234.5, unit="s", of="all"),
    )
    result = result_of(check("passed", figures=figures))
    assert (
        "| model | precision | of | build, s | engine, MB |\n"
        "| --- | --- | --- | --- | --- |\n"
        "| zoo nested | fp16 | 1.pre | 12.3 | 0 |\n"
        "| zoo nested | fp16 | all | 1,234 |  |\n"
    ) in page_of(result)
    assert msgspec.json.decode(msgspec.json.encode(result), type=GpuCheck) == result


def test_a_run_that_was_cut_off_says_so() -> None:
    """The JSON is written anew after every check: a library that crashes takes nothing with it but its own."""
    assert status_of((check("passed"),), is_finished=False) == "unfinished"


@pytest.mark.parametrize("text", ["gpu", "tensorrt:cuda", "cuda:tensorrt-lean"])
def test_what_can_not_be_checked(text: str) -> None:
    """With all that can."""
    with pytest.raises(ValueError, match=rf"{text} can't be checked, expected one of tensorrt, .*, cuda:cpu"):
        Subject.parse(text)
