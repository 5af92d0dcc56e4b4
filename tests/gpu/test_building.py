"""Engines of every stage, in every precision."""

from __future__ import annotations

import pytest
from exactness import check_shared_addresses
from gpu_outcomes import Recorder
from gpu_workshop import Made

from foveal.errors import FovealError

pytestmark = pytest.mark.gpu


def test_engines_of_all_stages_are_built(case: Made | FovealError, record: Recorder) -> None:
    """In the precision that was asked for, which the engine itself shows; those for cuda are graphs, which have all in them."""
    if isinstance(case, FovealError):
        raise case
    target = case.case.subject.target
    for entry in case.bundle.manifest.stages:
        name = entry.spec.name
        sidecar = case.bundle.sidecar(target, name)
        if sidecar.build is not None:
            record("build", sidecar.build.seconds, "s", of=name)
            record("peak memory", sidecar.build.peak_memory_bytes / 1e6, "MB", of=name)
        record("engine", case.bundle.engine(target, name).stat().st_size / 1e6, "MB", of=name)
        record("obtained", sidecar.precision_obtained, of=name)
        for product in () if target == "cuda" else sidecar.products:
            assert product.obtained == product.asked, f"{product.product}: {product.reason}"
    record("build", case.seconds, "s", of="all")


def test_engines_load_and_say_whether_they_work_in_place(made: Made, record: Recorder) -> None:
    """Then past and present of every cache and log stand at one address."""
    for batch in (1, 2):
        with made.session(batch) as session:
            in_place = check_shared_addresses(session)
    record("state", "in place" if in_place else "takes turns")
