"""Nothing of a model escapes `verify`: every number of every weight, every position, every stage that fails."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from broken_bundles import with_altered_tensor
from own_models import Gist, GistScale
from precisions import needs_opset_24
from specimens import Zoo

from foveal import EquivalenceError
from foveal.export import build, convert_model, verify
from foveal.export.comparison import verification
from foveal.export.comparison.weights import weigh_engine, weigh_graph
from foveal.export.graphs.dialect import MODERN
from foveal.export.tensorrt.options import EngineOptions
from foveal.runtime.backends import open_engines

MUTANTS = int(os.environ.get("FOVEAL_EXAMPLES", "25")) // 8
"""Of each kind of file of each model: 3; `FOVEAL_EXAMPLES=800` makes 100."""


def ruin(rng: np.random.Generator, weight: np.ndarray) -> None:
    """Zero a row, change a number a little, or swap two rows."""
    rows = weight.reshape(-1, weight.shape[-1]) if weight.ndim > 1 else weight[:, None]
    way = rng.integers(3)
    first, second = rng.choice(len(rows), 2, replace=False)
    if way == 0:
        rows[first] = 0
    elif way == 1:
        rows[first, rng.integers(rows.shape[1])] *= 1.01
    else:
        rows[[first, second]] = rows[[second, first]]


@needs_opset_24
@pytest.mark.parametrize("file", ["stages", "engines/cpu"])
@pytest.mark.parametrize("name", ["nested", "top-down"])
def test_no_ruined_weight_passes(zoo: Zoo, tmp_path: Path, name: str, file: str) -> None:
    """In whatever tensor of whatever stage, in a graph or in an engine, with the hashes put right: the place is named."""
    specimen = zoo[name]
    verify(specimen.bundle, specimen.model).require_equal()
    for seed in range(MUTANTS):
        rng = np.random.default_rng(seed)
        stage = specimen.bundle.manifest.stages[rng.integers(len(specimen.bundle.manifest.stages))].spec.name
        chosen: list[str] = []

        def choose(graph: ir.Model, rng: np.random.Generator = rng, chosen: list[str] = chosen) -> str:
            values = graph.graph.initializers.items()
            weights = [n for n, v in values if v.const_value.size > 1 and v.const_value.numpy().dtype.kind == "f"]
            chosen.append(weights[rng.integers(len(weights))])
            return chosen[0]

        ruined = with_altered_tensor(
            specimen.bundle, f"{file}/{stage}.onnx", tmp_path / "b", choose, lambda weight, rng=rng: ruin(rng, weight)
        )
        failed = verify(ruined, specimen.model).first_failure
        assert failed is not None, (seed, stage, chosen)
        assert (failed.kind, f'of stage "{stage}"' in failed.name) == ("weights", True), failed
        assert failed.where is not None
        assert failed.where.startswith(f"tensor {chosen[0]}["), failed


@needs_opset_24
def test_the_share_that_was_covered(zoo: Zoo) -> None:
    """All weights, one by one; positions to the end of the context; in a sentence and in the report."""
    specimen = zoo["nested"]
    found = verify(specimen.bundle, specimen.model).coverage
    assert found.weights == found.weights_compared > 10_000
    assert found.engine_weights == found.engine_weights_compared > 10_000
    assert (found.positions, found.context, found.by_runs_only) == (96, 96, ())
    assert str(found) == (
        f"compared one by one: {found.weights:,} of {found.weights:,} (100 %) of the graphs' weights, "
        f"{found.engine_weights:,} of {found.engine_weights:,} (100 %) of the engines'; all 96 positions were run"
    )


@needs_opset_24
def test_a_long_context_is_run_at_its_end(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the whole would take too long, every stage still runs at its last position; the report does not say more."""
    monkeypatch.setattr("foveal.export.comparison.verification._MOST_WORK", 0)
    specimen = zoo["nested"]
    report = verify(specimen.bundle, specimen.model)
    assert 'ONNX graph at the last positions of stage "8"' in [check.name for check in report.checks]
    assert str(report.coverage).endswith("positions 0 to 60 and the last of 96 were run")


