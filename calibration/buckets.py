"""Loss by how common the predicted token is: is it the rare words that a bundle loses?"""

from __future__ import annotations

import itertools
import math

import msgspec
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
EDGES = (0, 10, 100, 1000, 10_000)
"""Lower ends of the buckets, in occurrences per million tokens of the whole text."""


class Bucket(msgspec.Struct, frozen=True, kw_only=True):
    """All positions whose token occurs `at_least` to `below` times per million tokens (None: or more)."""

    at_least: int
    below: int | None
    tokens: int
    nats_per_token: float
    reference_nats_per_token: float | None = None
    kl_nats: float | None = None
    top1_agreement: float | None = None


def by_frequency(
    text: npt.NDArray[np.int64],
    target: npt.NDArray[np.int64],
    nats: Floats,
    reference_nats: Floats | None = None,
    kl: Floats | None = None,
    agrees: npt.NDArray[np.bool_] | None = None,
) -> tuple[Bucket, ...]:
    """Group positions `[T]` by how frequent their token is in the whole `text` `[N]`; empty buckets are left out."""
    per_million = np.bincount(text)[target] * 1e6 / len(text)
    buckets = []
    for low, high in itertools.pairwise((*EDGES, math.inf)):
        chosen = (per_million >= low) & (per_million < high)
        if not chosen.any():
            continue
        buckets.append(
            Bucket(
                at_least=int(low),
                below=None if math.isinf(high) else int(high),
                tokens=int(chosen.sum()),
                nats_per_token=float(nats[chosen].mean(dtype=np.float64)),
                reference_nats_per_token=_mean(reference_nats, chosen),
                kl_nats=_mean(kl, chosen),
                top1_agreement=_mean(agrees, chosen),
            )
        )
    return tuple(buckets)


def _mean(values: Floats | npt.NDArray[np.bool_] | None, chosen: npt.NDArray[np.bool_]) -> float | None:
    return None if values is None else float(values[chosen].mean(dtype=np.float64))
