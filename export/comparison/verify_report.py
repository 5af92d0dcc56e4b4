"""What `verify` compared, how much of the model that was, and the first difference."""

from __future__ import annotations

from typing import Literal

import msgspec

from ...errors import EquivalenceError

Kind = Literal["values", "weights", "run"]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison; `where` names the first place that differs by more than the tolerance.

    `kind` is what was compared: the values that a run gives, or weights; of a `run` that failed there is nothing to compare.
    """

    name: str
    max_abs_error: float
    tolerance: float
    values: int
    where: str | None = None
    kind: Kind = "values"


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the model the checks have seen.

    Attributes:
        weights: numbers in the weights of all stage graphs.
        weights_compared: of these, those that were compared with the checkpoint's, one by one; runs compare the others.
        engine_weights, engine_weights_compared: the same of the target's engines; 0 where only runs can tell, as of TensorRT.
        by_runs_only: the tensors that were not compared one by one, by graph or engine.
        context: tokens that the model was trained on, or has positions for.
        positions: tokens from the first on that the whole system was run on. Every stage was run at its last position too.
    """

    weights: int
    weights_compared: int
    engine_weights: int
    engine_weights_compared: int
    by_runs_only: tuple[str, ...]
    context: int
    positions: int

    def __str__(self) -> str:
        graphs = f"{_share(self.weights_compared, self.weights)} of the graphs' weights"
        engines = f"{_share(self.engine_weights_compared, self.engine_weights)} of the engines'"
        engines = engines if self.engine_weights else "the engines' by runs only"
        run = f"positions 0 to {self.positions - 1:,} and the last of {self.context:,} were run"
        if self.positions >= self.context:
            run = f"all {self.context:,} positions were run"
        return f"compared one by one: {graphs}, {engines}; {run}"


class VerifyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `verify` compared (`reports/verify.json`)."""

    bundle: str
    checkpoint: str
    tokens: int
    batch: int
    checks: tuple[Check, ...]
    coverage: Coverage

    @property
    def first_failure(self) -> Check | None:
        """The first check that failed, in order from the model to the running system."""
        return next((check for check in self.checks if check.where is not None), None)

    def require_equal(self) -> None:
        """Raise EquivalenceError, naming the first stage, step and tensor that differ, unless everything agrees."""
        failed = self.first_failure
        if failed is None:
            return
        if failed.kind == "run":
            raise EquivalenceError(f"{failed.name} could not be compared: {failed.where}")
        if failed.kind == "weights":
            raise EquivalenceError(
                f"{failed.name} are not those it was made from: {failed.where}; "
                f"largest error {failed.max_abs_error:.2e}, expected 0; convert the checkpoint again"
            )
        raise EquivalenceError(
            f"{failed.name} differs from PyTorch: {failed.where}; largest error {failed.max_abs_error:.2e}, "
            f"expected at most {failed.tolerance:.0e} of the largest value"
        )


def _share(part: int, whole: int) -> str:
    share = 100 * part / max(whole, 1)
    return f"{part:,} of {whole:,} ({share:.0f} %)" if part in (0, whole) else f"{part:,} of {whole:,} ({share:.2f} %)"
