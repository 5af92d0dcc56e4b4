"""Stages whose firings the data decides: rows at places that the host tells, spans of any length, states that are replaced."""

from __future__ import annotations

import pytest
from combinations import but_deep
from grouping_model import grouping_model
from precisions import CACHE, Precise, write_text
from store import Store
from tensorrt_builds import NARROW, Looked, assert_sound, look_at, types_read

from foveal import build, open_bundle
from foveal.bundle import Bundle
from foveal.calibration.calibrate import calibrate
from foveal.calibration.settings import CalibrationSettings
from foveal.contract import Limits, StageSpec, most_firings, resident_contract_of
from foveal.export import convert_model
from foveal.export.tensorrt.profiles import Bounds, profiles_of, shapes
from foveal.precision import PRECISIONS, Plan

RTX = "tensorrt-rtx"
BUILDS = [(dialect, precision) for dialect in ("modern", "classic") for precision in PRECISIONS]


@pytest.fixture(scope="session")
def precise(store: Store) -> Precise:
    """A model of bytes, in every precision."""
    model, settings = grouping_model(vocab_size=128), CalibrationSettings(max_tokens=600)
    made = store.once("precise/grouping", lambda directory: convert_model(model, directory / "full", tokenizer="bytes"))
    text = write_text(made / "text.txt")
    full = open_bundle(made / "full")
    return Precise(model, full, calibrate(full, [text], settings, threads=1), text)  # type: ignore[arg-type]


def stages(bundle: Bundle, dialect: str = "modern") -> list[Looked]:
    """Fine, coarse, last."""
    return [look_at(bundle, index, dialect) for index in range(3)]


@pytest.mark.parametrize(
    ("dialect", "precision"), but_deep([("modern", "fp32"), ("classic", "int8"), ("modern", "w4")], BUILDS)
)
def test_every_precision_and_dialect(dialect: str, precision: str, precise: Precise) -> None:
    """Built without complaint, all inputs used, products as they were written, in both profiles."""
    bundle = precise.build(Plan(default=precision, cache=CACHE))
    for stage in stages(bundle, dialect):
        assert_sound(stage)
        assert types_read(stage.built.layers.kernels) <= {"Float"} | NARROW[precision]


def test_rows_and_keys_are_updated_in_place(precise: Precise) -> None:
    """The state that a call replaces is not: it is written to other memory, and copied back."""
    for stage in stages(precise.full):
        spec, kinds = stage.entry.spec, stage.built.layers.network
        assert kinds.get("KV_CACHE_UPDATE", 0) == 2 * spec.layers + (spec.output == "hidden")
        assert "SCATTER" not in kinds


def test_engines_are_added_to_a_bundle(precise: Precise, tmp_path: object) -> None:
    """As those of other models are."""
    made = build(precise.full, tmp_path / "b", "fp32", RTX)  # type: ignore[operator]
    assert {product.obtained for entry in made.manifest.stages for product in made.sidecar(RTX, entry.spec.name).products} == {
        "fp32"
    }


class TestShapes:
    """What the letters of spans may be."""

    LIMITS, SIZES = Limits(batch=2, capacity=96, prefill=64), {"S": 97, "R": 200, "R.fine": 96}

    def spec(self, precise: Precise, stage: str) -> StageSpec:
        """Of one of the stages."""
        return next(entry.spec for entry in precise.full.manifest.stages if entry.spec.name == stage)

    def test_one_firing_has_room_for_any_span(self, precise: Precise) -> None:
        """And usually reads as many rows as there are tokens to a firing."""
        decode, _ = profiles_of(self.spec(precise, "coarse"), self.LIMITS, self.SIZES)
        assert (decode.rows, decode.block, decode.longest) == (Bounds(1, 1, 1), Bounds(1, 2, 96), Bounds(1, 2, 96))

    def test_several_have_room_for_bounded_ones(self, precise: Precise) -> None:
        """Each is gathered as if it were as long as the longest."""
        _, prefill = profiles_of(self.spec(precise, "coarse"), self.LIMITS, self.SIZES)
        assert (prefill.rows, prefill.block, prefill.longest) == (Bounds(1, 64, 64), Bounds(1, 64, 64), Bounds(1, 4, 32))

    def test_every_input_has_its_shapes(self, precise: Precise) -> None:
        """Those that say where spans are, too."""
        spec = self.spec(precise, "coarse")
        found = shapes(resident_contract_of(spec), self.SIZES, profiles_of(spec, self.LIMITS, self.SIZES)[0])
        assert found["places.window"] == ((1, 1), (2, 2), (2, 96))
        assert found["window.first"] == ((1,), (1,), (1,))
        assert found["window.within"] == ((1,), (2,), (96,))
        assert found["window.lengths"] == ((1, 1), (2, 1), (2, 1))
        assert found["rows.fine"][2] == (2, 1, 96, 33)

    def test_a_state_is_replaced_by_few_firings_at_a_time(self, precise: Precise) -> None:
        """What a call computes grows with their square."""
        assert most_firings(self.spec(precise, "fine"), Limits(capacity=900, prefill=512)) == 64
        assert most_firings(self.spec(precise, "coarse"), Limits(capacity=900, prefill=512)) == 128
        assert most_firings(self.spec(precise, "last"), Limits(capacity=900, prefill=512)) == 512
