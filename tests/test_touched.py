"""Which tests `make check` runs: found by place and by imports, nearest first, within a budget."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from imports import ROOT, Users
from touched import TESTS, choose, is_test, touched


@functools.cache
def users() -> Users:
    """Of this repository."""
    return Users()


def distances(*changed: str) -> dict[str, int]:
    """Of the tests that a change touches, by their paths in tests/."""
    found = touched([ROOT / name for name in changed], users())
    return {test.relative_to(TESTS).as_posix(): distance for test, distance in found.items()}


@pytest.mark.parametrize(
    ("changed", "test", "distance"),
    [
        ("export/building.py", "export/test_building.py", 0),  # of the same place
        ("export/cpu/products.py", "export/cpu/test_attention.py", 1),  # of the same folder
        ("export/conversion.py", "export/test_building.py", 1),  # which takes `convert` from the face of foveal.export
        ("runtime/session.py", "export/cpu/test_products.py", 1),  # which takes `Session` from that of foveal
        ("export/graphs/nodes.py", "export/cpu/test_products.py", 2),  # which imports what imports it
        ("cli/inspect.py", "cli/test_cli.py", 1),
        ("bundle.py", "test_bundle.py", 0),
        ("tests/export/test_building.py", "export/test_building.py", 0),
        ("tests/specimens.py", "runtime/test_resident.py", 1),  # what tests share
        ("tests/runtime/conftest.py", "runtime/test_resident.py", 1),
        ("tests/golden/s4_naive_attn/io.npz", "runtime/test_model.py", 1),  # which names it
        ("models/checkpoints/hourglass/config.json", "export/tensorrt/test_engines.py", 2),  # so does what it imports
        ("docs/engines.md", "docs/test_links.py", 1),
        ("README.md", "docs/test_links.py", 1),
        ("pyproject.toml", "test_layout.py", 1),
    ],
)
def test_how_far_a_test_is_from_a_change(changed: str, test: str, distance: int) -> None:
    """0: it is its own; 1: it names or imports it, or is its neighbour; more: through others."""
    assert distances(changed)[test] == distance


@pytest.mark.parametrize(
    ("changed", "test"),
    [
        ("cli/inspect.py", "export/test_building.py"),
        ("bench/claims/words.py", "runtime/test_resident.py"),
        ("docs/engines.md", "test_layout.py"),
        ("tests/runtime/conftest.py", "export/test_building.py"),
        ("tests/export/test_building.py", "export/test_conversion.py"),
    ],
)
def test_what_a_change_does_not_touch(changed: str, test: str) -> None:
    """Nothing leads from one to the other."""
    assert test in distances("errors.py")
    assert test not in distances(changed)


def test_what_is_gone_and_what_takes_a_gpu_touch_nothing() -> None:
    """There is no file of theirs to run."""
    assert distances("export/gone.py") == {}
    assert not is_test(TESTS / "gpu" / "test_state.py")
    assert not any(test.startswith("gpu/") for test in distances("errors.py"))


def test_every_test_is_touched_by_a_module_it_depends_on() -> None:
    """All but those of pages and of the tests' own tools depend on errors.py."""
    everything = {file.relative_to(TESTS).as_posix() for file in users().files if is_test(file)}
    assert {test.split("/")[0] for test in everything - set(distances("errors.py"))} <= {
        *("docs", "test_combinations.py", "test_store.py", "test_touched.py", "test_layout.py"),
    }


def test_the_budget_goes_to_the_nearest_and_among_equals_to_the_quickest() -> None:
    """Those at no distance are run whatever they take; times are those of the last run, or a guess."""
    a, b, c, d, e = (TESTS / f"test_{letter}.py" for letter in "abcde")
    seconds = {"tests/test_a.py": 90.0, "tests/test_b.py": 20.0, "tests/test_c.py": 1.0, "tests/test_e.py": 1.0}
    found = choose({e: 2, d: 1, c: 1, b: 1, a: 0}, seconds, budget=100)
    assert (found.chosen, found.left_out) == ([a, c, d], [b, e])
    assert choose({a: 0}, {}, budget=0).chosen == [a]
    slow, quick = TESTS / "runtime" / "test_resident.py", TESTS / "runtime" / "test_text.py"
    assert choose({slow: 1, quick: 1}, {}, budget=5) == ([quick], [slow])
    assert choose({Path(TESTS / "test_c.py"): 1}, seconds, budget=0.5).left_out == [c]
