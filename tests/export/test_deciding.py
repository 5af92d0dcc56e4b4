"""A model whose firings the data decides, converted: as its full forward, however its tokens come."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
import torch
from deciding_model import CONTEXT, VOCABULARY, Deciding, deciding

import foveal
from foveal.export import convert_model
from foveal.runtime.model import Model


@pytest.fixture(scope="module", params=[False, True], ids=["rows_only", "recurrent"])
def source(request: pytest.FixtureRequest) -> Deciding:
    """The model in PyTorch."""
    return deciding(request.param)


@pytest.fixture(scope="module")
def model(source: Deciding, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Its bundle, loaded."""
    bundle = convert_model(source, tmp_path_factory.mktemp("deciding") / "b.bundle", tokenizer="bytes")
    return foveal.load(bundle.path, threads=1)


def texts(count: int) -> np.ndarray:
    """Random ids, `[count, CONTEXT]`."""
    return np.random.default_rng(7).integers(0, VOCABULARY, (count, CONTEXT))


def full(source: Deciding, ids: np.ndarray) -> np.ndarray:
    """Logits of the full forward."""
    with torch.no_grad():
        return source(torch.from_numpy(ids)).numpy()


def test_in_one_call_token_by_token_in_chunks_and_after_rewinds(source: Deciding, model: Model) -> None:
    """At every token."""
    ids, choose = texts(1), Random(1)
    expected, session = full(source, ids)[0], model.session()
    np.testing.assert_allclose(session.advance(ids)[0], expected, atol=1e-4)
    assert 3 < session.fires["middle"] < CONTEXT
    session.reset()
    for token in range(CONTEXT):
        np.testing.assert_allclose(session.advance(ids[:, token : token + 1])[0, 0], expected[token], atol=1e-4)
    for _ in range(30):
        session.rewind(choose.randint(0, session.position))
        if choose.random() < 0.5:
            kept, others = session.position, choose.randint(0, min(9, CONTEXT - session.position))
            if others:
                session.advance([[choose.randrange(VOCABULARY) for _ in range(others)]])
                session.rewind(session.position - kept)
        chunk = ids[:, session.position :][:, : choose.randint(1, 20)]
        if chunk.size:
            start = session.position
            np.testing.assert_allclose(session.advance(chunk)[0], expected[start : session.position], atol=1e-4)
        session = session.fork() if choose.random() < 0.2 else session


def test_sequences_of_a_batch_fire_by_their_own_text(source: Deciding, model: Model) -> None:
    """Joined at different steps."""
    ids = texts(5)
    expected = full(source, ids)
    with model.batch(4, prefill_seconds=0) as batch:
        going = {batch.join(one[: 3 + 2 * number], queue=True): number for number, one in enumerate(ids)}
        logits = batch.step()
        for _ in range(CONTEXT * 2):
            for sequence, row in logits.items():
                np.testing.assert_allclose(row, expected[going[sequence], sequence.position - 1], atol=1e-4)
                if sequence.position == CONTEXT:
                    batch.leave(sequence)
            tokens = {one: int(ids[number, one.position]) for one, number in going.items() if one.state == "ready"}
            logits = batch.step(tokens)
        assert not batch.sequences
