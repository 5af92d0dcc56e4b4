"""Forced decoding on every kind of decoder: in the host's memory; resident, in place or taking turns, in calls of any size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from broken_bundles import with_wrong_weight
from fake_cuda import FakeGpu
from fake_tensorrt import Generation
from resident_engines import ort_engines, session_of, tensorrt_engines
from specimens import Specimen, Zoo, random_ids

from foveal.contract import StageSpec
from foveal.export.comparison.chunks import random_chunks
from foveal.export.comparison.errors import Comparison
from foveal.export.comparison.teacher_forcing import Recording, compare_forced, record
from foveal.runtime.backends import cpu_engines
from foveal.runtime.session import Session

TOKENS = 45
CHUNKINGS = ([1] * TOKENS, random_chunks(TOKENS, 0))
GENERATIONS: tuple[Generation, ...] = ("tensorrt-rtx", "tensorrt", "tensorrt 10.3")


def forced(session: Session, reference: Recording, ids: np.ndarray, chunks: Sequence[int]) -> dict[str, Comparison]:
    """Each stage's errors, by name."""
    found = [Comparison(spec.name, 1e-4, reference.magnitude(index)) for index, spec in enumerate(session.specs)]
    fired = compare_forced(session, reference, ids, chunks, found)
    assert fired == {spec.name: len(spec.firings(0, TOKENS)) for spec in session.specs}
    assert session.observer is None
    return {comparison.name: comparison for comparison in found}


def session_on(specimen: Specimen, kind: str, gpu: FakeGpu) -> Session:
    """A session of each kind that needs no GPU."""
    if kind == "host":
        return Session(cpu_engines(specimen.bundle), specimen.bundle.manifest.model)
    if kind in GENERATIONS:
        return session_of(tensorrt_engines(specimen, kind, gpu), specimen)
    if kind == "taking turns":
        return session_of(ort_engines(specimen, "classic", in_place=False), specimen)
    return session_of(ort_engines(specimen, "modern", gpu=gpu if kind == "recorded" else None), specimen)


@pytest.mark.parametrize("chunks", CHUNKINGS, ids=["token by token", "chunks"])
@pytest.mark.parametrize("kind", ["host", "in place", "taking turns", "recorded", *GENERATIONS])
def test_only_the_stage_that_differs_does(kind: str, chunks: list[int], zoo: Zoo, tmp_path: Path) -> None:
    """Whatever runs it: stages after the one that differs read what the reference gave."""
    good = zoo["nested"]
    wrong = with_wrong_weight(good.bundle, good.bundle.manifest.engines["cpu"]["2.pre"], tmp_path / "wrong")
    ids = random_ids(1, TOKENS)
    for bundle, differing in ((good.bundle, set()), (wrong, {"2.pre"})):
        reference = record(Session(cpu_engines(bundle), bundle.manifest.model), ids, chunks)
        found = forced(session_on(good, kind, FakeGpu()), reference, ids, chunks)
        assert {name for name, comparison in found.items() if comparison.where is not None} == differing
        assert all(comparison.values > 0 for comparison in found.values())


def test_places_are_tokens_and_rows(zoo: Zoo) -> None:
    """A firing of stage 8 gives four rows, for the four rows of scale 2 that it covers; the log's lead does not count."""
    bundle = zoo["nested"].bundle
    ids, chunks = random_ids(1, TOKENS), random_chunks(TOKENS, 0)
    names = [entry.spec.name for entry in bundle.manifest.stages]
    for stage, row, place in (("8", 9, "token 16, row 9"), ("1.pre", 20, "token 20, row 20"), ("2.post", 7, "token 6, row 7")):
        index = names.index(stage)
        reference = record(Session(cpu_engines(bundle), bundle.manifest.model), ids, chunks)
        rows = reference.outputs[index]
        rows[len(rows) - _given(bundle.manifest.stages[index].spec) + row] += 1.0
        found = forced(Session(cpu_engines(bundle), bundle.manifest.model), reference, ids, chunks)
        assert found[stage].where == place
    reference = record(Session(cpu_engines(bundle), bundle.manifest.model), ids, chunks)
    reference.outputs[-1][0, 31] += 1.0
    assert (
        forced(Session(cpu_engines(bundle), bundle.manifest.model), reference, ids, chunks)["1.post"].where
        == "token 31, row 31"
    )


def _given(spec: StageSpec) -> int:
    """Rows that a stage gave for all tokens."""
    return len(spec.firings(0, TOKENS)) * spec.output_rows
