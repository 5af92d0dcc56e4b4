"""Where the data decides when stages fire: `verify`, `compare` and `save_inputs` of such a model, and what a tie is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import torch
from deciding_model import CONTEXT, VOCABULARY, Deciding, deciding

from foveal import ConfigError, EquivalenceError
from foveal.bundle import Bundle, open_bundle
from foveal.contract import ClockSpec, StageSpec
from foveal.export import compare, convert_model, verify
from foveal.export.comparison.boundaries import BoundaryChecks, schedule_of
from foveal.export.comparison.save_inputs import save_inputs
from foveal.export.comparison.systems import differing_rules
from foveal.export.comparison.torch_engine import TorchEngine
from foveal.export.comparison.verify_report import VerifyReport
from foveal.runtime.schedules import Decisions
from foveal.runtime.session import Session

CLOCK = ClockSpec(stage="pre", threshold=0.5)
SPECS = [StageSpec(name="middle", stride=1, clock=CLOCK, inputs=(), output="hidden", width=1, layers=0, parameters=0)]


@pytest.fixture(scope="module", params=[False, True], ids=["rows_only", "recurrent"])
def source(request: pytest.FixtureRequest) -> Deciding:
    """The model in PyTorch."""
    return deciding(request.param)


@pytest.fixture(scope="module")
def bundle(source: Deciding, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same converted."""
    return convert_model(source, tmp_path_factory.mktemp("boundaries") / "b.bundle", tokenizer="bytes")


def decisions(values: list[float], made: list[bool] | None = None) -> Decisions:
    """Of tokens 0, 1, ...; as the values say if nothing else is given."""
    wanted = np.array(values) > CLOCK.threshold
    return Decisions(np.arange(len(values)), np.array(values, np.float32), wanted if made is None else np.array(made), wanted)


def judged(expected: list[float], got: list[float], own: list[float] | None = None) -> BoundaryChecks:
    """A system whose values are others, on PyTorch's schedule, and on its own."""
    right, found = decisions(expected), BoundaryChecks(SPECS)
    forced = decisions(got, right.made.tolist())
    found.add("the run", "the text", {CLOCK: forced}, {CLOCK: decisions(got if own is None else own)}, {CLOCK: right})
    return found


def test_verify_holds_logits_to_pytorch_on_its_schedule(source: Deciding, bundle: Bundle) -> None:
    """And says how near the nearest decision was; the report is kept."""
    report = verify(bundle, source)
    report.require_equal()
    names = {check.name: check for check in report.checks}
    assert report.batch == 1
    assert names['boundary values of stage "pre"'].max_abs_error < 1e-5
    assert names['boundaries of stage "pre"'].max_abs_error == 0
    (clock,) = report.clocks
    assert (clock.stage, clock.decisions, clock.equal_share, clock.flips) == ("pre", 61 + CONTEXT, 1, 0)
    assert 0 < clock.boundaries < clock.decisions
    assert clock.smallest_margin is not None
    assert 2 * clock.largest_error < clock.smallest_margin
    assert clock.too_close == ()
    assert "no token is too close to call" in str(clock)
    kept = msgspec.json.decode((bundle.path / "reports" / "verify.json").read_bytes(), type=VerifyReport)
    assert kept.clocks == report.clocks


def test_values_of_another_model(bundle: Bundle, source: Deciding) -> None:
    """They decide otherwise, and no rounding does that."""
    other = deciding(source.fading is not None)
    with torch.no_grad():
        other.ends.bias += 0.3
    failed = [check.name for check in verify(bundle, other).checks if check.where is not None]
    assert 'boundary values of stage "pre"' in failed


def test_a_model_of_another_threshold(bundle: Bundle, source: Deciding, tmp_path: Path) -> None:
    """It fires by other rules."""
    other = Deciding(source.fading is not None, threshold=0.31).eval()
    message = r"decides otherwise when stages fire than .*: threshold 0\.31, expected 0\.3; give .* it was converted with, or"
    with pytest.raises(EquivalenceError, match=message):
        verify(bundle, other)
    converted = convert_model(other, tmp_path / "other.bundle", tokenizer="bytes")
    with pytest.raises(ConfigError, match=r"decides otherwise .*: threshold 0\.31, expected 0\.3; compare bundles of one rule"):
        compare(bundle, other=converted)


def test_rules_in_words() -> None:
    """What differs, by name; or all there is."""
    one, other = ClockSpec(stage="a", threshold=1.0), ClockSpec(stage="a", threshold=2.0, most=4)
    assert differing_rules([one], [other]) == "threshold 1.0, expected 2.0, most None, expected 4"
    assert differing_rules([], [other]).startswith("got [], expected [ClockSpec(")


def test_a_flip_within_rounding_is_a_tie() -> None:
    """It is reported, and nothing fails."""
    found = judged([0.1, 0.500001, 0.9], [0.1, 0.499999, 0.9])
    assert [check.where for check in found.checks()] == [None, None]
    (clock,) = found.report()
    (call,) = clock.too_close
    assert (call.token, call.sequence, call.flipped, clock.flips) == (1, "the text", True, 1)
    assert clock.equal_share == 0.5
    assert "too close to call, token 1 (the text, margin" in str(clock)


