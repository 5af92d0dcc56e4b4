"""Loss by how common a token is in the whole text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.calibration.buckets import EDGES, by_frequency

MILLION = 1_000_000


def text_of(counts: list[int]) -> np.ndarray:
    """A text in which token i occurs `counts[i]` times."""
    return np.repeat(np.arange(len(counts)), counts)


def test_edges_belong_to_the_bucket_above() -> None:
    """Token i occurs so often in a million tokens; each is predicted once, with a loss of i."""
    counts = [9, 10, 99, 100, 999, 1000, 9999, 10_000]
    text = text_of([*counts, MILLION - sum(counts)])
    target = np.arange(len(counts))
    buckets = by_frequency(text, target, target.astype(np.float32))
    assert [(bucket.at_least, bucket.below, bucket.tokens) for bucket in buckets] == [
        *((0, 10, 1), (10, 100, 2), (100, 1000, 2), (1000, 10_000, 2), (10_000, None, 1)),
    ]
    assert [bucket.nats_per_token for bucket in buckets] == [0, 1.5, 3.5, 5.5, 7]
    assert {(b.reference_nats_per_token, b.kl_nats, b.top1_agreement) for b in buckets} == {(None, None, None)}


def test_edges_hold_in_texts_of_any_length() -> None:
    """3 of 300,000 tokens are 10 of a million, though a third has no end in binary."""
    (bucket,) = by_frequency(text_of([3, 299_997]), np.array([0]), np.ones(1, np.float32))
    assert (bucket.at_least, bucket.below) == (10, 100)


def test_the_whole_text_is_what_counts() -> None:
    """A token that is common in the predicted part may be rare in the text."""
    text, target = text_of([9, MILLION - 9]), np.zeros(9, np.int64)
    (bucket,) = by_frequency(text, target, np.ones(9, np.float32))
    assert (bucket.at_least, bucket.below, bucket.tokens) == (0, 10, 9)
    (bucket,) = by_frequency(target, target, np.ones(9, np.float32))
    assert (bucket.at_least, bucket.below, bucket.tokens) == (10_000, None, 9)


@given(st.lists(st.integers(1, 4000), min_size=1, max_size=30), st.integers(1, 500), st.integers(0, 1000))
def test_buckets_add_up(counts: list[int], predicted: int, seed: int) -> None:
    """Weighted by their tokens they give the means over all positions; empty ones are left out."""
    rng, text = np.random.default_rng(seed), text_of(counts)
    target = rng.choice(text, predicted)
    nats, reference, kl = rng.random((3, predicted)).astype(np.float32)
    agrees = rng.random(predicted) < 0.7
    buckets = by_frequency(text, target, nats, reference, kl, agrees)
    assert sum(bucket.tokens for bucket in buckets) == predicted
    assert all(bucket.tokens for bucket in buckets)
    assert [bucket.at_least for bucket in buckets] == sorted({bucket.at_least for bucket in buckets} & set(EDGES))
    for name, values in (
        ("nats_per_token", nats),
        ("reference_nats_per_token", reference),
        ("kl_nats", kl),
        ("top1_agreement", agrees),
    ):
        total = sum(bucket.tokens * getattr(bucket, name) for bucket in buckets)
        assert total / predicted == pytest.approx(values.mean(dtype=np.float64))
