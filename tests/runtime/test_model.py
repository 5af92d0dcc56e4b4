"""Loading a bundle and writing text with it."""

from __future__ import annotations

import builtins
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest
from specimens import GOLDEN, Goldens, Zoo

from foveal import (
    BackendUnavailable,
    Bundle,
    CapacityError,
    ConfigError,
    EngineMismatchError,
    InputError,
    SamplingParams,
    evaluate,
    load,
    probe,
)
from foveal.bundle import open_bundle
from foveal.runtime import threads
from foveal.runtime.engines import onnxruntime as backend
from foveal.runtime.generation.generate import generate_ids
from foveal.runtime.model import Model


@pytest.fixture(scope="module")
def bytes_model(goldens: Goldens) -> Model:
    """A golden checkpoint of 256 ids, read as bytes."""
    return load(goldens["s4_naive_attn"], threads=1)


def test_greedy_text_is_the_stored_one(bytes_model: Model) -> None:
    """The golden checkpoint's own greedy continuation."""
    stored = np.load(GOLDEN / "s4_naive_attn" / "io.npz")
    prompt = stored["ids"][0, : int(stored["greedy_prompt_len"])].tolist()
    expected = (
        stored["greedy_ids"].reshape(-1)[len(prompt) :] if stored["greedy_ids"].size > len(prompt) else stored["greedy_ids"]
    )
    ids = list(generate_ids(bytes_model.session(), prompt, SamplingParams(temperature=0, max_new_tokens=len(expected))))
    assert ids == expected.tolist()


