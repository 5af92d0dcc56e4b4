"""Which provider a resident graph runs on, how it is set up, and what is said where it can't be.

The three that need a GPU are fakes here: what they would be given is tested, not that they run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest
from specimens import Zoo

from foveal import ConfigError
from foveal.errors import BackendUnavailable, EngineMismatchError, install
from foveal.runtime.backends import open_engines
from foveal.runtime.engines import onnxruntime_library, onnxruntime_providers
from foveal.runtime.engines.onnxruntime_providers import PROVIDERS, open_resident_session

RTX = PROVIDERS["tensorrt-rtx"]


class FakeOptions:
    """Session options that remember."""

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}
        self.devices: tuple[Sequence[Any], dict[str, str]] | None = None

    def add_session_config_entry(self, name: str, value: str) -> None:
        self.entries[name] = value

    def add_provider_for_devices(self, devices: Sequence[Any], settings: dict[str, str]) -> None:
        self.devices = (devices, settings)


class FakeOnnxRuntime:
    """The module, with all providers; what it opens remembers how."""

    __version__ = "1.32.0"
    SessionOptions = FakeOptions

    def __init__(self) -> None:
        self.available = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
        self.gives: str | None = None
        self.fails: Exception | None = None
        self.left: list[str] = ["Shape", "Gather"]
        self.gpus: list[Any] = [SimpleNamespace(ep_name=RTX, number=0), SimpleNamespace(ep_name=RTX, number=1)]
        self.registered: list[tuple[str, str]] = []

    def get_available_providers(self) -> list[str]:
        return self.available

    def get_ep_devices(self) -> list[Any]:
        return [SimpleNamespace(ep_name="CPUExecutionProvider"), *(self.gpus if self.registered else [])]

    def register_execution_provider_library(self, name: str, path: str) -> None:
        if self.fails is not None:
            raise self.fails
        self.registered.append((name, path))

    def InferenceSession(self, path: str, options: FakeOptions, providers: Sequence[Any] = ()) -> Any:
        if self.fails is not None:
            raise self.fails
        given = self.gives or (providers[0][0] if providers else RTX)
        parts = [SimpleNamespace(ep_name=given, get_nodes=lambda: [SimpleNamespace(op_type="MatMul")])]
        nodes = [SimpleNamespace(op_type=op) for op in self.left]
        parts.append(SimpleNamespace(ep_name="CPUExecutionProvider", get_nodes=lambda: nodes))
        return SimpleNamespace(
            options=options,
            providers=providers,
            get_providers=lambda: [given, "CPUExecutionProvider"],
            get_provider_graph_assignment_info=lambda: parts,
        )


@pytest.fixture
def ort(monkeypatch: pytest.MonkeyPatch) -> FakeOnnxRuntime:
    """In place of the real one; its plugin for TensorRT-RTX is installed."""
    fake = FakeOnnxRuntime()
    for module in (onnxruntime_library, onnxruntime_providers):
        monkeypatch.setattr(module, "import_onnxruntime", lambda: fake)
    plugin = SimpleNamespace(get_library_path=lambda: "/plugin.so")
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_nv_tensorrt_rtx", plugin)
    return fake


def opened(provider: str, stream: int = 77) -> Any:
    """A session of a graph that nobody reads."""
    return open_resident_session(Path("5.onnx"), "5", "foveal 0.1.0", provider, stream)


class TestSetUp:
    """What each provider is given."""

    def test_cuda_runs_on_our_stream(self, ort: FakeOnnxRuntime) -> None:
        """So its work is in order with ours; and fp32 is fp32."""
        settings = {"device_id": "0", "user_compute_stream": "77", "use_tf32": "0"}
        assert opened("cuda").providers == [("CUDAExecutionProvider", settings)]

    def test_tensorrt_keeps_the_engines_it_builds(
        self, ort: FakeOnnxRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And its kernel times, in the user's cache directory."""
        monkeypatch.setenv("FOVEAL_CACHE", str(tmp_path))
        ((name, settings),) = opened("tensorrt").providers
        assert name == "TensorrtExecutionProvider"
        assert settings == {
            "device_id": "0",
            "user_compute_stream": "77",
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(tmp_path / "onnxruntime-tensorrt"),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(tmp_path / "onnxruntime-tensorrt"),
        }

    def test_tensorrt_rtx_is_registered_once_and_given_the_first_gpu(self, ort: FakeOnnxRuntime) -> None:
        """It is a plugin."""
        for _ in range(2):
            assert opened("tensorrt-rtx").options.devices == ([ort.gpus[0]], {"user_compute_stream": "77"})
        assert ort.registered == [(RTX, "/plugin.so")]

    @pytest.mark.parametrize("provider", ["cuda", "tensorrt", "tensorrt-rtx"])
    def test_no_operator_runs_on_the_cpu_instead(self, ort: FakeOnnxRuntime, provider: str) -> None:
        """That would be a copy there and back in every step: it is an error."""
        assert opened(provider).options.entries["session.record_ep_graph_assignment_info"] == "1"

    def test_cpu_is_the_real_one(self, zoo: Zoo) -> None:
        """It runs the graphs that a GPU would run."""
        graph = zoo["linear"].bundle.path / "stages" / "5.onnx"
        assert open_resident_session(graph, "5", "foveal", "cpu", 0).get_providers() == ["CPUExecutionProvider"]


