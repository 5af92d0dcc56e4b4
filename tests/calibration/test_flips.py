"""Where the data decides when stages fire: how near decisions are, and what the ones cost that rounding turns."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from deciding_model import deciding
from hypothesis import given
from hypothesis import strategies as st
from precisions import write_text
from specimens import Specimen

import foveal
from foveal.bundle import Bundle
from foveal.calibration import Quality, evaluate
from foveal.calibration.calibrate import calibrate
from foveal.calibration.flips import Margins
from foveal.errors import CalibrationError
from foveal.export import convert_model
from foveal.precision import Plan


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A model that decides, with a recurrent state, in fp32."""
    return convert_model(deciding(recurrent=True), tmp_path_factory.mktemp("flips") / "b.bundle", tokenizer="bytes")


@pytest.fixture(scope="module")
def narrow(source: Bundle, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same in int8."""
    return foveal.build(source, tmp_path_factory.mktemp("flips") / "int8.bundle", precision="int8", calibration=[text])


@pytest.fixture(scope="module")
def found(source: Bundle, narrow: Bundle, text: Path) -> Quality:
    """How far the one is from the other."""
    return evaluate(narrow, [text], reference=source, threads=1)


@given(st.lists(st.floats(0, 10, width=32), min_size=1, max_size=200))
def test_quantiles_rise_from_the_smallest_margin(margins: list[float]) -> None:
    """And the smallest is one of the margins."""
    found = Margins.of(np.array(margins, np.float32))
    assert found is not None
    assert found.smallest == np.float32(min(margins))
    assert [*found.quantiles.values()] == sorted(found.quantiles.values())
    assert found.density > 0


def test_the_density_of_values_that_are_even() -> None:
    """Over a unit on either side of the threshold there is half of them in a unit."""
    found = Margins.of(np.abs(np.linspace(-1, 1, 10_001)).astype(np.float32))
    assert found is not None
    assert found.density == pytest.approx(0.5, rel=0.02)


def test_there_are_no_margins_where_nothing_is_decided() -> None:
    """Rows that are boundaries whatever they say."""
    assert Margins.of(np.full(3, np.inf, np.float32)) is None


def test_alone_a_bundle_says_how_often_it_fires_and_how_near(source: Bundle, text: Path) -> None:
    """There is nothing to flip against."""
    found = evaluate(source, [text], threads=1, limit=5)
    (clock,) = found.clocks
    assert (clock.decided_by, clock.fires, clock.threshold, clock.tokens) == ("pre", ("middle",), 0.3, found.tokens + 5)
    assert clock.tokens_per_boundary == clock.tokens / clock.boundaries
    assert clock.margins is not None
    assert 0 < clock.margins.smallest < clock.margins.quantiles["50.0%"]
    assert (clock.flips, clock.moved, clock.equal_share, clock.value_error, found.forced) == (None,) * 5


def test_a_bundle_against_itself(source: Bundle, text: Path) -> None:
    """Nothing flips, and both schedules are one."""
    found = evaluate(source, [text], reference=source, threads=1, limit=3)
    (clock,) = found.clocks
    assert (clock.flips, clock.moved, clock.equal_share, clock.value_error) == (0, 0, 1, 0)
    assert found.forced is not None
    assert (found.forced.kl_nats, found.forced.bits_per_byte_change) == (0, 0)


def test_boundaries_that_move_are_most_of_what_int8_loses(found: Quality) -> None:
    """On the schedule of fp32 little is left of the divergence; flips are about as many as density and error say."""
    assert found.forced is not None
    assert found.kl_nats is not None
    assert found.forced.kl_nats < found.kl_nats / 10
    (clock,) = found.clocks
    assert clock.flips is not None
    assert clock.flips > 0
    assert clock.moved is not None
    assert clock.equal_share is not None
    assert 0.9 < clock.equal_share < 1
    assert clock.margins is not None
    assert clock.value_error is not None
    assert clock.flips_per_token is not None
    assert 1 / 3 < clock.flips_per_token / (clock.margins.density * clock.value_error) < 3


def test_the_figures_as_json(found: Quality) -> None:
    """All of them."""
    assert msgspec.json.decode(msgspec.json.encode(found), type=Quality) == found


def test_a_reference_that_decides_by_another_rule(source: Bundle, narrow: Bundle, text: Path) -> None:
    """Its schedule can't be followed: there is a distance, and no forced one."""
    stages = []
    for entry in source.manifest.stages:
        clock = entry.spec.clock
        other = None if clock is None else msgspec.structs.replace(clock, threshold=0.4)
        stages.append(msgspec.structs.replace(entry, spec=msgspec.structs.replace(entry.spec, clock=other)))
    reference = Bundle(source.path, msgspec.structs.replace(source.manifest, stages=tuple(stages)))
    found = evaluate(narrow, [text], reference=reference, threads=1, limit=2)
    assert found.kl_nats is not None
    assert found.forced is None
    assert found.clocks[0].flips is None


def test_models_of_fixed_strides_decide_nothing(nested: Specimen, text: Path) -> None:
    """Nothing of this is there."""
    found = evaluate(nested.bundle, [text], reference=nested.bundle, threads=1, limit=2)
    assert (found.clocks, found.forced) == ((), None)


def test_a_calibration_counts_the_rows_that_the_text_fired(source: Bundle, text: Path) -> None:
    """Of a stage whose firings the data decides; it has one phase."""
    found = calibrate(source, [text], threads=1)
    model, fired = foveal.load(source.path, threads=1), 0
    ids = np.frombuffer(text.read_bytes(), np.uint8).astype(np.int64)
    for start in range(0, len(ids), 96):
        session = model.session()
        session.advance(ids[None, start : start + 96])
        fired += session.fires["middle"]
    assert found.coverage["middle"] == {0: fired}
    assert found.coverage["pre"] == {0: len(ids)}


def test_too_little_text_for_a_stage_that_the_data_fires(source: Bundle, tmp_path: Path) -> None:
    """It says how much would do, by how often it fired."""
    text = write_text(tmp_path / "t.txt", 40)
    with pytest.raises(CalibrationError, match=r'stage "middle" saw \d+ rows in \d+ tokens, expected at least 128; give about'):
        calibrate(source, [text], threads=1)


@pytest.mark.parametrize("precision", ["fp16", "int8", "w8", "w4"])
def test_every_precision_keeps_spans_newest_rows_and_recurrent_state(
    source: Bundle, text: Path, tmp_path: Path, precision: str
) -> None:
    """On the schedule of fp32 it is near fp32; in one call as token by token."""
    built = foveal.build(source, tmp_path / "b", Plan(default=precision), calibration=[text])
    ids = np.frombuffer(text.read_bytes(), np.uint8).astype(np.int64)[None, :90]
    expected, model = foveal.load(source.path, threads=1).session(), foveal.load(built.path, threads=1)
    logits = expected.advance(ids)
    whole, singly = model.session(), model.session()
    for session in (whole, singly):
        session.follow(expected.schedule)
    assert np.abs(whole.advance(ids) - logits).max() < {"fp16": 2e-3, "int8": 0.15, "w8": 0.15, "w4": 1.0}[precision]
    tokens = np.concatenate([singly.advance(ids[:, place : place + 1]) for place in range(90)], axis=1)
    assert np.abs(tokens - logits).max() < {"fp16": 2e-3, "int8": 0.15, "w8": 0.15, "w4": 1.0}[precision]
    for session in (whole, singly):
        (decided,) = session.schedule.values()
        assert decided.values.dtype == np.float32