def test_the_same_seed_writes_the_same_text(bytes_model: Model) -> None:
    """And another seed another one."""
    texts = ["".join(bytes_model.generate("It was", max_new_tokens=40, seed=seed)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_text_ends_before_a_stop_string(bytes_model: Model) -> None:
    """What comes before it is unchanged."""
    whole = "".join(bytes_model.generate("It was", max_new_tokens=60, seed=4))
    stop = whole[20:22]
    assert "".join(bytes_model.generate("It was", max_new_tokens=60, seed=4, stop=[stop])) == whole[: whole.find(stop)]


def test_generation_ends_when_the_context_is_full(bytes_model: Model) -> None:
    """128 positions: 120 of the prompt, 8 more, and the token after the last one."""
    ids = generate_ids(bytes_model.session(), [1] * 120, SamplingParams(max_new_tokens=500, seed=0))
    assert len(list(ids)) == 9


def test_prompts_that_can_not_be(bytes_model: Model) -> None:
    """Refused at the call, before the first piece is asked for."""
    with pytest.raises(InputError, match="the prompt is empty"):
        bytes_model.generate("")
    with pytest.raises(CapacityError, match="the prompt has 200 tokens, the session room for 128 of 128"):
        bytes_model.generate("x" * 200)
    with pytest.raises(InputError, match="top_p is 2"):
        bytes_model.generate("x", top_p=2)
    with pytest.raises(InputError, match="got a session of batch 2"):
        generate_ids(bytes_model.session(batch=2), [1], SamplingParams())


def test_a_bundle_without_tokenizer_takes_ids_only(zoo: Zoo) -> None:
    """The message says how to give it one."""
    with pytest.raises(ConfigError, match=r'has no tokenizer, so it takes ids only; .* tokenizer="bytes"'):
        load(zoo["vanilla"].bundle, threads=1).generate("x")


def test_threads_are_measured_or_given(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fastest of the candidates is taken; a number below 1 is refused."""
    seconds = {1: 3.0, 2: 2.0, 4: 2.5}
    tried: list[int] = []

    def opened(count: int) -> int:
        tried.append(count)
        return count

    monkeypatch.setattr(threads, "thread_counts", lambda: iter([1, 2, 4, 8]))
    monkeypatch.setattr(threads, "_decode_seconds", lambda session: seconds[session])
    assert threads.fastest_thread_count(opened) == 2  # type: ignore[arg-type]
    assert tried == [1, 2, 4]
    monkeypatch.undo()
    assert load(zoo["vanilla"].bundle).threads in threads.thread_counts()
    for count, bound in ((0, "least 1"), (-2, "least 1"), (99_999, "most 1024")):  # so many would take minutes to start
        with pytest.raises(ConfigError, match=f"threads must be at {bound}, got {count}"):
            load(zoo["vanilla"].bundle, threads=count)
    for odd in ("2", 1.5, True):
        with pytest.raises(ConfigError, match="threads must be an integer"):
            load(zoo["vanilla"].bundle, threads=odd)  # type: ignore[arg-type]


@pytest.mark.parametrize("target", ["cuda", "tensorrt", "tensorrt-rtx"])
def test_engines_without_threads_refuse_a_number(zoo: Zoo, target: str) -> None:
    """It would be ignored; in `load`, and in `evaluate` and `probe`, which load."""
    bundle = zoo["vanilla"].bundle
    manifest = msgspec.structs.replace(bundle.manifest, engines={target: bundle.manifest.engines["cpu"]})
    for use in (load, partial(evaluate, texts=[[1, 2, 3]]), partial(probe, texts=[[1, 2, 3]])):
        with pytest.raises(ConfigError, match=f"got threads=2 for target {target}: only cpu engines have threads"):
            use(Bundle(bundle.path, manifest), target=target, threads=2)


def test_a_missing_engine_library(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is the line that installs it."""
    real = builtins.__import__

    def without(name: str, *arguments: object, **more: object) -> object:
        if name == "onnxruntime":
            raise ImportError("No module named 'onnxruntime'")
        return real(name, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(BackendUnavailable, match=r"onnxruntime can't be imported .*: pip install '\.\[cpu\]'"):
        load(zoo["vanilla"].bundle, threads=1)


def test_two_onnxruntimes_that_destroyed_each_other(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left then imports, and is empty."""
    import types

    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", types.ModuleType("onnxruntime"))
    with pytest.raises(BackendUnavailable, match="overwrote each other; uninstall both and install one"):
        load(zoo["vanilla"].bundle, threads=1)


def test_an_engine_this_library_can_not_load(zoo: Zoo, tmp_path: Path) -> None:
    """The stage, the library's own first line, and who built it."""
    path = tmp_path / "b"
    shutil.copytree(zoo["vanilla"].bundle.path, path)
    bundle = open_bundle(path)
    (path / "engines" / "cpu" / "1.onnx").write_bytes(b"\x08\x0a")
    with pytest.raises(EngineMismatchError, match='can\'t load the engine of stage "1", built by foveal'):
        load(bundle, threads=1, native=False)


def test_another_provider_than_asked_is_no_fallback(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime falls back silently; foveal does not."""

    class Elsewhere:
        def __init__(self, *_: object, **__: object) -> None: ...

        def get_providers(self) -> Sequence[str]:
            return ["OtherExecutionProvider"]

    monkeypatch.setattr(backend.import_onnxruntime(), "InferenceSession", Elsewhere)
    with pytest.raises(EngineMismatchError, match=r"asked for CPUExecutionProvider, onnxruntime gave \['Other"):
        load(zoo["vanilla"].bundle, threads=1, native=False)


def test_int8_caches_need_a_library_that_has_them(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older ones load such an engine and fail, or err, when it runs."""
    bundle = zoo["vanilla"].bundle
    sidecar = msgspec.structs.replace(bundle.sidecar("cpu", "1"), cache_dtype="int8")
    monkeypatch.setattr(backend.import_onnxruntime(), "__version__", "1.27.3")
    with pytest.raises(
        EngineMismatchError, match='"1" keeps int8 caches, which need onnxruntime 1.28 or later, got 1.27.3; up'
    ):
        backend.OnnxRuntimeEngine(bundle.manifest.stages[0].spec, bundle.file("engines/cpu/1.onnx"), sidecar, 1)