class TestWhereItCanNotBe:
    """What happened, and what to do."""

    @pytest.mark.parametrize("provider", ["directml", "CUDAExecutionProvider"])
    def test_a_provider_that_is_unknown(self, zoo: Zoo, provider: str) -> None:
        """Those that there are, are named."""
        with pytest.raises(ConfigError) as raised:
            open_engines(zoo["linear"].bundle, "cuda", provider=provider)
        assert str(raised.value) == (
            f'provider "{provider}" for target cuda: only target cuda has a choice, of cpu, cuda, tensorrt, tensorrt-rtx; '
            "leave it out"
        )

    @pytest.mark.parametrize("target", ["cpu", "tensorrt", "tensorrt-rtx"])
    def test_a_provider_for_another_target(self, zoo: Zoo, target: str) -> None:
        """Those run on what they were built for."""
        with pytest.raises(ConfigError, match=f'provider "cuda" for target {target}: only target cuda has a choice'):
            open_engines(zoo["linear"].bundle, target, provider="cuda")

    @pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
    def test_an_onnxruntime_without_it(self, provider: str) -> None:
        """The real one that is installed here."""
        if PROVIDERS[provider] in onnxruntime.get_available_providers():
            pytest.skip("this onnxruntime has the provider")
        with pytest.raises(BackendUnavailable) as raised:
            opened(provider)
        available = ", ".join(onnxruntime.get_available_providers())
        assert str(raised.value) == (
            f"this onnxruntime has no {PROVIDERS[provider]}, only {available}; uninstall onnxruntime, then {install('cuda')}"
        )

    def test_the_plugin_is_not_installed(self, ort: FakeOnnxRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
        """With the line that installs it."""
        monkeypatch.setitem(sys.modules, "onnxruntime_ep_nv_tensorrt_rtx", None)
        with pytest.raises(BackendUnavailable, match=f"{RTX} can't be registered .*pip install onnxruntime-ep-nv-tensorrt-rtx"):
            opened("tensorrt-rtx")

    def test_the_plugin_can_not_be_loaded(self, ort: FakeOnnxRuntime) -> None:
        """As without a driver; of what onnxruntime says, the first line."""
        ort.fails = RuntimeError("libcuda.so.1: cannot open\nstack")
        with pytest.raises(BackendUnavailable, match=rf"{RTX} can't be registered \(libcuda.so.1: cannot open\); it needs"):
            opened("tensorrt-rtx")

    def test_the_plugin_finds_no_gpu(self, ort: FakeOnnxRuntime) -> None:
        """The doctor shows what there is."""
        ort.gpus = []
        with pytest.raises(BackendUnavailable, match=f"{RTX} finds no GPU that it runs on; `foveal doctor` shows"):
            opened("tensorrt-rtx")

    @pytest.mark.parametrize("provider", ["cuda", "tensorrt", "tensorrt-rtx"])
    def test_a_graph_that_it_does_not_load(self, ort: FakeOnnxRuntime, provider: str) -> None:
        """With the stage and who built it, and the first line of what onnxruntime says."""
        ort.registered.append((RTX, ""))
        ort.fails = RuntimeError("nodes that are assigned to the default CPU EP\nmore")
        with pytest.raises(EngineMismatchError) as raised:
            opened(provider)
        assert 'can\'t load the engine of stage "5", built by foveal 0.1.0: nodes that are assigned' in str(raised.value)
        assert "more" not in str(raised.value)

    def test_onnxruntime_falls_back_without_a_word(self, ort: FakeOnnxRuntime) -> None:
        """Not here."""
        ort.gives = "CPUExecutionProvider"
        with pytest.raises(EngineMismatchError, match=r"asked for CUDAExecutionProvider, onnxruntime gave \['CPUExec"):
            opened("cuda")


@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "tensorrt-rtx"])
def test_work_that_is_left_to_the_cpu(provider: str, ort: FakeOnnxRuntime) -> None:
    """The arithmetic of shapes may be, and nothing else: it would copy at every step."""
    ort.left += ["Softmax", "MatMul", "MatMul"]
    text = (
        f'{PROVIDERS[provider]} leaves 3 operators of stage "s" to the CPU: MatMul, Softmax; upgrade onnxruntime, or build for'
    )
    with pytest.raises(EngineMismatchError, match=text):
        open_resident_session(Path("s.onnx"), "s", "foveal", provider, 0)


def test_the_real_library_says_where_operators_run(zoo: Zoo) -> None:
    """Under the names that the check goes by."""
    bundle = zoo["vanilla"].bundle
    options = onnxruntime_library.session_options()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    graph = str(bundle.file(bundle.manifest.stages[0].graph))
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    with pytest.raises(EngineMismatchError, match="leaves .* operators .* to the CPU: .*MatMul"):
        onnxruntime_providers._check_placement(session, "1", "cuda")
