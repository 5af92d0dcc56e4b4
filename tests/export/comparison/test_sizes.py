"""A stage of the user's own is exported for every size, or not at all: one line says what is wrong, and where."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from own_models import Gist, GistScale
from specimens import random_model
from torch import Tensor

from foveal import ExportError
from foveal.errors import reason_of
from foveal.export import convert_model
from foveal.export.comparison import sizes
from foveal.export.comparison.probe import Surroundings
from foveal.export.comparison.sizes import check_module, check_sizes
from foveal.export.graphs.dialect import MODERN
from foveal.export.graphs.export_stage import export_stage
from foveal.models import Stage

HERE = r"at .*test_sizes\.py:\d+ "


def coarse(own: Any = None, give: Any = None, write: bool = True) -> Any:
    """The class of a coarse stage that sums up ids by `own(self, ids)`, and makes what it returns by `give`."""

    class Coarse(GistScale):  # type: ignore[misc]
        def forward(self, inputs: list[Tensor], state: Any, logit_rows: Tensor | None = None) -> Any:
            mine = self.own(inputs[0]) if own is None else own(self, inputs[0])
            first = state.positions(mine.shape[1])[:, 0]
            before = state.read("total")[:, 0]
            index = (first - 1).clamp(min=0).expand(before.shape[0])[:, None, None].expand(-1, 1, before.shape[2])
            total = before.gather(1, index) * (first > 0)[:, None, None] + mine.cumsum(1)
            if write:
                state.write("total", total[:, None], first)
            rows = total.repeat_interleave(8, dim=1)
            return rows if give is None else give(rows)

    return Coarse


def exported(stage_class: Any, directory: Path) -> None:
    """Everything that a conversion does with the stage before it is called exported."""
    stages = Gist(stage_class).stages()
    stage: Stage = stages[0]
    around = Surroundings(41, [other.spec for other in stages], 512)
    check_module(stage, around)
    export_stage(stage, directory / "gist.onnx", MODERN)
    check_sizes(stage, directory / "gist.onnx", around)


def in_a_loop(self: Any, ids: Tensor) -> Tensor:
    groups = [self.table(ids[:, 8 * i : 8 * i + 8]).mean(1) for i in range(ids.shape[1] // 8)]
    return torch.tanh(self.mix(torch.stack(groups, 1)))


def by_a_number(self: Any, ids: Tensor) -> Tensor:
    return torch.tanh(self.mix(self.table(ids).view(ids.shape[0], int(ids.shape[1]) // 8, 8, -1).mean(2)))


def by_a_choice(self: Any, ids: Tensor) -> Tensor:
    own = GistScale.own(self, ids)
    return own * 2 if ids.shape[1] > 16 else own


@pytest.mark.parametrize(
    ("own", "what", "line"),
    [
        (in_a_loop, "fails: .*invalid dimensions for output: hidden", r"groups = .* for i in range\("),
        (by_a_choice, r"gives other values than its module: token 7, tensor hidden differs by", r"return own \* 2 if"),
        (by_a_number, "fails: .*invalid dimensions for output: hidden", r"return torch\.tanh\(.*int\(ids"),
    ],
)
def test_a_size_that_is_fixed(tmp_path: Path, own: Any, what: str, line: str) -> None:
    """torch makes it a constant and says nothing; the line that does it is named."""
    text = (
        f'^stage "gist" could not be exported for all sizes: run for 1 firing of 1 sequence, its graph {what}.*; '
        rf"the module makes a number or a choice of a size, {HERE}\(`{line}.*`\), which the graph can only do as it was traced"
    )
    with pytest.raises(ExportError, match=text):
        exported(coarse(own), tmp_path)


def by_a_value(self: Any, ids: Tensor) -> Tensor:
    own = GistScale.own(self, ids)
    return own + 1 if ids.sum() > 3 else own


def test_a_choice_by_values(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """torch prints the graph so far, and six lines of advice; the reason is one."""
    text = (
        rf'^stage "gist" could not be exported: Python code decides by the values of a tensor, .*, {HERE}\(`return own \+ 1 if'
    )
    with pytest.raises(ExportError, match=text) as caught:
        exported(coarse(by_a_value), tmp_path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def in_place(self: Any, ids: Tensor) -> Tensor:
    ids.add_(1)
    return GistScale.own(self, ids - 1)


def of_two(self: Any, ids: Tensor) -> Tensor:
    return GistScale.own(self, ids).reshape(2, -1, 16)


def asserts(self: Any, ids: Tensor) -> Tensor:
    assert ids.shape[1] == 24
    return GistScale.own(self, ids)


def fails(self: Any, ids: Tensor) -> Tensor:
    raise KeyError("the table")


@pytest.mark.parametrize(
    ("stage", "what"),
    [
        (coarse(of_two), rf"fails: shape '\[2, -1, 16\]' is invalid for input of size 16, {HERE}\(`return GistScale"),
        (coarse(asserts), rf"fails: AssertionError.*, {HERE}\(`assert ids\.shape\[1\] == 24`\)"),
        (coarse(fails), rf"fails: KeyError: 'the table', {HERE}\(`raise KeyError"),
        (coarse(in_place), "writes into its input input_ids, which is not its own; let it work on a copy"),
        (coarse(give=lambda rows: (rows, rows)), r"gives a tuple, expected one tensor of shape \[1, 8, 16\]"),
        (coarse(give=lambda rows: None), "gives a NoneType, expected one tensor"),
        (coarse(give=lambda rows: rows[:, ::8]), r"gives shape \[1, 1, 16\], expected \[1, 8, 16\], .*output_rows=8, width=16"),
        (coarse(give=lambda rows: rows[..., 1:]), r"gives shape \[1, 8, 15\], expected \[1, 8, 16\]"),
        (coarse(give=Tensor.half), r"gives float16, expected float32; convert the model with \.float\(\)"),
        (coarse(give=lambda rows: rows / 0), "gives values that are infinite or NaN, of inputs that are neither"),
        (coarse(give=Tensor.double), "gives float64, expected float32"),
    ],
)
def test_a_module_that_is_not_what_it_declares(tmp_path: Path, stage: Any, what: str) -> None:
    """Found before anything is traced, where a line of the user's can be named."""
    with pytest.raises(ExportError, match=f'^stage "gist", run for 1 firing of 1 sequence, {what}'):
        convert_model(Gist(stage), tmp_path / "b")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("give", [lambda rows: torch.dropout(rows, 0.5, True), lambda rows: rows + torch.randn_like(rows)])
