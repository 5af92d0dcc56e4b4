"""`make gpu-check`: for whom each check runs, what it is given, and where its outcome and its figures go.

    pytest tests/gpu [--on SUBJECT]... [--report DIRECTORY] [-k EXPRESSION]

Without `--on`, all subjects that this machine has are checked, and the others skipped with the reason.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from gpu_outcomes import Outcomes, Recorder
from gpu_page import page_of, sentence_of
from gpu_report import GpuCheck
from gpu_subjects import SUBJECTS, Subject
from gpu_workshop import MODELS, Case, Contest, Made, Workshop, contests_of
from precisions import PrecisionZoo
from specimens import GOLDENS, Goldens, Zoo

from foveal.errors import FovealError
from foveal.export.tensorrt.options import EngineOptions
from foveal.files import write_atomically
from foveal.runtime.preflight.machine import read_machine

OUTCOMES = pytest.StashKey[Outcomes]()
SMALL_OPTIONS, SHIPPED_OPTIONS = (EngineOptions(max_batch=2, max_prefill=prefill) for prefill in (24, 128))
"""Prefills so short that some chunks are run in several calls."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The command's own."""
    parser.addoption("--on", action="append", default=[], help="check only this: tensorrt, cuda:tensorrt, cuda:cpu ...")
    parser.addoption("--report", type=Path, help="write gpu-check.json and gpu-check.md into this directory")


def pytest_configure(config: pytest.Config) -> None:
    """Look at the machine once."""
    machine = read_machine()
    try:
        asked = [Subject.parse(text) for text in config.getoption("--on", default=())]
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error
    subjects = {subject: subject.missing(machine) for subject in asked or SUBJECTS}
    config.stash[OUTCOMES] = Outcomes(machine, subjects)
    config.addinivalue_line("markers", "of(models): run only for the models of these names")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a check for all cases or contests of all subjects that are here, and skip it once for each of the others."""
    for name, of_subject in (("case", _cases), ("contest", contests_of)):
        if name in metafunc.fixturenames:
            params: list[Any] = []
            for subject, missing in metafunc.config.stash[OUTCOMES].subjects.items():
                if missing is None:
                    params += [
                        pytest.param(found, id=str(found)) for found in of_subject(subject) if _is_wanted(metafunc, found)
                    ]
                else:
                    params.append(pytest.param(subject, marks=pytest.mark.skip(missing), id=str(subject)))
            metafunc.parametrize(name, params, indirect=True, scope="session")


def _cases(subject: Subject) -> list[Case]:
    return [Case(subject, model, precision) for precision, models in MODELS.items() for model in models]


def _is_wanted(metafunc: pytest.Metafunc, found: Case | Contest) -> bool:
    marker = metafunc.definition.get_closest_marker("of")
    return marker is None or found.model in marker.args[0]


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory, zoo: Zoo, goldens: Goldens, precise: PrecisionZoo) -> Workshop:
    """Where bundles are made."""
    return Workshop(tmp_path_factory.mktemp("gpu"), zoo, goldens, precise)


@pytest.fixture(scope="session")
def case(request: pytest.FixtureRequest, workshop: Workshop) -> Iterator[Made | FovealError]:
    """A case's engines, which are removed when the next case begins; or why they were not built."""
    found: Case = request.param
    is_small = found.model.startswith(("zoo ", "small ")) or found.model in GOLDENS
    try:
        made = workshop.make(found, SMALL_OPTIONS if is_small else SHIPPED_OPTIONS)
    except FovealError as error:
        yield error
        return
    yield made
    shutil.rmtree(made.bundle.path)


@pytest.fixture(scope="session")
def contest(request: pytest.FixtureRequest) -> Contest:
    """Models to be measured side by side."""
    found: Contest = request.param
    return found


@pytest.fixture
def made(case: Made | FovealError) -> Made:
    """A case's engines; a check of engines that were not built is skipped."""
    if isinstance(case, FovealError):
        pytest.skip(f"there are no engines: {case}")
    return case


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Recorder:
    """Keeps figures for the report."""
    return Recorder(request.node.user_properties)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Keep the outcome of every check, and the JSON up to date: a library that crashes must not take it along."""
    report: pytest.TestReport = yield  # type: ignore[assignment, misc]
    if item.config.stash[OUTCOMES].add(item, report):
        _write_json(item.config, is_finished=False)
    return report  # type: ignore[return-value]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write the report, where one was asked for, and say in a sentence what it says."""
    result = _write_json(config, is_finished=True)
    if result is not None:
        directory: Path = config.getoption("--report")
        write_atomically(directory / "gpu-check.md", page_of(result).encode())
        terminalreporter.section("gpu-check")
        terminalreporter.write_line(sentence_of(result))
        terminalreporter.write_line(f"{directory / 'gpu-check.md'} is the page, {directory / 'gpu-check.json'} has all figures")


def _write_json(config: pytest.Config, is_finished: bool) -> GpuCheck | None:
    directory: Path | None = config.getoption("--report", default=None)
    if directory is None:
        return None
    result = config.stash[OUTCOMES].result(shlex.join(["pytest", *sys.argv[1:]]), is_finished)
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(directory / "gpu-check.json", msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
    return result
