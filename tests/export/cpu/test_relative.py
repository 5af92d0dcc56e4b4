"""Attention by relative position in CPU engines: as the full forward has it, and over no more rows than are there."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import torch
from batches import BatchWalk, wander
from exactness import Walk, paths
from hypothesis import given, settings
from hypothesis import strategies as st
from specimens import random_ids
from torch_sessions import logits_of, shake

from foveal import load
from foveal.bundle import Bundle
from foveal.export import build, convert_model
from foveal.export.cpu import distance_tables, relative
from foveal.models import Architecture
from foveal.models.dynamic_pooling.config import DynamicPoolingConfig
from foveal.models.dynamic_pooling.model import DynamicPooling
from foveal.models.trax.config import TraxConfig
from foveal.models.trax.model import TraxHourglass
from foveal.runtime.host import HostDecoder
from foveal.runtime.session import Session

SIZES: dict[str, Any] = {"vocab_size": 41, "ff_dim": 32, "context": 96}


def trax(hierarchy: str, heads: int) -> TraxHourglass:
    return TraxHourglass(TraxConfig(hierarchy=hierarchy, dim=24, heads=heads, **SIZES))


def pooling(layers: tuple[int, int, int], **boundaries: Any) -> DynamicPooling:
    return DynamicPooling(DynamicPoolingConfig(dim=24, heads=3, head_dim=8, layers=layers, **boundaries, **SIZES))


MODELS: dict[str, Callable[[], Architecture]] = {
    "trax": lambda: trax("1@1 1@2 1@6 1@2 1@1", heads=3),
    "trax, heads that the kernel does not take": lambda: trax("1@1 1@3 1@1", heads=2),
    "dynamic pooling, a constant row before a cache": lambda: pooling((1, 1, 1), boundaries="fixed", stride=3),
}
names = st.sampled_from(list(MODELS))


class Converted(NamedTuple):
    """A model and its bundle, and one with engines as if the context were long: tables of many blocks, and few copies."""

    model: Architecture
    bundle: Bundle
    long: Bundle


Convert = Callable[[str], Converted]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Convert:
    """A model by its name."""

    @functools.cache
    def of(name: str) -> Converted:
        torch.manual_seed(0)
        model, directory = MODELS[name](), tmp_path_factory.mktemp("relative")
        shake(model, 0)
        bundle = convert_model(model, directory / "b")
        shutil.copytree(bundle.path, directory / "long")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(distance_tables, "SHORTEST_BLOCK", 8)
            patch.setattr(relative, "FEW_DISTANCES", 8)
            return Converted(model, bundle, build(directory / "long", target="cpu"))

    return of


@settings(max_examples=12)
@given(names, st.booleans(), st.sampled_from([1, 2]), paths)
def test_a_session_may_go_anywhere(
    converted: Convert, name: str, is_long: bool, batch: int, path: list[tuple[str, int]]
) -> None:
    """Chunks of any length, rewinds, copies: with the logits of the full forward."""
    model, bundle, long = converted(name)
    walk = Walk(load(long if is_long else bundle, threads=1).session(batch), lambda ids: logits_of(model, ids))
    for step, tokens in path:
        walk.take(step, tokens)


@settings(max_examples=6)
@given(names, st.integers(0, 99))
def test_sequences_of_a_batch_have_lengths_of_their_own(converted: Convert, name: str, seed: int) -> None:
    model = load(converted(name).long, threads=1)
    with model.batch(slots=3) as batch:
        wander(BatchWalk(batch, model.session, 1e-4), Random(seed), 25, 96, 41)


def spoil_the_rest(session: Session) -> None:
    """Fill what no token has written with numbers that would spoil any product they entered."""
    assert isinstance(session.decoder, HostDecoder)
    for step in session.decoder.steps:
        fired = step.clock.firings_within(session.position)
        for cache, array in zip(step.spec.caches, step.bound.caches, strict=True):
            array[:, :, cache.length(fired) if fired else 0 :] = np.nan


@settings(max_examples=12)
@given(names, st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_rows_that_are_not_there_yet_are_not_read(converted: Convert, name: str, chunks: list[int]) -> None:
    """So what a step costs follows the length used, not the capacity."""
    model, bundle, _ = converted(name)
    ids = random_ids(1, sum(chunks))
    with load(bundle, threads=1).session() as session:
        found = []
        for part in np.split(ids, np.cumsum(chunks)[:-1], axis=1):
            spoil_the_rest(session)
            found.append(session.advance(part))
    np.testing.assert_allclose(np.concatenate(found, 1), logits_of(model, ids), atol=1e-4)


def ops_of(bundle: Bundle, stage: str) -> list[str]:
    graph = onnx.load(Path(bundle.file(bundle.manifest.engines["cpu"][stage])), load_external_data=False).graph
    return [node.op_type for node in graph.node]


def test_the_kernel_attends_where_queries_and_keys_are_the_same_rows(converted: Convert) -> None:
    """One for each layer; keys of another rate, and heads of a width that it does not take, are cut to what is used."""
    bundle = converted("trax").bundle
    assert [ops_of(bundle, stage).count("GroupQueryAttention") for stage in ("1.pre", "6", "1.post")] == [1, 1, 1]
    assert [ops_of(bundle, stage).count("Softmax") for stage in ("1.pre", "6", "1.post")] == [0, 1, 1]
    other = converted("trax, heads that the kernel does not take").bundle
    assert "GroupQueryAttention" not in ops_of(other, "1.pre")


def test_tables_of_long_contexts_stand_in_blocks(converted: Convert) -> None:
    """Each as long as all before it: a choice in the graph takes as many of them as a call sees."""
    assert distance_tables.ends_of(96) == [96]
    assert distance_tables.ends_of(3000) == [512, 1024, 2048, 3000]
    assert "If" not in ops_of(converted("trax").bundle, "1.pre")
    assert "If" in ops_of(converted("trax").long, "1.pre")
