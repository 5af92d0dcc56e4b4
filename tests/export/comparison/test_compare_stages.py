"""`compare` charges every error to the stage that makes it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from broken_bundles import with_wrong_weight
from precisions import PrecisionZoo, needs_opset_24
from specimens import Zoo

from foveal import BundleError, ConfigError, EquivalenceError
from foveal.export import build, compare
from foveal.export.comparison.errors import Comparison
from foveal.precision import Plan

STAGES = ("1.pre", "2.pre", "8", "2.post", "1.post")


@needs_opset_24
def test_a_target_that_computes_what_the_graphs_say(zoo: Zoo) -> None:
    """Every stage in both ways of decoding, in dataflow order, and the system; two periods and a few tokens of random ids."""
    report = compare(zoo["nested"].bundle, ["portable", "cpu"])
    report.require_equal()
    assert [found.name for found in report.stages] == [name for name in STAGES for _ in range(2)]
    assert {found.decoded for found in report.system} == {"token by token", "random chunks"}
    assert (report.tokens, report.tolerance, report.first_failure) == (61, 1e-4, None)
    fired = {found.name: found.firings for found in report.stages}
    assert fired == {"1.pre": 61, "2.pre": 31, "8": 8, "2.post": 31, "1.post": 61}
    assert all(0 < found.mean_error < found.max_error < 1e-5 for found in (*report.stages, *report.system))


@pytest.mark.parametrize("stage", STAGES)
def test_one_wrong_engine(stage: str, zoo: Zoo, tmp_path: Path) -> None:
    """That stage is named and no other, before it or after, though the system differs too."""
    good = zoo["nested"].bundle
    wrong = with_wrong_weight(good, good.manifest.engines["cpu"][stage], tmp_path / "wrong")
    report = compare(good, other=wrong)
    assert {found.name for found in report.stages if found.where is not None} == {stage}
    assert all(found.max_error == 0 for found in report.stages if found.name != stage)
    assert all(found.where is not None for found in report.system)
    assert report.first_failure is not None
    assert report.first_failure.where == "token 0, row 0"
    message = (
        rf'wrong \(fp32, cpu\) differs from .*nested \(fp32, cpu\): stage "{stage}", token 0, row 0, token by token; '
        rf"largest error \d\.\de.\d\d of the largest value, expected at most 1e-04; look inside with --stage {stage} --cuts"
    )
    with pytest.raises(EquivalenceError, match=message):
        report.require_equal()


def test_a_wrong_engine_of_another_target(zoo: Zoo, tmp_path: Path) -> None:
    """Resident engines on ONNX Runtime, as they would run on a GPU; the reference is another target's."""
    shutil.copytree(zoo["nested"].bundle.path, tmp_path / "good", ignore=shutil.ignore_patterns("reports"))
    good = build(tmp_path / "good", target="cuda")
    report = compare(good, ["cpu", "cuda"], provider="cpu")
    report.require_equal()
    assert report.other == f"{good.path} (fp32, cuda on cpu)"
    assert all(found.max_error < 1e-5 for found in (*report.stages, *report.system))
    wrong = with_wrong_weight(good, "engines/cuda/8.onnx", tmp_path / "wrong")
    report = compare(wrong, ["cpu", "cuda"], provider="cpu")
    assert {found.name for found in report.stages if found.where is not None} == {"8"}
    assert all(found.max_error < 1e-5 for found in report.stages if found.name != "8")
    assert all(found.where is not None for found in report.system)


def test_places_count_in_tokens_and_rows() -> None:
    """The first place is the first that is beyond what is allowed; what is not a number always is."""
    found = Comparison("x", 0.1, magnitude=10.0)
    expected = np.zeros((4, 1, 2))
    found.add(expected + 1.0, expected, "row {}".format, axis=0)
    assert (found.where, found.largest, found.mean, found.values) == (None, 1.0, 1.0, 8)
    got = expected.copy()
    got[2, 0, 1], got[3, 0, 0] = 1.1, np.inf
    found.add(got, expected, "row {}".format, axis=0)
    found.add(expected + 5, expected, "later row {}".format, axis=0)
    assert (found.where, found.largest) == ("row 2", np.inf)
    for wrong in (np.nan, np.inf):
        found = Comparison("x", 0.1)
        found.add(np.full((1, 1), wrong), np.full((1, 1), np.inf), "row {}".format, axis=0)
        assert found.where == "row 0"


