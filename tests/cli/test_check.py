"""`foveal check`, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from engine_bundles import RTX, STAGES, engine, machine, write_bundle

from foveal.runtime.preflight import checking as preflight
from foveal.runtime.preflight.machine import Machine


def on(monkeypatch: pytest.MonkeyPatch, found: Machine) -> None:
    """Make this machine another; its TensorRT-RTX has no objections."""
    monkeypatch.setattr(preflight, "read_machine", lambda: found)
    monkeypatch.setattr(preflight, "library_of", lambda _target: None)
    monkeypatch.setattr(preflight, "ask_library", lambda *_: None)


def test_a_match_is_one_sentence(foveal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 0."""
    on(monkeypatch, machine())
    code, out, _ = foveal("check", write_bundle(tmp_path / "b"))
    assert (code, out) == (0, f"tensorrt-rtx: match: TensorRT-RTX {RTX} runs it on NVIDIA GeForce RTX 4090 (8.9)\n")


def test_stages_that_agree_are_one_sentence(foveal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 3."""
    on(monkeypatch, machine(gpus=()))
    code, out, _ = foveal("check", write_bundle(tmp_path / "b"), "--target", "tensorrt-rtx")
    text = "this machine has no NVIDIA GPU that CUDA sees, so tensorrt-rtx engines can be built but not run here"
    assert (code, out) == (3, f"tensorrt-rtx: refuse: {text}; copy the bundle to one that has\n")


def test_stages_that_differ_have_a_line_each(foveal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `open_bundle` would only have raised."""
    on(monkeypatch, machine())
    bundle = write_bundle(tmp_path / "b")
    path = engine(bundle, "4")
    whole = path.read_bytes()
    path.write_bytes(whole[:50])
    code, out, _ = foveal("check", bundle)
    fits = f"match: TensorRT-RTX {RTX} runs it on NVIDIA GeForce RTX 4090 (8.9)"
    assert code == 3
    assert out.splitlines() == [
        f"tensorrt-rtx, stage 1.pre: {fits}",
        "tensorrt-rtx, stage 4: refuse: engines/tensorrt-rtx/4.engine is truncated: it has 50 bytes, "
        f"expected {len(whole)}; copy the bundle again",
        f"tensorrt-rtx, stage 1.post: {fits}",
    ]


def test_json(foveal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For every target an answer with its reason, the machine, and the answers of the stages."""
    on(monkeypatch, machine(libraries={}))
    code, out, _ = foveal("check", write_bundle(tmp_path / "b"), "--json")
    (target,) = json.loads(out)
    assert code == 3
    assert target["machine"]["gpus"][0]["compute_capability"] == "8.9"
    assert (target["target"], target["answer"], target["reason"]) == ("tensorrt-rtx", "refuse", "library missing")
    assert list(target["stages"]) == list(STAGES)


def test_a_target_without_engines(foveal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to run is said."""
    on(monkeypatch, machine())
    bundle = write_bundle(tmp_path / "b", "cpu")
    code, out, _ = foveal("check", bundle, "--target", "tensorrt")
    text = f"there are no engines for tensorrt, only for: cpu; run `foveal build {bundle} --target tensorrt`"
    assert (code, out) == (3, f"tensorrt: rebuild: {text}\n")


def test_what_is_no_bundle(foveal, tmp_path: Path) -> None:
    """Is an error of the user's."""
    code, _, err = foveal("check", tmp_path)
    assert code == 1
    assert "is not a bundle" in err


def test_this_machine(foveal, tmp_path: Path) -> None:
    """Engines that are graphs run here."""
    code, out, _ = foveal("check", write_bundle(tmp_path / "b", "cpu"))
    assert code == 0
    assert out.startswith("cpu: match: onnxruntime ")
