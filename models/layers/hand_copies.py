"""How a coarse tower hands its vectors to the tokens of the next group."""

from __future__ import annotations

from torch import Tensor, nn


class HandCopies(nn.Module):
    """The final norm of a coarse tower, and each of its vectors once for every token of the group after it.

    A stage reads one row of a log per firing, at places that are linear in its firings, so that the vector is there `copies`
    times, though a patch decoder reads only the one that opens a patch.
    """

    def __init__(self, dim: int, norm_eps: float, copies: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=norm_eps)
        self.copies = copies

    def forward(self, x: Tensor) -> Tensor:
        """`[B, n, D]` -> `[B, n * copies, D]`."""
        batch, groups, dim = x.shape
        y: Tensor = self.norm(x)[:, :, None].expand(batch, groups, self.copies, dim)
        return y.reshape(batch, groups * self.copies, dim)