def test_other_precisions_differ_on_purpose(precise: PrecisionZoo) -> None:
    """Without a tolerance nothing fails; text may be what is decoded."""
    specimen = precise["resampled"]
    small = specimen.build(Plan(default="w8", cache="fp32"))
    report = compare(specimen.full, other=small, texts=[specimen.text], tokens=40)
    report.require_equal()
    assert (report.tolerance, report.tokens) == (None, 40)
    assert all(0 < found.mean_error < found.max_error < 0.2 for found in report.stages)
    strict = compare(specimen.full, other=small, texts=[specimen.text], tokens=40, tolerance=1e-6)
    assert strict.first_failure is not None
    assert strict.first_failure.name == "1.pre"
    assert [found.max_error for found in strict.stages] == [found.max_error for found in report.stages]


@needs_opset_24
@pytest.mark.parametrize("precision", ["w8", "w4", "fp16"])
def test_engines_of_other_precisions_against_what_their_graphs_say(precision: str, precise: PrecisionZoo) -> None:
    """The graphs run node by node, so that only what kernels round on their own account is left."""
    small = precise["resampled"].build(Plan(default=precision, cache="fp32"))
    report = compare(small, ["portable", "cpu"])
    assert max(found.max_error for found in report.stages) < 0.02


def test_what_can_t_be_compared(zoo: Zoo, tmp_path: Path) -> None:
    """Each with what was got and what to do."""
    bundle = zoo["nested"].bundle
    for arguments, message in (
        ({"targets": ["cpu"]}, r"got one bundle and 1 target\(s\), expected two systems: give two targets, the first of which"),
        ({"targets": ["cpu", "cpu", "cpu"]}, r"got one bundle and 3 target\(s\), expected two systems"),
        ({"targets": ["cpu", "cpu"]}, "would be compared with itself; give another target, or --other BUNDLE"),
        ({"targets": ["cpu", "cuda"]}, "has no engines for cuda, only for: cpu; add them: foveal build"),
        ({"targets": ["cpu", "tpu"]}, 'unknown target "tpu"; expected one of cpu'),
        ({"other": zoo["vanilla"].bundle}, r"vanilla is of another model than .*nested: got hierarchy, vocabulary and width"),
        ({"targets": ["portable", "cpu"], "tokens": 15}, "got 15 tokens, expected 16 to 96: two periods of 8 tokens, and the"),
        ({"targets": ["portable", "cpu"], "tokens": 97}, "got 97 tokens, expected 16 to 96"),
        ({"targets": ["portable", "cpu"], "tokens": 0}, "got 0 tokens, expected 16 to 96"),
        ({"targets": ["portable", "cpu"], "tolerance": 0.0}, r"the tolerance is 0\.0, expected a positive share"),
        ({"targets": ["portable", "cpu"], "provider": "cpu"}, 'provider "cpu" is for target cuda, got targets portable, cpu;'),
        ({"targets": ["portable", "cpu"], "texts": ["x.txt"]}, "has no tokenizer, so it can't read text"),
    ):
        with pytest.raises(ConfigError, match=message):
            compare(bundle, **arguments)
    with pytest.raises(BundleError, match="is not a bundle"):
        compare(bundle, other=tmp_path)


def test_too_little_text(precise: PrecisionZoo, tmp_path: Path) -> None:
    """It would not fire everything twice."""
    full, few = precise["resampled"].full, tmp_path / "few.txt"
    few.write_text("abc")
    with pytest.raises(ConfigError, match="the text has 3 tokens, expected at least 4; give more text"):
        compare(full, ["portable", "cpu"], texts=[few])
    few.write_text("the sea")
    assert compare(full, ["portable", "cpu"], texts=[few]).tokens == 7
    with pytest.raises(ConfigError, match="the text has 7 tokens, expected at least 20; give more text"):
        compare(full, ["portable", "cpu"], texts=[few], tokens=20)
