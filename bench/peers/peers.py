"""Who takes part: libraries, and what each of them runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from ...errors import ConfigError

Kind = Literal["fp32", "8-bit", "4-bit"]
VANILLA, HOURGLASS = "12@1", "2@1 8@4 2@1"
HERE = Path(__file__).parent
PROGRAMS = HERE / "programs"


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """A library: the program that drives it, and either an interpreter that has it or a file of requirements to install.

    `precisions`: by its own names for them, and what weights each has.
    """

    name: str
    program: Path
    python: Path | None = None
    requirements: Path | None = None
    hierarchies: tuple[str, ...] = (VANILLA,)
    precisions: dict[str, Kind]


class System(NamedTuple):
    """What is timed: one library, model and precision."""

    peer: Peer
    hierarchy: str
    precision: str

    @property
    def name(self) -> str:
        """For people and `--only`."""
        return " ".join((self.peer.name, self.hierarchy, self.precision))

    @property
    def kind(self) -> Kind:
        """What it is compared with."""
        return self.peer.precisions[self.precision]


def foveal(name: str, python: Path) -> Peer:
    """The foveal that an interpreter has."""
    precisions: dict[str, Kind] = {"fp32": "fp32", "int8": "8-bit", "w8": "8-bit", "w4": "4-bit"}
    program = PROGRAMS / "foveal_peer.py"
    return Peer(name=name, program=program, python=python, hierarchies=(VANILLA, HOURGLASS), precisions=precisions)


OTHERS = (
    Peer(
        name="llama.cpp",
        program=PROGRAMS / "llama_cpp_peer.py",
        requirements=HERE / "llama_cpp.txt",
        precisions={"fp32": "fp32", "Q8_0": "8-bit", "Q4_0": "4-bit"},
    ),
    Peer(
        name="OpenVINO",
        program=PROGRAMS / "openvino_peer.py",
        requirements=HERE / "openvino.txt",
        precisions={"fp32": "fp32", "int8": "8-bit", "int8, f32": "8-bit", "int4": "4-bit", "int4, f32": "4-bit"},
    ),
    Peer(
        name="onnxruntime-genai",
        program=PROGRAMS / "genai_peer.py",
        requirements=HERE / "genai.txt",
        precisions={"fp32": "fp32", "w8": "8-bit", "w4": "4-bit"},
    ),
)


def systems_of(peers: Sequence[Peer], only: Sequence[str] = ()) -> list[System]:
    """All that they run, or those whose names hold one of the texts `only`.

    Raises:
        ConfigError: a text that no name holds.
    """
    every = [System(peer, hierarchy, label) for peer in peers for hierarchy in peer.hierarchies for label in peer.precisions]
    for text in only:
        if not any(text in system.name for system in every):
            raise ConfigError(
                f"no system's name holds {text!r}; expected a part of: {', '.join(system.name for system in every)}"
            )
    return [system for system in every if not only or any(text in system.name for text in only)]


def others_of(given: Sequence[str]) -> Mapping[str, Path]:
    """NAME=PYTHON, as the command line gives the interpreters of other checkouts.

    Raises:
        ConfigError: anything else, or no such file.
    """
    found = {}
    for text in given:
        name, _, python = text.partition("=")
        if not name or not Path(python).is_file():
            raise ConfigError(f"--foveal takes NAME=PYTHON, the interpreter of another checkout's environment, got {text!r}")
        found[name] = Path(python).absolute()  # not resolved: that would leave the environment
    return found
