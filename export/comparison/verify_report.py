"""What `verify` compared, how much of the model that was, and the first difference."""

from __future__ import annotations

from typing import Literal

import msgspec

from ...errors import EquivalenceError

Kind = Literal["values", "weights", "run", "boundaries"]
CLEAR = 2.0
"""A margin of so many of the largest errors can't be rounding: the values of two systems are no farther apart than one."""
_SHOWN = 3


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison; `where` names the first place that differs by more than the tolerance.

    `kind` is what was compared: the values that a run gives, weights, or when stages fire, where the error is the largest
    margin of a decision that came out otherwise; of a `run` that failed there is nothing to compare.
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


class CloseCall(msgspec.Struct, frozen=True, kw_only=True):
    """A decision that rounding may turn: the token, PyTorch's value for it, and how far that is from the threshold."""

    sequence: str
    token: int
    value: float
    margin: float
    flipped: bool = False


class ClockReport(msgspec.Struct, frozen=True, kw_only=True):
    """How one clock was decided.

    Attributes:
        stage: whose rows have the values; None: ids of tokens decide, which nothing rounds.
        threshold: of the values.
        decisions: rows that may be boundaries, and PyTorch's `boundaries` among them.
        largest_error: of a value, from PyTorch's.
        smallest_margin: of a value of PyTorch's; None where no value decides.
        too_close: the decisions whose margin is below `CLEAR` times the largest error.
        flips: decisions that came out otherwise in some run of the system; a text that has such a one has two right readings.
        equal_share: of the boundaries that PyTorch and a system on its own schedule make, those that both make.
    """

    stage: str | None
    threshold: float
    decisions: int
    boundaries: int
    largest_error: float
    smallest_margin: float | None
    too_close: tuple[CloseCall, ...]
    flips: int
    equal_share: float

    def __str__(self) -> str:
        if self.stage is None:
            return f"{self.boundaries:,} boundaries by the ids of tokens, {self.equal_share:.2%} of them equal"
        smallest = "none" if self.smallest_margin is None else f"{self.smallest_margin:.1e}"
        start = (
            f'stage "{self.stage}" decides: {self.boundaries:,} boundaries in {self.decisions:,} rows, {self.equal_share:.2%} '
            f"of them equal; values within {self.largest_error:.1e} of PyTorch's, the smallest margin is {smallest}"
        )
        if not self.too_close:
            return f"{start}; no token is too close to call"
        shown = ", ".join(f"{call.token} ({call.sequence}, margin {call.margin:.1e})" for call in self.too_close[:_SHOWN])
        more = f" and {len(self.too_close) - _SHOWN} more" if len(self.too_close) > _SHOWN else ""
        return f"{start}; too close to call, token {shown}{more}: {self.flips} came out otherwise"


class VerifyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `verify` compared (`reports/verify.json`); `clocks` of a model whose firings the data decides."""

    bundle: str
    checkpoint: str
    tokens: int
    batch: int
    checks: tuple[Check, ...]
    coverage: Coverage
    clocks: tuple[ClockReport, ...] = ()

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
        if failed.kind == "boundaries":
            raise EquivalenceError(
                f"{failed.name} are not PyTorch's: {failed.where}; largest margin {failed.max_abs_error:.2e}, expected at most "
                f"{failed.tolerance:.1e}, {CLEAR:g} times the largest error of a value: this is no rounding"
            )
        raise EquivalenceError(
            f"{failed.name} differs from PyTorch: {failed.where}; largest error {failed.max_abs_error:.2e}, "
            f"expected at most {failed.tolerance:.0e} of the largest value"
        )


def _share(part: int, whole: int) -> str:
    share = 100 * part / max(whole, 1)
    return f"{part:,} of {whole:,} ({share:.0f} %)" if part in (0, whole) else f"{part:,} of {whole:,} ({share:.2f} %)"