def test_a_decision_that_is_close_but_not_turned() -> None:
    """Is too close to call all the same."""
    (clock,) = judged([0.50001, 0.9], [0.50001, 0.90001]).report()
    assert [(call.token, call.flipped) for call in clock.too_close] == [(0, False)]
    assert clock.smallest_margin == pytest.approx(1e-5, rel=0.01)


def test_a_flip_that_no_rounding_explains() -> None:
    """A rule that is not followed is an error of the system: the values agree, the boundaries do not."""
    right = decisions([0.1, 0.7, 0.9])
    wrong = Decisions(right.tokens, right.values, right.made, np.array([False, False, True]))
    found = BoundaryChecks(SPECS)
    found.add("the run", "the text", {CLOCK: wrong}, {CLOCK: right}, {CLOCK: right})
    boundaries = found.checks()[-1]
    assert boundaries.where == "the run, token 1: no boundary of the value 0.7, threshold 0.5"
    with pytest.raises(EquivalenceError, match=r'boundaries of stage "pre" are not PyTorch\'s: .*this is no rounding'):
        VerifyReport(
            bundle="b",
            checkpoint="c",
            tokens=3,
            batch=1,
            checks=(boundaries,),
            coverage=SimpleNamespace(),  # type: ignore[arg-type]
        ).require_equal()


def test_a_boundary_that_moves_by_itself() -> None:
    """On its own schedule a system decides otherwise where its values, on PyTorch's, do not."""
    where = judged([0.1, 0.7, 0.9], [0.1, 0.7, 0.9], own=[0.1, 0.2, 0.9]).checks()[-1].where
    assert where is not None
    assert where.startswith("the run, own schedule, token 1")


def test_what_follows_from_a_tie_is_charged_to_it() -> None:
    """The rows of an inner clock are the outer one's boundaries: where those moved, it has others, and that is no error."""
    inner = ClockSpec(stage="middle", threshold=0.5)
    specs = [*SPECS, msgspec.structs.replace(SPECS[0], name="inner", clock=inner)]
    outer, moved = decisions([0.9, 0.500001, 0.9]), decisions([0.9, 0.499999, 0.9])
    followed = decisions([0.9, 0.499999, 0.9], outer.made.tolist())
    right, other = decisions([0.9, 0.1, 0.9]), decisions([0.9, 0.9])
    own = Decisions(moved.ends, other.values, other.made, other.wanted)
    found = BoundaryChecks(specs)
    found.add("the run", "the text", {CLOCK: followed, inner: right}, {CLOCK: moved, inner: own}, {CLOCK: outer, inner: right})
    assert [check.where for check in found.checks()] == [None] * 4
    assert [clock.flips for clock in found.report()] == [1, 0]


def test_a_full_forward_that_decides_a_tie_otherwise(source: Deciding, bundle: Bundle) -> None:
    """Its stages are taken to fire as it did."""
    ids = np.random.default_rng(3).integers(0, VOCABULARY, (1, 40))
    with Session([TorchEngine(stage) for stage in source.stages()], bundle.manifest.model, 1, 40) as session:
        session.advance(ids)
        (found,) = session.schedule.values()
    row = int(np.argmin(np.abs(found.values - source.threshold)))
    tied = float(found.values[row])
    above, below = (deciding(source.fading is not None) for _ in range(2))
    above.threshold, below.threshold = tied, float(np.nextafter(np.float32(tied), np.float32(-np.inf)))
    with torch.no_grad():
        logits = below(torch.from_numpy(ids)).numpy()
        assert not np.allclose(logits, above(torch.from_numpy(ids)).numpy(), atol=1e-3)
    engines = [TorchEngine(stage) for stage in above.stages()]
    (turned,) = schedule_of(engines, bundle.manifest.model, ids, logits).values()
    assert (turned.made[row], turned.wanted[row]) == (True, False)


def test_compare_runs_both_by_one_schedule_and_then_by_their_own(bundle: Bundle) -> None:
    """Stages and the system are held to the tolerance on the reference's; where it fires otherwise is counted."""
    report = compare(bundle, ("portable", "cpu"))
    report.require_equal()
    assert [(row.name, row.flips) for row in report.system] == [("the system", None), ("the system, own schedule", 0)] * 2
    firings = {row.name: row.firings for row in report.stages}
    assert 0 < firings["middle"] < firings["pre"] == 61


def test_what_stages_read_is_saved_with_where_they_read_it(bundle: Bundle, tmp_path: Path) -> None:
    """Spans and newest rows are inputs of the graphs as any other."""
    pytest.importorskip("polygraphy")
    commands = save_inputs(bundle, tmp_path / "saved")
    assert sum("/middle." in line for line in commands) == 2
    text = (tmp_path / "saved" / "middle.prefill.inputs.json").read_text()
    assert all(name in text for name in ("window.lengths", "window.within", "input_ids.index"))


def test_the_threshold_is_of_the_bundle(bundle: Bundle) -> None:
    """The manifest has it."""
    assert {entry.spec.clock.threshold for entry in open_bundle(bundle.path).manifest.stages if entry.spec.clock} == {0.3}