def test_a_module_that_draws_random_numbers(tmp_path: Path, give: Any) -> None:
    """It would be held to values that it does not give again."""
    with pytest.raises(ExportError, match=r'^stage "gist", run twice for 1 firing .*, gives other values the second time'):
        convert_model(Gist(coarse(give=give)), tmp_path / "b")


def row_by_row(self: Any, ids: Tensor) -> Tensor:
    groups = self.table(ids).unflatten(1, (-1, 8)).mean(2).unbind(1)
    return torch.tanh(self.mix(torch.stack(groups, 1)))


def test_rows_one_by_one(tmp_path: Path) -> None:
    """torch names a range of its own."""
    with pytest.raises(ExportError, match='^stage "gist" could not be exported: Python code goes through rows one by one'):
        exported(coarse(row_by_row), tmp_path)


@pytest.mark.parametrize("context", [1, 4, 7])
def test_a_context_that_is_short(context: int) -> None:
    """A model is not run where it has no positions."""
    stages = random_model("1@1 1@4 1@1", max_positions=context).stages()
    for stage in stages:
        check_module(stage, Surroundings(41, [other.spec for other in stages], context))


def test_a_cache_that_is_not_written(tmp_path: Path) -> None:
    """Nothing would be remembered."""
    with pytest.raises(ExportError, match='^stage "gist" could not be exported: the stage declares caches .* not write: total'):
        exported(coarse(write=False), tmp_path)


def test_without_onnxruntime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A graph can't be run then, and that is said. One that is too old runs the CPU's form of it."""
    stages = Gist().stages()
    around = Surroundings(41, [other.spec for other in stages], 512)
    export_stage(stages[0], tmp_path / "gist.onnx", MODERN)
    with monkeypatch.context() as old:
        old.setattr(onnxruntime, "__version__", "1.23.2")
        check_sizes(stages[0], tmp_path / "gist.onnx", around)
    assert not caplog.records

    def missing() -> Any:
        raise sizes.BackendUnavailable("onnxruntime can't be imported")

    monkeypatch.setattr(sizes, "import_onnxruntime", missing)
    with caplog.at_level(logging.WARNING):
        check_sizes(stages[0], tmp_path / "gist.onnx", around)
    assert 'stage "gist" was not run at other sizes' in caplog.text


class NoStages(Gist):
    """Whose author is not done yet."""

    def stages(self) -> Any:
        return self.coarse.missing


def test_a_model_that_can_not_say_what_it_is(tmp_path: Path) -> None:
    """Its method and line are named."""
    with pytest.raises(ExportError, match=rf"NoStages\.stages\(\) failed: .*'missing', {HERE}.*; see docs/your-own-model\.md"):
        convert_model(NoStages(), tmp_path / "b")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("\x1b[31mNo such op\x1b[0m\nmore", "No such op"),
        ("# Summary\n\nNext steps:\n* try again\nthe reason", "the reason"),
        ("Failed to export the model with torch.export. \x1b[96mThis is step 1/3\x1b[0m\nNext steps:\n...", "..."),
        ("", "RuntimeError"),
    ],
)
def test_the_reason_of_an_error_of_another_library(text: str, reason: str) -> None:
    """The first line that says something, without colours; of the innermost cause."""
    assert reason_of(RuntimeError(text)) == reason
    outer = ValueError("outer")
    outer.__cause__ = RuntimeError(text)
    assert reason_of(outer) == reason
    assert reason_of(KeyError("x")) == "KeyError: 'x'"
