"""How what is remembered fades with every row, where each row says by how much."""

from __future__ import annotations

import torch
from torch import Tensor


def fades(decay: Tensor) -> Tensor:
    """How much is left at each row of what an earlier one wrote: `[..., L]` logarithms of what each row keeps -> `[..., L, L]`.

    Sums of the rows between two, as a product with a triangular matrix: differences of cumulative sums would lose what is small
    behind what is large, and not every engine has these.
    """
    rows = torch.arange(decay.shape[-1], device=decay.device)
    seen = rows <= rows[:, None]  # rows see themselves and those before
    between = torch.where(seen, decay[..., None, :], 0.0) @ (rows < rows[:, None]).to(decay.dtype)
    return torch.where(seen, between, -torch.inf).exp()
