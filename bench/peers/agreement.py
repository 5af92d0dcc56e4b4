"""Whether a peer runs the same model: its logits beside those of PyTorch in fp32."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...errors import EquivalenceError
from .peers import Kind

CLOSE: dict[Kind, float] = {"fp32": 0.02, "8-bit": 0.5, "4-bit": 2.0}
"""How far the furthest of all logits may be off, in standard deviations of the reference's.

Another model of the same sizes is off by 5 or more; one whose layers are wired otherwise shows in fp32. llama.cpp's GELU alone
(tanh, fp16) is 0.004; weights in 8 and 4 bits came to 0.1 and 1 here, static int8 rows to 0.25.
"""


def difference(reference: npt.NDArray[np.float32], found: npt.NDArray[np.float32]) -> float:
    """The largest difference, in standard deviations of the reference; infinite where one is no number."""
    largest = np.abs(found - reference).max() / reference.std()
    return float(largest) if np.isfinite(largest) else float("inf")


def check(name: str, kind: Kind, reference: npt.NDArray[np.float32], found: npt.NDArray[np.float32]) -> float:
    """As `difference`.

    Raises:
        EquivalenceError: other shapes, or more than `CLOSE`: another model.
    """
    if found.shape != reference.shape:
        raise EquivalenceError(f"{name} runs another model: got logits {found.shape}, expected {reference.shape}")
    error = difference(reference, found)
    if error > CLOSE[kind]:
        raise EquivalenceError(
            f"{name} runs another model: its logits differ from PyTorch's by {error:.3f} of their spread, expected at most "
            f"{CLOSE[kind]} in {kind}; see what its program makes of the original's weights"
        )
    return error
