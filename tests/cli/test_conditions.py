"""An option that does nothing in a combination is refused in one sentence, not ignored."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from specimens import Zoo
from typer.testing import CliRunner

from foveal import ConfigError
from foveal.cli import app

RUNNER = CliRunner()
B, T = "BUNDLE", "TEXT"
# The command as it is given, the option that then does nothing, and what it takes.
TABLE = [
    *[
        (["bench", B, option, value], option, "--hierarchy")
        for option, value in (
            ("--dim", "64"),
            ("--heads", "2"),
            ("--ff-dim", "8"),
            ("--vocab-size", "9"),
            ("--precision", "w8"),
        )
    ],
    (["bench", B, "--eager"], "--eager", "--hierarchy"),
    (["bench", B, "--calibration", T], "--calibration", "--hierarchy and a --precision other than fp32"),
    (["bench", "--hierarchy", "1@1", "--calibration", T], "--calibration", "--hierarchy and a --precision other than fp32"),
    (["bench", B, "--provider", "cpu"], "--provider", "--target cuda"),
    (["inspect", B, "--profile"], "--profile", "--layers"),
    (["inspect", B, "--layers", "--json"], "--layers", "a table, which --json is not"),
    *[
        (["calibrate", B, "--text", T, option, *value], option, "--budget")
        for option, value in (("--plan", ["p.json"]), ("--plot", ["p.svg"]), ("--head", []), ("--no-head", []))
    ],
    (
        ["calibrate", B, "--text", T, "--method", "minmax", "--percentile", "99"],
        "--percentile",
        "--method percentile",
    ),
    (["convert", T, "OUT", "--calibration", T], "--calibration", "a --precision other than fp32, or a --plan"),
    (["build", B, "--calibration", T], "--calibration", "a bundle to write"),
    (["build", B, "OUT", "--precision", "w8", "--max-tokens", "9"], "--max-tokens", "--calibration"),
    (["build", B, "OUT", "--target", "cuda", "--cache", "fp32"], "--cache", "--target cpu"),
]


@pytest.mark.parametrize(("given", "option", "takes"), TABLE, ids=[" ".join(given) for given, _, _ in TABLE])
def test_an_option_that_does_nothing(given: list[str], option: str, takes: str, zoo: Zoo, tmp_path: Path) -> None:
    """It is named, and what it takes; nothing is read or written."""
    text = tmp_path / "t.txt"
    text.write_text("the sea")
    places = {B: str(zoo["vanilla"].bundle.path), T: str(text), "OUT": str(tmp_path / "out")}
    done = RUNNER.invoke(app, [places.get(part, part) for part in given])
    assert isinstance(done.exception, ConfigError)
    assert done.exception.exit_code == 1
    assert re.match(
        f"^{option} does nothing here: it takes {re.escape(takes)}.*; change that, or leave {option} out$", str(done.exception)
    )
    assert [path.name for path in tmp_path.iterdir()] == ["t.txt"]
