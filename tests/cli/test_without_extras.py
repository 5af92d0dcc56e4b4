"""A machine that only runs bundles has the `cpu` extra: what it needs works there, and the rest says what to install."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from specimens import Zoo

ABSENT = ("torch", "onnx", "onnx_ir", "onnxscript", "scipy", "matplotlib", "polygraphy")
BARE = f"import sys\nfor name in {ABSENT}: sys.modules[name] = None\n"
EXPORT = "needs it: pip install '.[export]' in foveal's folder, or with its wheel in the place of the dot"


def bare(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python where only what `cpu` brings can be imported."""
    command = [sys.executable, "-c", BARE + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_public_names_are_there_or_say_what_brings_them() -> None:
    """One by one; nothing but BackendUnavailable."""
    done = bare(
        "import foveal\n"
        "for name in foveal.__all__:\n"
        "    try: getattr(foveal, name)\n"
        "    except foveal.BackendUnavailable as error: print(name, error)\n"
    )
    assert (done.returncode, done.stderr) == (0, "")
    missing = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert set(missing) == {"EngineOptions", "build", "convert", "plan_precision"} & set(missing) | {"build", "convert"}
    assert all(sentence.endswith(EXPORT) for sentence in missing.values())


@pytest.fixture
def given(zoo: Zoo, tmp_path: Path) -> dict[str, Path]:
    """A bundle, and ids to measure it on."""
    np.save(tmp_path / "t.npy", np.arange(90) % 41)
    return {"bundle": zoo["vanilla"].bundle.path, "text": tmp_path / "t.npy", "out": tmp_path / "out"}


RUN = "from foveal.cli import main\nmain()"
RUNS = (
    ("inspect", "{bundle}", "--profile"),
    ("check", "{bundle}"),
    ("generate", "{bundle}", "--ids", "1 2", "--max-new-tokens", "2", "--threads", "1"),
    (
        "generate",
        "{bundle}",
        "--ids",
        "1 2",
        "--max-new-tokens",
        "2",
        "--n",
        "2",
        "--json",
        "--logprobs",
        "1",
        "--threads",
        "1",
    ),
    ("score", "{bundle}", "--ids", "1 2 3", "--threads", "1"),
    ("eval", "{bundle}", "--text", "{text}", "--threads", "1", "--against", "{bundle}"),
    ("doctor",),
)
REST = (
    ("convert", "{bundle}", "{out}"),
    ("build", "{bundle}", "{out}", "--precision", "w8"),
    ("calibrate", "{bundle}", "--text", "{text}", "--threads", "1"),
    ("calibrate", "{bundle}", "--text", "{text}", "--threads", "1", "--budget", "1%"),
    ("verify", "{bundle}", "--checkpoint", "{out}"),
    ("compare", "{bundle}"),
    ("bisect", "{bundle}", "--precision", "w8", "--text", "{text}"),
    ("train", "{out}", "--text", "{text}", "--valid", "{text}"),
    ("bench", "--hierarchy", "1@1"),
)


@pytest.mark.parametrize("command", RUNS, ids=" ".join)
def test_what_runs_bundles_runs(command: tuple[str, ...], given: dict[str, Path]) -> None:
    """Without onnx."""
    done = bare(RUN, *(part.format(**given) for part in command))
    assert done.returncode == 0, done.stderr


def test_benchmarks_run(given: dict[str, Path]) -> None:
    """Exit code 5: the run is too short for some figures."""
    sizes = ("--prompt-tokens", "4", "--new-tokens", "4", "--rounds", "1", "--threads", "1")
    assert bare(RUN, "bench", given["bundle"], *sizes).returncode == 5


@pytest.mark.parametrize("command", REST, ids=" ".join)
def test_what_makes_bundles_says_what_to_install(command: tuple[str, ...], given: dict[str, Path]) -> None:
    """In one line, and nothing is left behind."""
    done = bare(RUN, *(part.format(**given) for part in command))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("foveal: ")
    assert done.stderr.splitlines()[-1].endswith(EXPORT)
    assert "Traceback" not in done.stderr
    assert not given["out"].exists()