@needs_opset_24
def test_engines_for_gpus_that_are_graphs(zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their weights can be read where none of them runs; here they run on the CPU, one sequence of 32 tokens at most."""
    shutil.copytree(zoo["vanilla"].bundle.path, tmp_path / "b")
    bundle = build(tmp_path / "b", target="cuda", options=EngineOptions(capacity=32))
    (entry,) = bundle.manifest.stages
    engine, graph = bundle.engine("cuda", entry.spec.name), bundle.file(entry.graph)
    found = weigh_engine(entry.spec, graph, engine, "cuda")
    assert (found.compared, found.unknown, found.wrong) == (found.numbers, (), None)
    monkeypatch.setattr(verification, "open_engines", lambda bundle, target: open_engines(bundle, target, provider="cpu"))
    report = verify(bundle, zoo["vanilla"].model, "cuda")
    report.require_equal()
    assert report.coverage.positions == 32
    assert report.coverage.engine_weights == report.coverage.engine_weights_compared > 1000
    ruined = with_altered_tensor(
        bundle, "engines/cuda/1.onnx", tmp_path / "r", lambda _: "module.entry.positions.weight", lambda w: w[61:].fill(0)
    )
    wrong = weigh_engine(entry.spec, graph, ruined.engine("cuda", entry.spec.name), "cuda").wrong
    assert wrong is not None
    assert wrong.place == (61, 0)


class Masked(GistScale):
    """A weight that the graph holds in another form than the model does: what a mask leaves of it."""

    def own(self, ids: torch.Tensor) -> torch.Tensor:
        masked = self.mix.weight * torch.ones_like(self.mix.weight).tril()
        return torch.tanh(self.table(ids).unflatten(1, (-1, 8)).mean(2) @ masked.t() + self.mix.bias)


def test_weights_that_an_export_works_into_others(tmp_path: Path) -> None:
    """They are compared with those of a second export, and so are not taken for ruined ones, which they resemble."""
    model = Gist(coarse=Masked)
    bundle = convert_model(model, tmp_path / "b")
    stage, graph = model.stages()[0], bundle.file("stages/gist.onnx")
    found = weigh_graph(stage, graph, MODERN)
    assert (found.compared, found.unknown, found.wrong) == (found.numbers, (), None)


class FailsLate(GistScale):
    """A module that can't be run from its third firing on."""

    def forward(self, inputs, state, logit_rows=None):  # type: ignore[no-untyped-def]
        if getattr(self, "armed", False) and int(state.positions(1)[0, 0]) > 1:
            raise OSError("the table is gone")
        return super().forward(inputs, state, logit_rows)


@needs_opset_24
def test_a_stage_that_fails_while_it_runs(tmp_path: Path) -> None:
    """Is a difference, with its stage, its token, the cause and the line."""
    model = Gist(coarse=FailsLate)
    bundle = convert_model(model, tmp_path / "b")
    model.coarse.armed = True
    failed = verify(bundle, model).first_failure
    assert failed is not None
    assert failed.kind == "run"
    text = r'could not be compared: stage "gist", token 23: the run failed: the table is gone, at .*\.py:\d+ \(`raise'
    with pytest.raises(EquivalenceError, match=text):
        verify(bundle, model).require_equal()


class Forgets(GistScale):
    """Its rows are others token by token than in one call: it does not remember what it wrote."""

    def forward(self, inputs, state, logit_rows=None):  # type: ignore[no-untyped-def]
        own = self.own(inputs[0])
        state.write("total", own[:, None], state.positions(own.shape[1])[:, 0])
        return own.cumsum(1).repeat_interleave(8, dim=1)


@needs_opset_24
def test_the_stage_that_depends_on_how_it_is_called(tmp_path: Path) -> None:
    """Logits alone would only say that the last stage gives others."""
    model = Gist(coarse=Forgets)
    failed = verify(convert_model(model, tmp_path / "b"), model).first_failure
    assert failed is not None
    assert failed.where == (
        'stage "token", token 16, tensor logits; stage "gist" gives other rows token by token than in one call, '
        "first for token 15, row 8"
    )


def test_graphs_that_are_links(zoo: Zoo, tmp_path: Path) -> None:
    """As the caches of model hubs keep files: their weights are compared like any other's."""
    specimen = zoo["vanilla"]
    (tmp_path / "stages").mkdir()
    for file in (specimen.bundle.path / "stages").iterdir():
        (tmp_path / "stages" / file.name).symlink_to(file)
    (stage,) = specimen.model.stages()
    weighed = weigh_graph(stage, tmp_path / specimen.bundle.manifest.stages[0].graph, MODERN)
    assert (weighed.compared, weighed.unknown, weighed.wrong) == (weighed.numbers, (), None)
