"""`verify` agrees with a good bundle and finds the place in a bad one."""

from __future__ import annotations

from pathlib import Path

import msgspec
import onnxruntime
import pytest
import torch
from specimens import Zoo

from foveal import BackendUnavailable, EquivalenceError, load
from foveal.export import verify
from foveal.export.comparison.portable_engines import check_runs_portable_graphs
from foveal.models.checkpoint import load_foveal, save_checkpoint

needs_opset_24 = pytest.mark.skipif(
    tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 24),
    reason=f"onnxruntime {onnxruntime.__version__}, the newest for this Python, does not run the portable graphs",
)


@pytest.fixture
def checkpoint(zoo: Zoo, tmp_path: Path) -> Path:
    """The checkpoint of the nested specimen."""
    save_checkpoint(zoo["nested"].model, tmp_path / "c", torch.float32)
    return tmp_path / "c"


@needs_opset_24
def test_a_good_bundle(zoo: Zoo, checkpoint: Path) -> None:
    """Every stage as a graph and as an engine, one by one and in chunks, and the system; the report lies in the bundle."""
    bundle = zoo["nested"].bundle
    report = verify(bundle, checkpoint)
    report.require_equal()
    names = [check.name for check in report.checks]
    ways = 11 if load(bundle, threads=1).native_stages else 8  # of running a stage: three more with foveal-native
    assert len(names) == 2 + ways * 5 + 4
    assert 'ONNX graph of stage "8"' in names
    assert "the cpu system, random chunks" in names
    assert all(check.values > 0 and check.max_abs_error < 1e-5 for check in report.checks)
    assert (bundle.path / "reports" / "verify.json").is_file()


@needs_opset_24
@pytest.mark.parametrize(
    ("tensor", "stage"),
    [("root.inner.inner.layers.0.feed_forward.up.weight", "8"), ("root.inner.pre.layers.0.attention.qkv.weight", "2.pre")],
)
def test_the_first_stage_token_and_tensor_that_differ(zoo: Zoo, checkpoint: Path, tensor: str, stage: str) -> None:
    """One weight changed after the conversion is found where it is."""
    model = load_foveal(checkpoint)
    with torch.no_grad():
        model.get_parameter(tensor)[0, 0] += 0.5
    save_checkpoint(model, checkpoint, torch.float32)
    report = verify(zoo["nested"].bundle, checkpoint)
    failed = [check.name for check in report.checks if check.where is not None]
    assert failed[0] == f'the weights of the ONNX graph of stage "{stage}"'
    assert failed[1] == f'ONNX graph of stage "{stage}"'
    assert all(f'"{stage}"' in name or "system" in name for name in failed)
    with pytest.raises(
        EquivalenceError, match=rf'of stage "{stage}" are not those it was made from: tensor val_\d+\[0, 0\]: got'
    ):
        report.require_equal()
    runs = msgspec.structs.replace(report, checks=tuple(check for check in report.checks if check.kind == "values"))
    with pytest.raises(EquivalenceError, match=rf'differs from PyTorch: stage "{stage}", token \d+, tensor (hidden|present)'):
        runs.require_equal()
    assert EquivalenceError.exit_code == 2


def test_another_model(zoo: Zoo, checkpoint: Path) -> None:
    """Comparing it would say nothing."""
    with pytest.raises(EquivalenceError, match="is another model than .* was made from"):
        verify(zoo["vanilla"].bundle, checkpoint)


def test_an_old_onnxruntime() -> None:
    """It runs the engines, but not the portable graphs they are compared with."""
    check_runs_portable_graphs("1.24.0")
    with pytest.raises(BackendUnavailable, match=r"run on onnxruntime 1\.24 or later .*, got 1\.23\.2; compare .* on"):
        check_runs_portable_graphs("1.23.2")
